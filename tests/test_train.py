"""The main job, end to end: the shipped configs shrunk, what a run leaves behind, resuming, and how runs end."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import archives
from mixer_jax import data, train
from mixer_jax.errors import UserError
from mixer_jax.run_directory import RunDirectory
from mixer_jax.training import Diverged
from support import ROOT, make_config, make_dataset

SHRINK = [
    "--config.model.num_blocks=1",
    "--config.model.hidden_dim=8",
    "--config.model.tokens_mlp_dim=8",
    "--config.model.channels_mlp_dim=8",
    "--config.batch_size=8",
    "--config.epochs=2",
    "--config.schedule.warmup_epochs=0.5",
    "--config.dataset.val_fraction=0.2",
]
# The contract with whatever reads results.json.
RESULT_FIELDS = {
    "dataset", "model", "num_params", "seed", "epochs", "steps", "best_epoch", "val_accuracy", "val_loss",
    "test_accuracy", "test_loss", "train_seconds", "compile_seconds", "images_per_second", "devices", "platform",
    "versions", "data_fingerprint",
}  # fmt: skip
TIMES = ("images_per_second", "seconds", "train_seconds", "compile_seconds")


def main(config, workdir, *flags):
    return train.main(["train", "--config", str(ROOT / "configs" / f"{config}.py"), "--workdir", str(workdir), *flags])


def run(path, dataset, monkeypatch, **fields):
    """Trains in this process on made-up data; returns the results and metrics, times aside."""
    monkeypatch.setattr(data, "load", lambda config: dataset)
    directory = RunDirectory(path)
    train.train(make_config(model__num_blocks=1, batch_size=16, **fields), directory)
    return without_times(directory.read_results()), [without_times(r) for r in directory.read_metrics()]


def without_times(record):
    return {key: value for key, value in record.items() if key not in TIMES}


@pytest.mark.parametrize("name", archives.NAMES)
def test_shipped_config_of_a_tfds_set(name, tmp_path, capsys):
    arrays = archives.made_images(name, num_train=50, num_test=9)
    with archives.served(name, archives.pack(name, arrays), tmp_path / "served", arrays):
        config = "mnist" if name == "kmnist" else name
        flags = [f"--config.dataset.name={name}", f"--config.dataset.data_dir={tmp_path / 'sets'}", *SHRINK]
        assert main(config, tmp_path / "run", *flags) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["dataset"], results["test_examples"], results["steps"]) == (name, 9, 10)
    assert f"{name}: 40 train, 10 validation and 9 test images" in capsys.readouterr().out


def test_shipped_config_of_a_folder(write_folder, tmp_path):
    flags = [f"--config.dataset.data_dir={write_folder()}", "--config.model.patch_size=16", *SHRINK]
    assert main("folder", tmp_path / "run", *flags) == 0
    described = json.loads((tmp_path / "run" / "config.json").read_text())["dataset"]
    assert (described["label_names"], described["image_shape"]) == (["cat", "dog"], [64, 64, 3])


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    path = tmp_path_factory.mktemp("digits") / "run"
    assert main("digits", path, *SHRINK, "--config.batch_size=64", "--config.epochs=3") == 0
    return path


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
    steps = sorted(int(p.name) for p in (digits_run / "checkpoints").iterdir())
    assert steps == sorted({best["step"], metrics[-1]["step"]})


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
    assert main("digits", digits_run, *SHRINK, "--config.batch_size=64", "--config.epochs=3") == 0
    out = capsys.readouterr().out
    assert "Finished already; --overwrite starts over" in out
    assert "test accuracy" in out
    assert (digits_run / "results.json").stat().st_mtime_ns == before


def test_another_config_in_the_same_workdir_is_refused(digits_run):
    with pytest.raises(UserError, match=r"holds a run with another config \(batch_size: 64 there, 32 here; epochs: 3"):
        main("digits", digits_run, *SHRINK, "--config.batch_size=32", "--config.epochs=4")


def test_overwrite_moves_the_earlier_run_aside(tmp_path, monkeypatch, capsys):
    dataset = make_dataset()
    run(tmp_path / "run", dataset, monkeypatch)
    (tmp_path / "run" / "notes.txt").write_text("mine")
    config = make_config(model__num_blocks=1, batch_size=16, epochs=1.0)
    train.train(config, RunDirectory(tmp_path / "run"), overwrite=True)
    assert (tmp_path / "run.old1" / "notes.txt").read_text() == "mine"
    assert len(RunDirectory(tmp_path / "run.old1").read_metrics()) == 2
    assert len(RunDirectory(tmp_path / "run").read_metrics()) == 1
    assert "Moved the earlier run to" in capsys.readouterr().out


class Crash(Exception):
    pass


@pytest.mark.parametrize("crash_after", ["append_metrics", "save"])
def test_a_run_that_died_goes_on_to_the_same_end(crash_after, tmp_path, monkeypatch):
    """Killed in the third epoch, before or after its checkpoint, a run ends as the uninterrupted one, to the bit."""
    from mixer_jax.training.checkpoints import Checkpoints

    fields = {"epochs": 5.0, "model__dropout_rate": 0.1}
    dataset = make_dataset()
    whole = run(tmp_path / "whole", dataset, monkeypatch, **fields)
    owner = RunDirectory if crash_after == "append_metrics" else Checkpoints
    original, calls = getattr(owner, crash_after), []

    def crash(self, *args):
        original(self, *args)
        calls.append(args)
        if len(calls) == 3:
            raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(owner, crash_after, crash)
        with pytest.raises(Crash):
            run(tmp_path / "run", dataset, monkeypatch, **fields)
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "st')  # a line the crash cut short
    assert run(tmp_path / "run", dataset, monkeypatch, **fields) == whole


def test_checkpoints_are_of_no_device_count(tmp_path, monkeypatch):
    import jax

    dataset = make_dataset()
    whole = run(tmp_path / "whole", dataset, monkeypatch, epochs=4.0)
    config = make_config(model__num_blocks=1, batch_size=16, epochs=4.0)
    monkeypatch.setattr(RunDirectory, "write_results", lambda self, results: None)
    with monkeypatch.context() as patch:
        patch.setattr(train, "fit", lambda trainer, run, observers: stop_after(trainer, run, 2))
        with pytest.raises(Crash):
            train.train(config, RunDirectory(tmp_path / "run"), devices=jax.devices()[:2])
    results = train.train(config, RunDirectory(tmp_path / "run"), devices=jax.devices()[:1])
    assert results["devices"] == 1
    assert results["test_loss"] == pytest.approx(whole[0]["test_loss"], rel=1e-3)


def stop_after(trainer, run, epochs):
    from mixer_jax.training import fit

    class Stop:
        def epoch(self, record, best):
            if record["epoch"] == epochs:
                raise Crash

        def ignore(self, *args):
            pass

        started = progress = closed = ignore

    return fit(trainer, run, [Stop()])


def test_early_stopping_waits_for_patience_epochs(tmp_path, monkeypatch):
    # A learning rate of next to nothing: no epoch is better than the first.
    fields = {"epochs": 9.0, "optimizer__learning_rate": 1e-12, "early_stopping_patience": 3}
    results, metrics = run(tmp_path / "run", make_dataset(), monkeypatch, **fields)
    assert (results["best_epoch"], results["epochs"], len(metrics)) == (1, 4, 4)
    assert sorted(int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir()) == [
        m["step"] for m in metrics[::3]
    ]


def test_the_best_epoch_is_scored_with_its_own_parameters(tmp_path, monkeypatch):
    # Hopelessly large steps late on: the last epoch is worse than the best.
    fields = {"epochs": 4.0, "optimizer__name": "sgd", "optimizer__learning_rate": 1.9, "seed": 2}
    fields |= {"schedule__name": "linear", "schedule__warmup_epochs": 3.5}
    dataset = make_dataset(num_train=200)
    results, metrics = run(tmp_path / "run", dataset, monkeypatch, **fields)
    assert results["best_epoch"] < results["epochs"]
    assert results["val_accuracy"] > results["last_val_accuracy"]
    from mixer_jax.training import Trainer
    from mixer_jax.training.checkpoints import Checkpoints

    trainer = Trainer(make_config(model__num_blocks=1, batch_size=16, **fields), dataset)
    trainer.compile(trainer.init())
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    best = checkpoints.restore(metrics[results["best_epoch"] - 1]["step"], trainer.state_shapes)
    scores = trainer.evaluate(trainer.place(best).params, dataset.val)
    assert scores["accuracy"] == results["val_accuracy"]
    assert trainer.evaluate(trainer.place(best).params, dataset.test)["loss"] == results["test_loss"]
    checkpoints.close()


def test_a_published_protocol_that_selects_on_test_is_named_so(tmp_path, monkeypatch):
    results, _ = run(tmp_path / "run", make_dataset(), monkeypatch, dataset__val_split="test")
    assert results["selected_on"] == "test"


def test_a_loss_that_is_no_number_stops_the_run(tmp_path, monkeypatch):
    dataset = make_dataset()
    fields = {"optimizer__name": "sgd", "optimizer__learning_rate": 1e30, "epochs": 4.0}
    with pytest.raises(Diverged, match=r"the loss became nan at step \d+ \(epoch 1\); no checkpoint had been written"):
        run(tmp_path / "early", dataset, monkeypatch, **fields)
    # The first epoch is sane; then the learning rate goes up, not down.
    fields |= {"optimizer__learning_rate": 1e-3, "schedule__name": "step", "schedule__decay_rate": 1e35}
    with pytest.raises(
        Diverged, match=r"at step \d+ \(epoch 2\); the last good checkpoint is of step 4, in .*checkpoints"
    ):
        run(tmp_path / "late", dataset, monkeypatch, **fields)
    assert not (tmp_path / "late" / "results.json").exists()
    monkeypatch.setattr(train, "train", lambda *args, **kwargs: (_ for _ in ()).throw(Diverged("the loss became nan")))
    assert main("digits", tmp_path / "x") == 1


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
    assert sum(line.startswith("epoch 1/1  train loss") for line in lines) == 1
    assert "\r" not in process.stdout
    assert process.stderr == ""


def test_a_tfds_set_needs_no_tensorflow(guarded, tmp_path):
    arrays = archives.made_images("cifar10", num_train=50, num_test=9)
    sets = str(tmp_path / "sets")
    with archives.served("cifar10", archives.pack("cifar10", arrays), tmp_path / "served", arrays):
        from mixer_jax.data.prepare import prepared_builder

        prepared_builder("cifar10", sets)
    flags = [f"--config.dataset.data_dir={sets}", *SHRINK, "--workdir=here"]
    process = guarded("--config", str(ROOT / "configs/cifar10.py"), *flags)
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "here" / "results.json").exists()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.epoch=3", "error: unknown config field 'epoch' (did you mean 'epochs'?)\n"),
        ("--config.batch_size=big", "error: config.batch_size='big': expects int\n"),
        ("--config.model.patch_size=3", "error: image size 8x8 is not divisible by patch size 3: set --config"),
    ],
)
def test_a_mistake_gets_one_line_and_exit_code_2_and_leaves_nothing(guarded, tmp_path, flag, message):
    process = guarded("--config", str(ROOT / "configs/digits.py"), flag)
    assert process.returncode == 2
    assert process.stderr.startswith(message)
    assert process.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()
