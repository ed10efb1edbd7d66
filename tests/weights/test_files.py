"""Files of weights: what was written is read back with its description, and damage gets one line."""

import io
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from mixer_jax.errors import UserError
from mixer_jax.inference import load
from mixer_jax.weights import read_description, read_file, write_file
from support import GOLDEN

DESCRIPTION = {"format": 1, "label_names": ["Katze", "\u732b"], "preprocessing": {"mean": [0.1, 1 / 3]}}


@pytest.mark.parametrize(("name", "beside"), [("x.npz", ["x.npz.json"]), ("x.safetensors", [])])
def test_arrays_and_their_description_come_back(name, beside, tmp_path):
    arrays = read_file(GOLDEN / "paper_mixer_tiny.npz")
    write_file(tmp_path / name, arrays, DESCRIPTION)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, *beside])
    (tmp_path / "other").touch()
    assert (tmp_path / name).stat().st_mode == (tmp_path / "other").stat().st_mode
    back = read_file(tmp_path / name)
    assert back.keys() == arrays.keys()
    for key, x in arrays.items():
        assert (x.dtype, x.shape, x.tobytes()) == (back[key].dtype, back[key].shape, back[key].tobytes())
    assert read_description(tmp_path / name) == DESCRIPTION


@pytest.mark.parametrize("name", ["paper_mixer_tiny.npz", "timm_mixer_tiny.safetensors"])
def test_files_of_others_have_no_description(name):
    assert read_description(GOLDEN / name) is None


def test_a_damaged_description_gets_one_line(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    (tmp_path / "x.npz.json").write_text("{")
    save_file({"a": np.zeros(3)}, tmp_path / "x.safetensors", {"mixer_jax": "{"})
    for name in ("x.npz", "x.safetensors"):
        with pytest.raises(UserError, match=f"cannot read the description .*{name}") as caught:
            read_description(tmp_path / name)
        assert "\n" not in str(caught.value)


def changed(**changes):
    arrays = read_file(GOLDEN / "paper_mixer_tiny.npz")
    for key, x in changes.items():
        key = key.replace("__", "/")
        arrays.pop(key, None)
        if x is not None:
            arrays[key] = x
    return arrays


def npz(arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def pickled():
    buffer = io.BytesIO()
    np.savez(buffer, x=np.array([print], dtype=object))
    return buffer.getvalue()


def zipped(name, content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


FLOAT = np.zeros
DAMAGED = {
    "empty": (lambda: b"", "cannot read weights "),
    "no archive": (lambda: b"garbage" * 99, "cannot read weights "),
    "cut short": (lambda: npz(changed())[:5000], "cannot read weights "),
    "a pickle": (pickled, "cannot read weights .*: x is an array of Python objects: save arrays of numbers"),
    "another archive": (lambda: zipped("a.txt", "hello"), "cannot read weights "),
    "nothing": (
        lambda: npz({}), r"is not a Mixer in a known layout \(paper, timm, lucidrains\); its first arrays: none"
    ),
    "another model": (
        lambda: npz({"conv/kernel": FLOAT(3)}), "a convolutional network, not a Mixer .*; its first arrays: conv/kernel"
    ),
    "nothing known": (lambda: npz({"dense/kernel": FLOAT(3)}), "is not a Mixer in .*; its first arrays: dense/kernel"),
    "no head": (lambda: npz(changed(head__kernel=None)), r"\(paper\): head/kernel is missing"),
    "a block incomplete": (
        lambda: npz(changed(MixerBlock_1__token_mixing__Dense_0__bias=None)), "token_mixing/Dense_0/bias is missing"
    ),
    "one too many": (lambda: npz(changed(cls=FLOAT(3))), "cls belongs to no Mixer of 3 blocks"),
    "integers": (lambda: npz(changed(head__bias=np.zeros(10, int))), "head/bias is int64, not a float"),
    "a wrong width": (
        lambda: npz(changed(MixerBlock_2__channel_mixing__Dense_1__kernel=FLOAT((96, 47)))),
        r"\['MixerBlock_2'\]\['channel_mixing'\]\['Dense_1'\]\['kernel'\] is float32\[96, 47\], expected float32",
    ),
    "a flat stem": (lambda: npz(changed(stem__kernel=FLOAT((48, 48)))), r"stem/kernel of shape \[48, 48\] is not that"),
    "no square image": (
        lambda: npz(changed(MixerBlock_0__token_mixing__Dense_0__kernel=FLOAT((63, 24)))),
        "63 patches of 4x4 pixels do not form a square image: set image_size to the height and width in pixels",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGED)
def test_what_is_no_mixer_gets_one_line(damage, tmp_path):
    content, line = DAMAGED[damage]
    (tmp_path / "x.npz").write_bytes(content())
    with pytest.raises(UserError, match=line) as caught:
        load(tmp_path / "x.npz")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth", ".pt", ".bin"])
def test_garbage_of_any_kind_gets_one_line(suffix, tmp_path):
    if suffix in (".pth", ".pt", ".bin"):
        pytest.importorskip("torch")
    for content in (b"", b"garbage" * 99):
        (tmp_path / f"x{suffix}").write_bytes(content)
        with pytest.raises(UserError, match=f"cannot read weights .*x{suffix}: ") as caught:
            read_file(tmp_path / f"x{suffix}")
        assert "\n" not in str(caught.value)


def test_other_mistakes(tmp_path):
    with pytest.raises(UserError, match="no file .*y.npz"):
        read_file(tmp_path / "y.npz")
    (tmp_path / "y.txt").write_text("hello")
    with pytest.raises(UserError, match="unknown kind of weights '.txt' .*valid: .npz, .safetensors"):
        read_file(tmp_path / "y.txt")


@pytest.mark.torch
def test_a_file_of_pytorchs_is_read_and_no_code_in_it_run(tmp_path):
    torch = pytest.importorskip("torch")
    arrays = read_file(GOLDEN / "timm_mixer_tiny.safetensors")
    state = {key: torch.from_numpy(x) for key, x in arrays.items()}
    for name, content, prefix in (("x.pth", state, ""), ("x.bin", {"state_dict": state}, "state_dict.")):
        torch.save(content, tmp_path / name)
        back = read_file(tmp_path / name)
        assert back.keys() == {prefix + key for key in arrays}
        assert all(np.array_equal(back[prefix + key], x) for key, x in arrays.items())
    torch.save({"x": print}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="cannot read weights .*evil.pth: it holds no tensors"):
        read_file(tmp_path / "evil.pth")
