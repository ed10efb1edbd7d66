"""Runs of the main job, small: a shipped config by its command line, and a made-up one in this process."""

from contextlib import contextmanager

import jax
import pytest

from mixer_jax import data, training
from mixer_jax import train as command
from mixer_jax.run_directory import RunDirectory
from mixer_jax.training.seeds import SeedGroup, SideBySide
from support import ROOT, make_config

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
TIMES = ("images_per_second", "seconds", "train_seconds", "compile_seconds", "finished")


@contextmanager
def compiled_as_shipped():
    """Compile with optimisations, as a user's programs are; tests/conftest.py turns them off elsewhere."""
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", True)


def main(config, workdir, *flags):
    """Train a shipped config by the command."""
    with compiled_as_shipped():
        file = str(ROOT / "configs" / f"{config}.py")
        return command.main(["train", "--config", file, "--workdir", str(workdir), *flags])


def train_digits(path, *flags):
    """The shipped digits config, small and without its augmentation; returns its run directory."""
    still = ["--config.augment.crop=none", "--config.augment.mixing.cutmix_alpha=0", "--config.ema_decay=0"]
    assert main("digits", path, *SHRINK, *still, "--config.batch_size=64", *flags) == 0
    return path


def run(path, dataset, monkeypatch, **fields):
    """Trains in this process on made-up data; returns the results and metrics, times aside."""
    monkeypatch.setattr(data, "load", lambda config: dataset)
    directory = RunDirectory(path)
    training.train(make_config(model__num_blocks=1, batch_size=16, **fields), directory)
    return without_times(directory.read_results()), [without_times(r) for r in directory.read_metrics()]


def without_times(record):
    """Return an epoch or results, as a record or as JSON, as JSON without times."""
    content = record if isinstance(record, dict) else record.to_json()
    return {key: value for key, value in content.items() if key not in TIMES}


class Crash(Exception):
    """The end of a process."""


@contextmanager
def crashing(owner, method, calls):
    """What runs in here crashes right after so many calls of a method, and has to."""
    original, seen = getattr(owner, method), []

    def crash(self, *args, **kwargs):
        original(self, *args, **kwargs)
        seen.append(args)
        if len(seen) == calls:
            raise Crash

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, method, crash)
        with pytest.raises(Crash):
            yield


# How several seeds can train, and on how many devices.
DEVICES = {"on cores": 1, "in turn": 2, "side by side": 1}


@contextmanager
def as_on_an_accelerator():
    """The seeds of groups that are made in here run side by side, and start dispatches ahead."""
    original = SeedGroup.__init__

    def init(self, trainer, seeds):
        original(self, trainer, seeds)
        self._run_together = SideBySide(trainer, len(seeds)).run
        for each in self.trainers:
            each.ahead = trainer.ahead

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SeedGroup, "__init__", init)
        yield
