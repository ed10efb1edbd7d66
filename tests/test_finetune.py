"""Fine-tuning by the commands: of a Mixer that knows MNIST, on other images, of another size, with fewer classes."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from mixer_jax import convert, evaluate, train
from mixer_jax.inference import load
from mixer_jax.run_directory import RunDirectory
from runs import main
from support import ROOT, shared

SIZES = [
    "--config.model.num_blocks=2",
    "--config.model.hidden_dim=32",
    "--config.model.tokens_mlp_dim=16",
    "--config.model.channels_mlp_dim=64",
]


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    """A run on the first images of MNIST: 28x28 grey, 4x4 patches, 10 classes."""
    path = tmp_path_factory.mktemp("mnist") / "run"
    data = [f"--config.dataset.data_dir={shared('data/tfds')}", "--config.dataset.train_split=train[:3000]"]
    data.append("--config.dataset.test_split=test[:500]")
    short = ["--config.batch_size=32", "--config.epochs=20"]
    assert main("mnist", path, *data, *SIZES, "--config.model.patch_size=7", *short) == 0
    assert RunDirectory(path).read_results().test_accuracy > 80
    return path


@pytest.fixture(scope="module")
def five_digits(tmp_path_factory):
    """scikit-learn's digits below 5 as an image folder, 8x8."""
    folder, digits = tmp_path_factory.mktemp("digits"), load_digits()
    for i, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        if label < 5:
            path = folder / ("test" if i % 4 == 0 else "train") / str(label) / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image * 255 / 16).astype(np.uint8)).save(path)
    return folder


def finetune(path, images, source, *flags):
    flags = (f"--config.init_from={source}", f"--config.dataset.data_dir={images}", *SIZES, *flags)
    short = ("--config.batch_size=32", "--config.epochs=3", "--config.schedule.warmup_epochs=1")
    small = ("--config.dataset.normalization=paper", "--config.model.patch_size=7", "--config.model.variant=Pico/7")
    config = ("--config", str(ROOT / "configs/finetune_cifar10.py"), "--config.dataset.name=folder")
    size = ("--config.dataset.val_fraction=0.1", "--config.augment.inception.area=0.5,1.0")
    arguments = ["train", *config, "--workdir", str(path), *short, *small, *size, *flags]
    return train.main(arguments)


def test_a_fine_tuned_run_loads_back_and_predicts_the_same(mnist, five_digits, tmp_path, capsys):
    side, line = 56, "token mixing for 4x4 patches repeated in 2x2 tiles (paper, app. C) for 8x8"
    run = tmp_path / "run"
    flags = (f"--config.dataset.image_size={side},{side}", f"--config.augment.input_size={side},{side}")
    assert finetune(run, five_digits, mnist, *flags, "--config.model.tokens_mlp_dim=64") == 0
    out = capsys.readouterr().out
    for said in (
        line,
        "1 channels become 3: the stem's kernel is divided equally",
        "it has 10 classes and the data 5, so the head",
    ):
        assert f"{mnist}: {said}" in out
    results = RunDirectory(run).read_results()
    assert results.test_accuracy > 80
    assert evaluate.main(["evaluate", "--workdir", str(run)]) == 0
    scores = json.loads((run / "evaluation" / "test_best" / "evaluation.json").read_text())
    assert scores["accuracy"] == pytest.approx(results.test_accuracy)
    images = np.random.default_rng(0).integers(0, 256, (7, side, side, 3)).astype(np.uint8)
    whole = load(run)
    for source, target in (("run", "file.npz"), ("file.npz", "again")):
        assert convert.main(["convert", str(tmp_path / source), str(tmp_path / target)]) == 0
    again = load(tmp_path / "again")
    np.testing.assert_array_equal(again.logits(images, 4), whole.logits(images, 4))
    assert again.label_names == whole.label_names == tuple("01234")
    assert again.preprocessing == whole.preprocessing


def test_a_linear_probe_leaves_the_trunk_as_it_was(mnist, five_digits, tmp_path):
    run = tmp_path / "run"
    flags = ("--config.dataset.image_size=28,28", "--config.augment.input_size=28,28", "--config.frozen_trunk=True")
    assert finetune(run, five_digits, mnist, *flags, "--config.optimizer.learning_rate=0.3") == 0
    before, after = load(mnist).params, load(run).params
    np.testing.assert_array_equal(*(p["MixerBlock_1"]["channel_mixing"]["Dense_0"]["kernel"] for p in (before, after)))
    assert RunDirectory(run).read_results().test_accuracy > 60


def test_a_converted_checkpoint_sees_larger_images_without_training(mnist, tmp_path, capsys):
    assert convert.main(["convert", str(mnist), str(tmp_path / "large"), "--image_size=56"]) == 0
    assert "token mixing for 4x4 patches repeated in 2x2 tiles (paper, app. C) for 8x8" in capsys.readouterr().out
    small, large = load(mnist), load(tmp_path / "large")
    assert (large.input_shape, large.model.tokens_mlp_dim) == ((56, 56, 1), 64)
    image = np.random.default_rng(0).integers(0, 256, (1, 28, 28, 1)).astype(np.uint8)
    np.testing.assert_allclose(large.logits(np.tile(image, (1, 2, 2, 1)), 1), small.logits(image, 1), atol=1e-5)
