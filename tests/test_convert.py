"""Weights of other projects: the same bits there and back, the same logits, and one line for what is no Mixer."""

import io
import json
import zipfile

import jax
import numpy as np
import pytest
from mixer_jax.interop.weights import LAYOUTS, from_layout, read_file, to_layout
from mixer_jax.training.inference import Classifier
from safetensors.numpy import load_file, save_file

from mixer_jax import convert, evaluate
from mixer_jax.errors import UserError
from mixer_jax.models import MlpMixer
from mixer_jax.run_directory import RunDirectory
from runs import SHRINK, main
from support import GOLDEN

PAPER, TIMM = "paper_mixer_tiny.npz", "timm_mixer_tiny.safetensors"


def call(*arguments):
    return convert.main(["convert", *map(str, arguments)])


def same_bits(one, other):
    assert one.keys() == other.keys()
    for key, x in one.items():
        assert (x.dtype, x.shape, x.tobytes()) == (other[key].dtype, other[key].shape, other[key].tobytes()), key


def load(path):
    return dict(np.load(path)) if path.suffix == ".npz" else load_file(path)


@pytest.mark.parametrize("file", [PAPER, TIMM])
def test_a_file_becomes_a_run_and_the_same_file_again(file, tmp_path, capsys):
    source = GOLDEN / file
    layout = "paper" if file == PAPER else "timm"
    assert call(source, tmp_path / "run") == 0
    out = capsys.readouterr().out
    assert f": {layout}, 3 blocks of 48, 41,074 parameters, 32x32x3, 10 classes" in out
    assert call(tmp_path / "run", tmp_path / f"back{source.suffix}") == 0
    assert "warning" not in capsys.readouterr().out
    same_bits(load(source), load(tmp_path / f"back{source.suffix}"))
    images = np.load(GOLDEN / (file.replace(".npz", "_io.npz").replace(".safetensors", "_io.npz")))
    classifier = Classifier(RunDirectory(tmp_path / "run"), "latest")
    given = images["images"] if layout == "paper" else images["images_nchw"].transpose(0, 2, 3, 1)
    logits = jax.jit(classifier.model.apply)({"params": classifier.params}, given)
    np.testing.assert_allclose(logits, images["logits"], atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_recognised_and_brings_back_every_bit(layout):
    params, fields, _ = from_layout(read_file(GOLDEN / PAPER), "x")
    arrays = to_layout(params, layout)
    back, found, name = from_layout(arrays, "x")
    assert name == layout
    same_bits(arrays, to_layout(back, layout))
    jax.tree.map(np.testing.assert_array_equal, params, back)
    assert found == fields | {"gelu": LAYOUTS[layout].gelu, "layer_norm_epsilon": LAYOUTS[layout].layer_norm_epsilon}


def test_older_files_keep_them_beside_the_optimisers_state():
    arrays = read_file(GOLDEN / PAPER)
    older = {f"opt/target/{key}": x for key, x in arrays.items()} | {"opt/state/step": np.int32(3)}
    jax.tree.map(np.testing.assert_array_equal, from_layout(older, "x")[0], from_layout(arrays, "x")[0])


@pytest.mark.parametrize("variant", ["B/16", "S/32"])
def test_the_papers_variants_are_named(variant):
    from mixer_jax.models import variant as sizes

    model = MlpMixer(num_classes=5, **sizes(variant))
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    params = jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), shapes)
    _, fields, _ = from_layout(to_layout(params, "paper"), "x")
    assert (fields["variant"], fields["num_classes"], fields["image_shape"]) == (variant, 5, (224, 224, 3))


@pytest.mark.torch
@pytest.mark.parametrize(("image_size", "channels"), [(32, 3), (28, 1)])
def test_logits_and_gradients_equal_lucidrains_live(image_size, channels):
    torch, theirs = pytest.importorskip("torch"), pytest.importorskip("mlp_mixer_pytorch")
    torch.manual_seed(0)
    module = theirs.MLPMixer(
        image_size=image_size, channels=channels, patch_size=4, dim=24, depth=3, num_classes=7, expansion_factor=2
    ).eval()
    arrays = {key: x.numpy() for key, x in module.state_dict().items()}
    params, fields, name = from_layout(arrays, "live")
    assert (name, fields["num_blocks"], fields["image_shape"]) == ("lucidrains", 3, (image_size, image_size, channels))
    same_bits(arrays, to_layout(params, name))
    images = np.random.default_rng(0).normal(size=(4, image_size, image_size, channels)).astype(np.float32)
    expected = module(torch.from_numpy(images.transpose(0, 3, 1, 2)).contiguous())
    sizes = {key: x for key, x in fields.items() if key not in ("variant", "image_shape")}
    apply = jax.jit(MlpMixer(**sizes).apply)
    np.testing.assert_allclose(apply({"params": params}, images), expected.detach().numpy(), atol=1e-5)
    torch.logsumexp(expected, -1).mean().backward()
    theirs = from_layout({key: x.grad.numpy() for key, x in module.named_parameters()}, "live")[0]
    ours = jax.grad(lambda p: jax.nn.logsumexp(apply({"params": p}, images), -1).mean())(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, theirs)


def test_a_trained_run_goes_through_a_file_and_scores_the_same(tmp_path, write_folder, capsys):
    images = write_folder()
    flags = [f"--config.dataset.data_dir={images}", "--config.dataset.normalization=paper", *SHRINK]
    assert main("folder", tmp_path / "run", *flags, "--config.model.patch_size=16") == 0
    assert call(tmp_path / "run", tmp_path / "file.npz") == 0
    assert call(tmp_path / "file.npz", tmp_path / "again") == 0
    before, after = (Classifier(RunDirectory(tmp_path / name)) for name in ("run", "again"))
    pixels = np.random.default_rng(0).integers(0, 256, (5, *before.image_shape)).astype(np.uint8)
    np.testing.assert_array_equal(before.logits(pixels, 5), after.logits(pixels, 5))
    assert after.label_names == ("class 0", "class 1")
    assert evaluate.main(["evaluate", "--workdir", str(tmp_path / "run")]) == 0
    assert call(tmp_path / "run", tmp_path / "timm.safetensors") == 0
    assert "normalised" not in capsys.readouterr().out
    config = RunDirectory(tmp_path / "run").config_file
    written = json.loads(config.read_text())
    written["dataset"] |= {"mean": [0.25] * 3, "std": [0.5, 0.5, 0.125]}
    config.write_text(json.dumps(written))
    assert call(tmp_path / "run", tmp_path / "other.npz") == 0
    assert "from 0 to 1, less 0.25, 0.25, 0.25, over 0.5, 0.5, 0.125: whoever" in capsys.readouterr().out


def changed(**changes):
    arrays = read_file(GOLDEN / PAPER)
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
    "a pickle": (pickled, "cannot read weights .*: Object arrays cannot be loaded when allow_pickle=False"),
    "another archive": (lambda: zipped("a.txt", "hello"), "cannot read weights "),
    "nothing": (lambda: npz({}), "is no Mixer of paper, timm, lucidrains: it holds nothing"),
    "another model": (lambda: npz({"conv/kernel": FLOAT(3)}), "is no Mixer of .*: it holds conv/kernel"),
    "no head": (lambda: npz(changed(head__kernel=None)), r"\(paper\): head/kernel is missing"),
    "a block incomplete": (
        lambda: npz(changed(MixerBlock_1__token_mixing__Dense_0__bias=None)), "token_mixing/Dense_0/bias is missing"
    ),
    "one too many": (lambda: npz(changed(cls=FLOAT(3))), "cls belongs to no Mixer of 3 blocks"),
    "integers": (lambda: npz(changed(head__bias=np.zeros(10, int))), "head/bias is int64, not a float"),
    "a wrong width": (
        lambda: npz(changed(MixerBlock_2__channel_mixing__Dense_1__kernel=FLOAT((96, 47)))),
        r"\['MixerBlock_2'\]\['channel_mixing'\]\['Dense_1'\]\['kernel'\] is float32\[96, 47\], not float32\[96, 48\]",
    ),
    "a flat stem": (lambda: npz(changed(stem__kernel=FLOAT((48, 48)))), r"stem/kernel of shape \[48, 48\] is not that"),
    "no square image": (
        lambda: npz(changed(MixerBlock_0__token_mixing__Dense_0__kernel=FLOAT((63, 24)))), "63 of them, make no square"
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGED)
def test_what_is_no_mixer_gets_one_line(damage, tmp_path):
    content, line = DAMAGED[damage]
    (tmp_path / "x.npz").write_bytes(content())
    with pytest.raises(UserError, match=line) as caught:
        call(tmp_path / "x.npz", tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]


def test_other_mistakes(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    (tmp_path / "x.safetensors").write_bytes(b"garbage")
    save_file({"a": np.zeros(3)}, tmp_path / "there.safetensors")
    for arguments, line in (
        (["x"], "1 paths given, 2 expected: python -m mixer_jax.convert FROM TO"),
        ([tmp_path / "x.npz", tmp_path / "there.safetensors"], "there.safetensors is there already"),
        ([tmp_path / "x.safetensors", tmp_path / "run"], "cannot read weights .*x.safetensors: "),
        ([tmp_path / "y.npz", tmp_path / "run"], "no file .*y.npz"),
        ([tmp_path / "x.npz", tmp_path / "y.npz", "--layout=timm"], "unknown layout of .npz 'timm'; valid: paper"),
        ([tmp_path / "x.npz", tmp_path / "run", "--layout=timm"], "a run directory has no layout"),
        (["http://x/y.npz", tmp_path / "run"], "only https:// and gs:// are downloaded from"),
        (["https://127.0.0.1:9/y.npz", tmp_path / "run"], "cannot download https://127.0.0.1:9/y.npz: "),
    ):
        with pytest.raises(UserError, match=line):
            call(*arguments)


def test_a_mixer_without_a_part_is_nobody_elses(tmp_path):
    assert main("digits", tmp_path / "run", *SHRINK, "--noconfig.model.pre_head_norm", "--config.batch_size=64") == 0
    with pytest.raises(UserError, match="a Mixer with config.model.pre_head_norm=False is nobody else's"):
        call(tmp_path / "run", tmp_path / "x.npz")
    assert json.loads((tmp_path / "run" / "results.json").read_text())["epochs"] == 2


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(number, tmp_path):
    arrays = dict(np.load(GOLDEN / PAPER))
    name = next(key for key in arrays if key.endswith("token_mixing/Dense_0/bias"))
    arrays[name] = np.full_like(arrays[name], number)
    np.savez(tmp_path / "bad.npz", **arrays)
    for target in (tmp_path / "run", tmp_path / "out.safetensors"):
        with pytest.raises(UserError, match=r"bad.npz: MixerBlock_\d/token_mixing/Dense_0/bias holds NaN or infinity"):
            call(tmp_path / "bad.npz", target)
        assert not target.exists()
