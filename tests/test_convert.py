"""The convert command: to files and folders and back without a loss, and one line for what is no Mixer."""

import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from made_models import made_classifier, some_images
from mixer_jax import convert, evaluate
from mixer_jax.errors import UserError
from mixer_jax.inference import load
from mixer_jax.inference.classifier import MODEL_FILE
from mixer_jax.run_directory import RunDirectory
from other_files import TIMM as TINY
from other_files import lucidrains, made, prefixed
from runs import SHRINK, main, train_digits
from support import GOLDEN

PAPER, TIMM = "paper_mixer_tiny.npz", "timm_mixer_tiny.safetensors"


def call(*arguments):
    return convert.main(["convert", *map(str, arguments)])


def same_bits(one, other):
    assert one.keys() == other.keys()
    for key, x in one.items():
        assert (x.dtype, x.shape, x.tobytes()) == (other[key].dtype, other[key].shape, other[key].tobytes()), key


def arrays_of(path):
    return dict(np.load(path)) if path.suffix == ".npz" else load_file(path)


@pytest.mark.parametrize("file", [PAPER, TIMM])
def test_a_file_becomes_a_folder_and_the_same_file_again(file, tmp_path, capsys):
    source = GOLDEN / file
    layout = "paper" if file == PAPER else "timm"
    assert call(source, tmp_path / "folder") == 0
    assert [path.name for path in (tmp_path / "folder").iterdir()] == [MODEL_FILE]
    out = capsys.readouterr().out
    assert f": {layout}, 3 blocks of 48, 41,074 parameters, 32x32x3, 10 classes" in out
    assert call(tmp_path / "folder", tmp_path / f"back{source.suffix}") == 0
    told = capsys.readouterr()
    assert "warning" not in told.out + told.err
    same_bits(arrays_of(source), arrays_of(tmp_path / f"back{source.suffix}"))
    images = np.load(GOLDEN / (file.replace(".npz", "_io.npz").replace(".safetensors", "_io.npz")))
    classifier = load(tmp_path / "folder")
    given = images["images"] if layout == "paper" else images["images_nchw"].transpose(0, 2, 3, 1)
    logits = jax.jit(classifier.model.apply)({"params": classifier.params}, given)
    np.testing.assert_allclose(logits, images["logits"], atol=1e-5)


def test_what_another_project_computes_otherwise_is_told(tmp_path, capsys):
    assert call(GOLDEN / PAPER, tmp_path / "x.safetensors") == 0
    told = capsys.readouterr()
    assert "wrote" in told.out
    assert "timm computes with gelu exact, this model with tanh: timm's logits differ a little" in told.err
    assert call(GOLDEN / PAPER, tmp_path / "y.safetensors", "--layout=lucidrains") == 0
    assert "lucidrains computes with layer_norm_epsilon 1e-05, this model with 1e-06" in capsys.readouterr().err
    assert call(GOLDEN / TIMM, tmp_path / "folder") == 0
    assert capsys.readouterr().err == ""  # only this project reads a folder
    # Here they compute as before.
    images = some_images(load(GOLDEN / PAPER))
    for name in ("x.safetensors", "y.safetensors"):
        np.testing.assert_array_equal(load(tmp_path / name).logits(images), load(GOLDEN / PAPER).logits(images))


def test_a_trained_run_goes_through_files_and_scores_the_same(tmp_path, write_folder, capsys):
    images = write_folder()
    flags = [f"--config.dataset.data_dir={images}", "--config.dataset.normalization=paper", *SHRINK]
    assert (
        main("folder", tmp_path / "run", *flags, "--config.model.patch_size=16", "--config.dataset.image_size=64,64")
        == 0
    )
    capsys.readouterr()
    assert call(tmp_path / "run", tmp_path / "file.npz") == 0
    assert call(tmp_path / "file.npz", tmp_path / "folder") == 0
    assert call(tmp_path / "folder", tmp_path / "again.safetensors") == 0
    assert "normalisation" not in capsys.readouterr().err
    before = load(tmp_path / "run")
    pixels = some_images(before)
    assert evaluate.main(["evaluate", "--workdir", str(tmp_path / "run"), f"--output={tmp_path / 'scores'}"]) == 0
    expected = json.loads((tmp_path / "scores" / "evaluation.json").read_text())
    for name in ("file.npz", "folder", "again.safetensors"):
        after = load(tmp_path / name)
        np.testing.assert_array_equal(before.logits(pixels), after.logits(pixels))
        assert before.label_names == after.label_names == ("cat", "dog")
        assert before.preprocessing == after.preprocessing
        output = tmp_path / f"scores of {name}"
        flags = ["--dataset=folder", f"--data_dir={images}", f"--output={output}"]
        assert evaluate.main(["evaluate", f"--workdir={tmp_path / name}", *flags]) == 0
        scores = json.loads((output / "evaluation.json").read_text())
        assert {**scores, "step": 0} == {**expected, "step": 0}
    config = RunDirectory(tmp_path / "run").config_file
    written = json.loads(config.read_text())
    written["dataset"] |= {"mean": [0.25] * 3, "std": [0.5, 0.5, 0.125]}
    config.write_text(json.dumps(written))
    assert call(tmp_path / "run", tmp_path / "other.npz") == 0
    assert "pass it mean 0.25, 0.25, 0.25 and std 0.5, 0.5, 0.125" in capsys.readouterr().err
    assert load(tmp_path / "other.npz").preprocessing.std == (0.5, 0.5, 0.125)


def test_a_mixer_for_another_size_goes_through_files_too(tmp_path, capsys):
    made_classifier().save(tmp_path / "small.npz")
    for size, name, shape in (("16", "square", (16, 16, 1)), ("8,24", "wide", (8, 24, 1))):
        assert call(tmp_path / "small.npz", tmp_path / f"{name}.npz", f"--image_size={size}") == 0
        assert "repeated in" in capsys.readouterr().out
        expected = load(tmp_path / f"{name}.npz")
        assert expected.image_shape == shape
        for layout in ("timm", "lucidrains", "paper"):
            file = tmp_path / f"{name}_{layout}.safetensors"
            assert call(tmp_path / f"{name}.npz", file, f"--layout={layout}") == 0
            np.testing.assert_array_equal(
                load(file).logits(some_images(expected)), expected.logits(some_images(expected))
            )
    flags = ["--image_size=16", "--interpolate", "--overwrite"]
    assert call(tmp_path / "small.npz", tmp_path / "square.npz", *flags) == 0
    assert "interpolated" in capsys.readouterr().out
    small, square = load(tmp_path / "small.npz").config, load(tmp_path / "square.npz").config
    assert square.tokens_mlp_dim == small.tokens_mlp_dim
    with pytest.raises(UserError, match="--image_size=9,9: give HEIGHT,WIDTH, multiples of the patches' 4 pixels"):
        call(tmp_path / "small.npz", tmp_path / "x.npz", "--image_size=9")


def test_a_folder_is_written_over_only_if_nothing_else_is_in_it(tmp_path):
    made_classifier().save(tmp_path / "x.npz")
    (tmp_path / "folder").mkdir()
    assert call(tmp_path / "x.npz", tmp_path / "folder") == 0
    with pytest.raises(UserError, match="already exists: --overwrite replaces it"):
        call(tmp_path / "x.npz", tmp_path / "folder")
    assert call(tmp_path / "x.npz", tmp_path / "folder", "--overwrite") == 0
    (tmp_path / "folder" / "mine.txt").touch()
    with pytest.raises(UserError, match=r"folder holds other files \(mine.txt, ...\): choose another name"):
        call(tmp_path / "x.npz", tmp_path / "folder", "--overwrite")


@pytest.mark.parametrize("content", [b"", b"garbage" * 99], ids=["empty", "garbage"])
@pytest.mark.parametrize("target", ["folder", "y.npz", "y.safetensors"])
def test_what_is_no_file_of_weights_leaves_nothing(content, target, tmp_path):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(UserError, match="cannot read weights ") as caught:
        call(tmp_path / "x.npz", tmp_path / target)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]


def test_what_is_no_mixer_leaves_nothing(tmp_path):
    np.savez(tmp_path / "x.npz", **{"conv/kernel": np.zeros(3)})
    with pytest.raises(UserError, match="x.npz is a convolutional network, not a Mixer .*; its first arrays: conv/"):
        call(tmp_path / "x.npz", tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]


def test_other_mistakes(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    (tmp_path / "x.safetensors").write_bytes(b"garbage")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").touch()
    save_file({"a": np.zeros(3)}, tmp_path / "there.safetensors")
    for arguments, line in (
        (["x"], "1 path given, 2 expected: python -m mixer_jax.convert FROM TO"),
        ([tmp_path / "x.npz", tmp_path / "there.safetensors"], "there.safetensors already exists"),
        ([tmp_path / "x.npz", tmp_path / "there"], r"there holds other files \(mine, ...\): choose another"),
        ([tmp_path / "x.npz", tmp_path / "there", "--overwrite"], r"there holds other files \(mine, ...\)"),
        ([tmp_path / "x.safetensors", tmp_path / "folder"], "cannot read weights .*x.safetensors: "),
        ([tmp_path / "y.npz", tmp_path / "folder"], "no .*file .*y.npz"),
        ([tmp_path / "x.npz", tmp_path / "y.npz", "--layout=timm"], "unknown layout of .npz 'timm'.*valid: paper"),
        (
            [tmp_path / "x.npz", tmp_path / "folder", "--layout=lucidrains"],
            "unknown layout of a folder 'lucidrains'.*valid: paper, timm",
        ),
        ([tmp_path / "x.npz", tmp_path / "y.safetensors", "--layout=tim"], "unknown layout of .safetensors 'tim'"),
        ([tmp_path / "x.npz", tmp_path / "y.PTH"], "y.PTH: weights are written as .npz or .safetensors, or into"),
        ([tmp_path / "x.npz", tmp_path / "y.NPZ"], "y.NPZ: weights are written as .npz or .safetensors, or into"),
        (["http://x/y.npz", tmp_path / "folder"], "only https:// and gs:// URLs can be downloaded"),
        (["https://127.0.0.1:9/y.npz", tmp_path / "folder"], "cannot download https://127.0.0.1:9/y.npz: "),
    ):
        with pytest.raises(UserError, match=line):
            call(*arguments)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["there", "there.safetensors", "x.npz", "x.safetensors"]


def test_what_a_file_does_not_tell_is_given_by_flags(tmp_path, capsys):
    files = {
        "wide": made(64, 32),
        "grey": lucidrains(made(channels=1)),
        "two": prefixed("a.", TINY) | prefixed("b.", TINY),
    }
    for name, arrays in files.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
    for name, line, flag, shape in (
        ("wide", "do not form a square image: set --image_size to the height and", "--image_size=64,32", (64, 32, 3)),
        ("grey", "or 4x4 pixels of 4 channels: set --channels", "--channels=1", (32, 32, 1)),
        ("grey", "or 4x4 pixels of 4 channels: set --channels", "--patch_size=4", (16, 16, 4)),
        ("two", "2 sets of weights; to choose one, set --checkpoint to a or b", "--checkpoint=b", (32, 32, 3)),
    ):
        with pytest.raises(UserError, match=line):
            call(tmp_path / f"{name}.npz", tmp_path / "folder")
        assert call(tmp_path / f"{name}.npz", tmp_path / "folder", flag) == 0
        assert "repeated" not in capsys.readouterr().out
        assert load(tmp_path / "folder").image_shape == shape
        shutil.rmtree(tmp_path / "folder")


def test_a_folder_for_timm_has_its_config(tmp_path, capsys):
    assert call(GOLDEN / TIMM, tmp_path / "folder", "--layout=timm") == 0
    assert {path.name for path in (tmp_path / "folder").iterdir()} == {MODEL_FILE, "config.json"}
    assert "timm creates no Mixer of this size by name: call its MlpMixer with" in capsys.readouterr().out
    assert call(GOLDEN / TIMM, tmp_path / "other" / "model.safetensors", "--layout=timm") == 0
    told = capsys.readouterr()
    assert "timm creates no Mixer of this size by name" in told.out
    assert "does not read the normalisation" not in told.err
    assert (tmp_path / "other" / "config.json").exists()
    same_bits(arrays_of(GOLDEN / TIMM), arrays_of(tmp_path / "folder" / MODEL_FILE))


def test_the_config_of_a_run_is_never_lost(tmp_path, capsys):
    run = train_digits(tmp_path / "run", "--config.epochs=1")
    before = (run / "config.json").read_bytes()
    for flags in ([], ["--overwrite"]):
        with pytest.raises(UserError, match=r"config.json already exists|is a run, whose config.json would be lost"):
            call(run, run / "model.safetensors", *flags)
    with pytest.raises(UserError, match="is a run, whose config.json would be lost: choose another folder"):
        load(run).save(run, "timm")
    assert (run / "config.json").read_bytes() == before
    assert load(run).save(run / "model.npz")  # which needs no config


def test_it_writes_over_nothing_unasked(tmp_path):
    made_classifier().save(tmp_path / "small.safetensors")
    (tmp_path / "x.npz.json").write_text("mine")
    with pytest.raises(UserError, match="x.npz.json already exists"):
        call(tmp_path / "small.safetensors", tmp_path / "x.npz")
    assert (tmp_path / "x.npz.json").read_text() == "mine"


def test_overwrite_writes_a_whole_new_file(tmp_path):
    made_classifier().save(tmp_path / "small.npz")
    for name in ("x.npz", "x.safetensors"):
        assert call(GOLDEN / PAPER, tmp_path / name) == 0
        assert call(tmp_path / "small.npz", tmp_path / name, "--overwrite") == 0
        assert load(tmp_path / name).label_names == ("a", "b", "c")


def test_a_mixer_without_a_part_is_written_in_our_layout_alone(tmp_path):
    assert main("digits", tmp_path / "run", *SHRINK, "--noconfig.model.pre_head_norm", "--config.batch_size=64") == 0
    with pytest.raises(UserError, match="timm has no Mixer with config.model.pre_head_norm=False"):
        call(tmp_path / "run", tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="lucidrains has no Mixer with config.model.pre_head_norm=False"):
        call(tmp_path / "run", tmp_path / "x.safetensors", "--layout=lucidrains")
    assert not (tmp_path / "x.safetensors").exists()
    before = load(tmp_path / "run")
    for target, flags in (("x.npz", []), ("folder", []), ("x.safetensors", ["--layout=paper"])):
        assert call(tmp_path / "run", tmp_path / target, *flags) == 0
        after = load(tmp_path / target)
        np.testing.assert_array_equal(after.logits(some_images(before)), before.logits(some_images(before)))
        assert not after.model.pre_head_norm
    assert json.loads((tmp_path / "run" / "results.json").read_text())["epochs"] == 2


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(number, tmp_path):
    arrays = dict(np.load(GOLDEN / PAPER))
    name = next(key for key in arrays if key.endswith("token_mixing/Dense_0/bias"))
    arrays[name] = np.full_like(arrays[name], number)
    np.savez(tmp_path / "bad.npz", **arrays)
    for target in (tmp_path / "run", tmp_path / "out.safetensors"):
        with pytest.raises(
            UserError, match=r"bad.npz .*: MixerBlock_\d/token_mixing/Dense_0/bias holds NaN or infinity"
        ):
            call(tmp_path / "bad.npz", target)
        assert not target.exists()
