"""The main job, end to end: the shipped configs shrunk, what a run leaves behind, and what a user sees."""

import json
import math
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import archives
from mixer_jax.config import check
from mixer_jax.config_files import get_config
from mixer_jax.data import TrainSampler
from mixer_jax.errors import UserError
from mixer_jax.training import Trainer
from mixer_jax.training.schedule import create_schedule
from runs import SHRINK, main, train_digits
from support import ROOT, make_dataset

# The contract with whatever reads results.json.
RESULT_FIELDS = {
    "dataset", "model", "num_params", "seed", "epochs", "steps", "best_epoch", "val_accuracy", "val_loss",
    "test_accuracy", "test_loss", "train_seconds", "compile_seconds", "images_per_second", "devices", "platform",
    "versions", "data_fingerprint",
}  # fmt: skip


@pytest.mark.parametrize("name", archives.NAMES)
def test_shipped_config_of_a_tfds_set(name, tmp_path, capsys):
    arrays = archives.made_images(name, num_train=50, num_test=9)
    with archives.served(name, archives.pack(name, arrays), tmp_path / "served", arrays):
        config = "mnist" if name == "kmnist" else name
        flags = [f"--config.dataset.name={name}", f"--config.dataset.data_dir={tmp_path / 'sets'}", *SHRINK]
        if name == "cifar100":  # whose policy is cifar10's and takes long to compile
            flags += ["--config.augment.automatic=none", "--config.dataset.hold_out=random"]  # of one image a class
        assert main(config, tmp_path / "run", *flags) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["dataset"], results["test_examples"], results["steps"]) == (name, 9, 10)
    assert f"{name}: 40 train, 10 validation and 9 test images" in capsys.readouterr().out


def test_shipped_config_of_a_folder(write_folder, tmp_path):
    flags = [f"--config.dataset.data_dir={write_folder()}", *SHRINK]
    assert main("folder", tmp_path / "run", *flags) == 0
    described = json.loads((tmp_path / "run" / "config.json").read_text())["dataset"]
    assert (described["label_names"], described["image_shape"]) == (["cat", "dog"], [12, 12, 3])
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["model"] == "Nano/2 (modified)"  # 36 patches


def test_shipped_config_of_large_images_streams_them(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for split, n in (("train", 15), ("val", 4)):
        for label in ("cat", "dog"):
            folder = tmp_path / "images" / split / label
            folder.mkdir(parents=True)
            for i in range(n):
                blocks = rng.integers(0, 256, (18 + 4 * (i % 3), 24, 3)).astype(np.uint8)
                Image.fromarray(np.kron(blocks, np.ones((40, 40, 1), np.uint8))).save(folder / f"{i}.JPEG")
    flags = [f"--config.dataset.data_dir={tmp_path / 'images'}", "--config.dataset.memory_budget_gib=0", *SHRINK]
    assert main("imagenet", tmp_path / "run", *flags) == 0
    assert "256x256x3, 2 classes, streamed" in capsys.readouterr().out
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["test_examples"], results["steps"]) == (8, 6)


@pytest.mark.parametrize(("parameters", "count"), [("", 1_132_170), (":1.13M", 1_132_170), (":0.67M", 673_418)])
def test_the_published_nano_mixer_at_either_parameter_count(parameters, count):
    config = get_config(f"{ROOT}/configs/mixer_nano_cifar10.py{parameters}")
    dataset = make_dataset(size=32, channels=3, num_train=500)
    assert Trainer(config, dataset).num_params == count


def test_a_parameter_count_that_was_not_published():
    with pytest.raises(UserError, match=r"unknown number of parameters '1M'.*1.13M"):
        get_config("mixer_nano_cifar10:1M")


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory, with_pictures):
    return train_digits(tmp_path_factory.mktemp("digits") / "run", "--config.epochs=3")


def test_a_run_leaves_its_results(digits_run):
    results = json.loads((digits_run / "results.json").read_text())
    assert results.keys() >= RESULT_FIELDS
    assert (results["dataset"], results["epochs"], results["devices"], results["platform"]) == ("digits", 3, 4, "cpu")
    assert results["selected_on"] == "validation"
    assert results["versions"].keys() >= {"python", "jax", "flax"}
    metrics = [json.loads(line) for line in (digits_run / "metrics.jsonl").read_text().splitlines()]
    assert [m["epoch"] for m in metrics] == [1, 2, 3]
    assert [m["step"] for m in metrics] == [math.ceil(e * 1150 / 64) for e in (1, 2, 3)]
    best = max(metrics, key=lambda m: (m["val_accuracy"], -m["val_loss"]))
    assert (results["best_epoch"], results["val_accuracy"]) == (best["epoch"], best["val_accuracy"])
    assert results["last_val_loss"] == metrics[-1]["val_loss"]
    assert [p.name for p in (digits_run / "checkpoints").iterdir()] == [str(metrics[-1]["step"])]


def test_a_run_leaves_pictures_and_scalars(digits_run):
    image = np.asarray(Image.open(digits_run / "curves.png").convert("RGB"))
    assert image.shape[1] > 1000
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50
    events = EventAccumulator(str(digits_run / "tensorboard"))
    events.Reload()
    metrics = [json.loads(line) for line in (digits_run / "metrics.jsonl").read_text().splitlines()]
    assert [e.step for e in events.Scalars("val/accuracy")] == [m["step"] for m in metrics]
    read = [e.value for e in events.Scalars("train/loss")]
    np.testing.assert_allclose(read, [m["train_loss"] for m in metrics], rtol=1e-6)
    assert "training/learning_rate" in events.Tags()["scalars"]


def test_the_same_command_again_says_it_is_finished(digits_run, capsys):
    before = (digits_run / "results.json").stat().st_mtime_ns
    train_digits(digits_run, "--config.epochs=3")
    out = capsys.readouterr().out
    assert "Finished already on 2" in out
    assert "UTC: Pico/2 (modified) on digits, 10 classes, data fingerprint" in out
    assert "set overwrite to start over" in out
    assert "test accuracy" in out
    assert (digits_run / "results.json").stat().st_mtime_ns == before


def test_a_finished_run_is_not_passed_off_as_one_on_other_data(write_folder, tmp_path, capsys):
    images = write_folder(per_class=20)
    flags = SHRINK

    def again(folder, *others):
        return main("folder", tmp_path / "run", f"--config.dataset.data_dir={folder}", *flags, *others)

    assert again(images) == 0
    moved = images.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="there is no folder .*images: give the folder"):
        again(images)
    capsys.readouterr()
    assert again(moved) == 0  # the same images
    out = capsys.readouterr().out
    assert f"UTC: Nano/2 (modified) on folder in {images}, 2 classes, data fingerprint" in out
    other = shutil.copytree(moved, tmp_path / "other")
    (other / "train" / "cat" / "0.png").unlink()
    line = rf"was trained on other data \(folder: .*fingerprint differs?; data_dir: was {images}, now {other}\)"
    with pytest.raises(UserError, match=line):
        again(other)
    streamed = "--config.dataset.memory_budget_gib=0"
    assert again(moved, streamed) == 0
    with pytest.raises(UserError, match=r"\(folder: num_images differs; "):
        again(other, streamed)
    for split in ("train", "test"):
        (moved / split / "dog").rename(moved / split / "fox")
    with pytest.raises(UserError, match=r"label_names differs; data_dir: was .*images, now .*moved\)"):
        again(moved)


def test_a_run_of_fewer_epochs_than_its_warmup_has_a_shorter_one(tmp_path, capsys):
    config = get_config("digits")
    assert main("digits", tmp_path / "run", *SHRINK, "--config.epochs=1", "--config.schedule.warmup_epochs=1") == 0
    assert "0.1 epochs of warmup" in capsys.readouterr().out
    config.epochs = 1.0
    rates = create_schedule(check(config), TrainSampler(1000, 10, 0).steps_in)
    assert float(rates(10)) == float(max(map(rates, range(100)))) == pytest.approx(1e-2)


def test_early_stopping_is_told(tmp_path, capsys):
    flags = ["--config.epochs=9", "--config.early_stopping_patience=2", "--config.optimizer.learning_rate=1e-12"]
    flags.append("--config.optimizer.name=adamw")
    train_digits(tmp_path / "run", *flags)
    out = capsys.readouterr().out
    assert "Stopped early after epoch 3 of 9: no validation score better than that of epoch 1 in 2 epochs\n" in out
    said = [
        "Compiling",
        "Stopped early",
        "Writing the last checkpoint",
        "Scoring 360 test images",
        "Drawing the report",
    ]
    places = [out.index(line) for line in (*said, "test accuracy")]
    assert places == sorted(places)
    (tmp_path / "run" / "results.json").unlink()
    train_digits(tmp_path / "run", *flags)
    out = capsys.readouterr().out
    assert ("Resuming at step" in out, "Compiling" in out, "Writing the last checkpoint" in out) == (True, False, False)


def test_another_config_in_the_same_workdir_is_refused(digits_run):
    with pytest.raises(UserError, match=r"holds a run with another config \(batch_size: 64 in the run, 32 now\)"):
        train_digits(digits_run, "--config.batch_size=32", "--config.epochs=4")


@pytest.fixture
def guarded(tmp_path):
    """An environment in which importing TensorFlow or reaching for the network kills the process."""
    guards = tmp_path / "guards"
    (guards / "tensorflow").mkdir(parents=True)
    (guards / "tensorflow" / "__init__.py").write_text("raise SystemExit('tensorflow was imported')")
    (guards / "sitecustomize.py").write_text(
        "import socket\n"
        "def refuse(self, address):\n"
        "    raise SystemExit(f'the network was touched: {address}')\n"
        "class Guarded(socket.socket):\n"
        "    def connect(self, address):\n"
        "        refuse(self, address) if self.family != socket.AF_UNIX else super().connect(address)\n"
        "socket.socket = Guarded\n"
        "socket.getaddrinfo = lambda *args, **kwargs: refuse(None, args)\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{guards}{os.pathsep}{ROOT}", "XLA_FLAGS": ""}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache")}

    def command(*arguments, program=("-m", "mixer_jax.train")):
        return subprocess.run(
            [sys.executable, *program, *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    return command


def test_the_guards_bite(guarded):
    assert "tensorflow was imported" in guarded(program=("-c", "import tensorflow")).stderr
    reach = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')"
    assert "the network was touched" in guarded(program=("-c", reach)).stderr


def test_digits_need_neither_network_nor_tensorflow(guarded, tmp_path):
    process = guarded("--config", str(ROOT / "configs/digits.py"), *SHRINK, "--config.epochs=1")
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "runs" / "digits" / "results.json").exists()
    # In a pipe: plain lines, one an epoch, nothing on stderr.
    lines = process.stdout.splitlines()
    assert sum(line.startswith("      1/1  ") for line in lines) == 1
    assert max(len(line) for line in lines if "%" in line and "accuracy  " not in line) <= 80
    assert "\r" not in process.stdout
    assert process.stderr == ""


@pytest.mark.slow
def test_a_second_start_compiles_nothing(guarded, tmp_path):
    def start(workdir):
        flags = ["--config", str(ROOT / "configs/digits.py"), *SHRINK, "--config.epochs=1", f"--workdir={workdir}"]
        process = guarded(*flags)
        assert (process.returncode, process.stderr) == (0, "")
        # Whatever is compiled leaves a file.
        return {p.name for p in (tmp_path / "cache" / "mixer_jax").rglob("*-cache")}

    first = start("first")
    assert len(first) > 2
    assert start("second") == first


def test_a_tfds_set_needs_no_tensorflow(guarded, tmp_path):
    arrays = archives.made_images("mnist", num_train=50, num_test=9)
    sets = str(tmp_path / "sets")
    with archives.served("mnist", archives.pack("mnist", arrays), tmp_path / "served", arrays):
        from mixer_jax.data.prepare import prepared_builder

        prepared_builder("mnist", sets)
    flags = [f"--config.dataset.data_dir={sets}", *SHRINK, "--workdir=here"]
    process = guarded("--config", str(ROOT / "configs/mnist.py"), *flags)
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "here" / "results.json").exists()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.epoch=3", "error: unknown config field 'epoch' (did you mean 'epochs'?)\n"),
        ("--config.batch_size=big", "error: config.batch_size='big': expects int\n"),
        (
            "--config.model.patch_size=3",
            "error: image size 8x8 is not divisible by patch size 3: set config.model",
        ),
    ],
)
def test_a_mistake_gets_one_line_and_exit_code_2_and_leaves_nothing(guarded, tmp_path, flag, message):
    process = guarded("--config", str(ROOT / "configs/digits.py"), flag)
    assert process.returncode == 2
    assert process.stderr.startswith(message)
    assert process.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()
