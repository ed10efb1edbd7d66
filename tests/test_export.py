"""A model outside of this package: the same logits of real images, any number at once, on another runtime."""

import json
import subprocess
import sys

import jax
import jax.export
import numpy as np
import pytest

from made_models import made_classifier
from mixer_jax import export, models, train
from mixer_jax.errors import UserError
from mixer_jax.inference import Classifier, dataset_of, load, open_split
from runs import SHRINK, main, train_digits

FLAGS = {  # of the runs: pixels as they are, and a central crop that is scaled up
    "plain": [],
    "scaled": ["--config.augment.input_size=12,12", "--config.augment.eval_crop=0.8", "--config.epochs=4"],
    "ties": ["--config.augment.input_size=12,12", "--config.epochs=4"],  # many scaled levels end in exactly .5
}

MLP = """
from configs import digits

def get_config():
    config = digits.get_config()
    config.model.update(variant="MLP", hidden_dim=None, stochastic_depth_rate=0.0)
    config.epochs = 3
    return config
"""


@pytest.fixture(autouse=True)
def one_round(monkeypatch):
    """How fast it is matters to no test."""
    monkeypatch.setattr(export, "ROUNDS", 1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    mixers = {name: train_digits(folder / name, *flags) for name, flags in FLAGS.items()}
    (folder / "mlp.py").write_text(MLP)
    assert train.main(["train", "--config", str(folder / "mlp.py"), "--workdir", str(folder / "mlp")]) == 0
    return mixers | {"mlp": folder / "mlp"}


def call(path, *flags):
    return export.main(["export", "--workdir", str(path), *flags])


def expected(path, n):
    """Of n real images, and the logits that the run's model gives."""
    classifier = load(path)
    images, _ = open_split(classifier, dataset_of(classifier), "test").read(range(n))
    return images, classifier.logits(images, n)


@pytest.mark.parametrize("name", [*FLAGS, "mlp"])
def test_stablehlo(trained, name, capsys):
    assert call(trained[name]) == 0
    out = capsys.readouterr().out
    assert "accuracy" in out
    assert " ms (" not in out  # timed only when asked
    exported = jax.export.deserialize(bytearray((trained[name] / "export" / "model.stablehlo").read_bytes()))
    images, logits = expected(trained[name], 100)
    for n in (100, 1, 7):
        np.testing.assert_allclose(exported.call(images[:n]), logits[:n], atol=1e-4)
    assert json.loads((trained[name] / "export" / "labels.json").read_text()) == [str(i) for i in range(10)]


def test_stablehlo_needs_nothing_of_this_package(trained, tmp_path):
    assert call(trained["plain"], "--overwrite") == 0
    images, logits = expected(trained["plain"], 5)
    np.savez(tmp_path / "images.npz", images=images)
    program = (
        "import sys, jax.export, numpy as np\n"
        "call = jax.export.deserialize(bytearray(open(sys.argv[1], 'rb').read())).call\n"
        "np.savez('logits.npz', np.asarray(call(np.load('images.npz')['images'])))\n"
        "assert 'mixer_jax' not in sys.modules"
    )
    file = trained["plain"] / "export" / "model.stablehlo"
    subprocess.run([sys.executable, "-c", program, file], cwd=tmp_path, check=True)
    with np.load(tmp_path / "logits.npz") as found:
        np.testing.assert_allclose(found["arr_0"], logits, atol=1e-4)


@pytest.mark.torch
@pytest.mark.parametrize("name", [*FLAGS, "mlp"])
def test_onnx(trained, name, capsys):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    path = trained[name]
    assert call(path, "--format", "onnx", "--benchmark") == 0
    session = onnxruntime.InferenceSession(path / "export" / "model.onnx", providers=["CPUExecutionProvider"])
    images, logits = expected(path, 100)
    for n in (100, 1, 7):
        [found] = session.run(["logits"], {"images": images[:n]})
        np.testing.assert_allclose(found, logits[:n], atol=1e-4)
    assert "PyTorch" in capsys.readouterr().out


@pytest.mark.torch
@pytest.mark.parametrize("name", ["scaled", "mlp"])
def test_onnx_of_8_bits_is_smaller_and_as_accurate(trained, name, tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    path = trained[name]
    flags = f"--output={tmp_path}", "--format"
    assert call(path, *flags, "onnx") == call(path, *flags, "onnx_int8") == 0
    small, whole = (tmp_path / name for name in ("model_int8.onnx", "model.onnx"))
    if name == "mlp":  # of the other, with 602 parameters, most is not weights
        assert small.stat().st_size < 0.5 * whole.stat().st_size
    images, logits = expected(path, 100)
    session = onnxruntime.InferenceSession(small, providers=["CPUExecutionProvider"])
    [found] = session.run(["logits"], {"images": images})
    assert np.mean(found.argmax(1) == logits.argmax(1)) >= 0.98


def test_any_number_of_images_goes_through_the_cnn():
    model = models.Cnn(num_classes=10)
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype(np.float32)
    params = model.init(jax.random.key(0), images)
    [batch] = jax.export.symbolic_shape("batch")
    shape = jax.ShapeDtypeStruct((batch, 8, 8, 1), np.float32)
    exported = jax.export.export(jax.jit(lambda images: model.apply(params, images)))(shape)
    np.testing.assert_allclose(exported.call(images), model.apply(params, images), atol=1e-5)


def test_what_differs_is_not_kept(trained, tmp_path, monkeypatch, capsys):
    path = trained["plain"]
    (path / "export" / "model.stablehlo").unlink(missing_ok=True)
    right = Classifier.traceable
    monkeypatch.setattr(Classifier, "traceable", lambda self, images: right(self, images) + 0.01)
    assert call(path) == 1
    assert "not kept" in capsys.readouterr().err
    assert not list((path / "export").glob("*stablehlo*"))


def test_without_the_test_images_it_is_compared_on_random_pixels(write_folder, tmp_path, capsys):
    images = write_folder()
    flags = [
        f"--config.dataset.data_dir={images}",
        *SHRINK,
        "--config.model.patch_size=16",
        "--config.dataset.image_size=64,64",
    ]
    assert main("folder", tmp_path / "run", *flags) == 0
    images.rename(tmp_path / "elsewhere")
    assert call(tmp_path / "run", f"--output={tmp_path / 'out'}") == 0
    told = capsys.readouterr()
    assert "warning: no test images to compare on, only random pixels: there is no folder" in told.err
    assert "--data_dir=DATA_DIR" in told.err  # the flag that this command has
    assert "compared on 64 images of random pixels" in told.out
    exported = jax.export.deserialize(bytearray((tmp_path / "out" / "model.stablehlo").read_bytes()))
    assert exported.call(np.zeros((3, 64, 64, 3), np.uint8)).shape == (3, 2)
    with pytest.raises(UserError, match="model.stablehlo already exists: --overwrite replaces it"):
        call(tmp_path / "run", f"--output={tmp_path / 'out'}")
    assert call(tmp_path / "run", f"--output={tmp_path / 'out'}", "--overwrite") == 0


def test_a_file_of_weights_is_exported_as_its_run(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    load(trained["scaled"]).save("weights.safetensors", "lucidrains")
    assert call("weights.safetensors") == 0
    assert "only random pixels: weights.safetensors does not come from a run" in capsys.readouterr().err
    file = tmp_path / "export" / "weights.safetensors" / "model.stablehlo"
    images, logits = expected(trained["scaled"], 20)
    exported = jax.export.deserialize(bytearray(file.read_bytes()))
    np.testing.assert_allclose(exported.call(images), logits, atol=1e-4)
    assert call("weights.safetensors", "--dataset=digits", "--overwrite") == 0
    assert "compared on 360 test images of digits" in capsys.readouterr().out


def test_a_run_that_cannot_be_written_is_exported_elsewhere(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.access", lambda path, mode: str(path) == str(tmp_path))  # root may write everywhere
    assert call(trained["plain"]) == 0
    assert (tmp_path / "export" / "plain" / "model.stablehlo").exists()


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--format=stablehl"], "unknown format 'stablehl' (did you mean 'stablehlo'?)"),
        (["--checkpoint=7"], "no checkpoint '7'"),
        (["more"], "unexpected argument 'more'"),
        (["--dataset=mnits"], "unknown dataset 'mnits' (did you mean 'mnist'?)"),
        (["--dataset=folder", "--data_dir=/nowhere"], "there is no folder /nowhere"),
    ],
)
def test_mistakes(trained, flags, line):
    with pytest.raises(UserError) as error:
        call(trained["plain"], *flags)
    assert line in str(error.value)


@pytest.mark.parametrize("format", ["stablehlo", "onnx"])
def test_a_model_without_a_head_is_refused(format, tmp_path):
    if format == "onnx":
        pytest.importorskip("onnxscript", reason="needs onnxscript")
    file = tmp_path / "headless.safetensors"
    made_classifier(label_names=()).save(file)
    with pytest.raises(UserError, match="has no head and so no classes: fine-tune it"):
        call(file, f"--format={format}")
    assert list(tmp_path.iterdir()) == [file]


def test_a_missing_package_is_named(trained, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install torch onnx onnxscript onnxruntime"):
        call(trained["plain"], "--format=onnx")


def test_class_names_of_another_model_are_not_overwritten(trained, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "labels.json").write_text('["cat", "dog"]')
    with pytest.raises(UserError, match="labels.json already exists: --overwrite replaces it"):
        call(trained["plain"], f"--output={output}")
    assert [file.name for file in output.iterdir()] == ["labels.json"]
    (output / "labels.json").write_text(json.dumps([str(i) for i in range(10)]))  # as another format left it
    assert call(trained["plain"], f"--output={output}") == 0
