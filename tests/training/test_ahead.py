"""Programs compiled ahead of their use."""

import threading

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from mixer_jax.reporting.evidence import gather
from mixer_jax.training import Trainer, ahead
from mixer_jax.training.ahead import CompileAhead
from mixer_jax.training.results import classifier
from support import make_config, make_dataset

NAMES = ("jit__fun-", "jit_apply-", "jit_draw-")


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    """A trainer whose programs nothing else has compiled, with an empty folder for compiled programs."""
    monkeypatch.setattr(ahead, "SECONDS", 0)
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    reset_cache()
    yield Trainer(make_config(model__hidden_dim=24, augment__crop="pad"), make_dataset(num_train=70), jax.devices()[:1])
    jax.config.update("jax_compilation_cache_dir", before)
    reset_cache()


def programs(folder) -> set[str]:
    """The programs in the folder, without the small ones of single operations."""
    return {file.name for file in folder.glob("jit_*-cache") if file.name.startswith(NAMES)}


def test_what_is_compiled_ahead_is_not_compiled_again(trainer, tmp_path):
    observer = CompileAhead(trainer)
    observer._timer.join()
    observer.closed()
    assert len(found := programs(tmp_path)) == 5  # evaluation, prediction; features, tokens and the first batch
    state = trainer.init()
    trainer.evaluate(state.evaluated, trainer.dataset.val)
    logits, labels = trainer.predict(state.evaluated, trainer.dataset.test)
    params = jax.tree.map(np.asarray, state.evaluated)
    gather(classifier(trainer, params, 1), logits, labels, trainer.dataset, trainer.config)
    assert programs(tmp_path) == found


def test_a_start_from_programs_on_disk_compiles_nothing(trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(ahead, "SECONDS", 60)
    observer = CompileAhead(trainer)
    assert observer._timer.is_alive()
    observer.started([], 0, 0.1)
    observer._timer.join(30)
    assert not observer._timer.is_alive()
    assert not programs(tmp_path)


def test_a_run_that_ends_waits_for_one_program_at_most(trainer, tmp_path, monkeypatch):
    lower, begun, over = trainer.lower, threading.Event(), threading.Event()

    def wait(name):
        begun.set()
        over.wait(60)
        return lower(name)

    monkeypatch.setattr(trainer, "lower", wait)
    observer = CompileAhead(trainer)
    assert begun.wait(60)
    threading.Timer(0.5, over.set).start()  # while `closed` waits
    observer.closed()
    assert len(programs(tmp_path)) == 1


def test_without_a_folder_for_programs_nothing_is_compiled(trainer):
    jax.config.update("jax_compilation_cache_dir", None)
    observer = CompileAhead(trainer)
    assert observer._timer.ident is None  # never started
    observer.closed()


def test_a_program_that_cannot_be_compiled_stops_nothing(trainer, monkeypatch, capsys):
    def fail(name):
        raise MemoryError(name)

    monkeypatch.setattr(trainer, "lower", fail)
    observer = CompileAhead(trainer)
    observer._timer.join()
    observer.closed()
    assert capsys.readouterr() == ("", "")
