"""How the loop cuts an epoch into dispatches."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mixer_jax.checkpoints import Checkpoints
from mixer_jax.messages import LOGGER
from mixer_jax.training import Trainer, epoch, loop
from mixer_jax.training.epoch import FEWEST_STEPS, SECONDS_PER_DISPATCH, DispatchLength, Sums, train_steps
from mixer_jax.training.trainer import Scores
from runs import run
from support import make_config, make_dataset


def test_the_length_comes_near_to_a_dispatchs_seconds_and_keeps_its_bounds():
    seconds_per_step, length, lengths = SECONDS_PER_DISPATCH / 100, DispatchLength(256), []
    for _ in range(6):
        lengths.append(length.steps)
        length.learn(length.steps, length.steps * seconds_per_step)
    assert lengths == [FEWEST_STEPS, 4 * FEWEST_STEPS, 16 * FEWEST_STEPS, 100, 100, 100]
    length.learn(100, 1000.0)
    assert length.steps == FEWEST_STEPS
    for _ in range(9):
        length.learn(length.steps, 1e-9)
    assert length.steps == 256
    streamed = DispatchLength(1)
    streamed.learn(1, 1e-9)
    assert streamed.steps == 1


@pytest.mark.parametrize(("steps", "length", "expected"), [(41, 20, [14, 14, 13]), (40, 20, [20, 20]), (3, 20, [3])])
def test_dispatches_of_an_epoch_are_even(steps, length, expected, monkeypatch):
    trainer = Trainer(make_config(batch_size=16), make_dataset())
    original, asked, losses, correct = trainer.train, [], [], []

    def train(state, step, num_steps):
        asked.append(num_steps)
        state, metrics = original(state, step, num_steps)
        losses.extend(np.asarray(metrics["loss"])[:num_steps].tolist())
        correct.extend(np.asarray(metrics["correct"])[:num_steps].tolist())
        return state, metrics

    monkeypatch.setattr(trainer, "train", train)
    steady = DispatchLength(256)
    steady.steps = length
    monkeypatch.setattr(steady, "learn", lambda *args: None)
    sums = Sums()
    state, step = train_steps(trainer, trainer.init(), 0, steps, steady, sums)
    assert asked == expected
    assert int(state.step) == step == sums.steps == steps
    record = sums.epoch(1, steps, 16, 0.1, Scores(2.0, 50.0, 10, 20))
    assert record.train_loss == pytest.approx(np.mean(losses), rel=1e-12)
    assert record.train_accuracy == pytest.approx(100 * np.sum(correct) / (16 * steps))
    assert (record.epoch, record.step, record.val_loss, record.val_accuracy) == (1, steps, 2.0, 50.0)


@pytest.mark.parametrize(("on_network", "configured", "minutes"), [(False, None, 5), (True, None, 20), (True, 7.0, 7)])
def test_minutes_between_checkpoints(on_network, configured, minutes, tmp_path, monkeypatch):
    clock, saved = [0.0], []

    class Slow(loop._Loop):
        def _pause(self):
            clock[0] += 30
            return super()._pause()

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(loop, "on_network", lambda path: on_network)
    monkeypatch.setattr(loop, "_Loop", Slow)
    save = Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", lambda *args: saved.append(clock[0]) or save(*args))
    run(tmp_path / "run", make_dataset(), monkeypatch, epochs=30.0, checkpoint_minutes=configured)
    assert len(saved) >= 2
    assert np.diff([0.0, *saved[:-1]]) / 60 == pytest.approx(minutes, abs=1)  # the last is that of the end


def test_a_checkpoint_that_processes_agree_on_does_not_stop_them(tmp_path, monkeypatch):
    """One is due before every dispatch, and each is saved once."""
    pauses, saved = [], []

    class OfTwo(loop.Agreement):
        def __init__(self):
            super().__init__()
            self.message = np.zeros(3, np.int32)

        def settle(self, *args):
            pauses.append(args)
            assert len(pauses) < 200
            return super().settle(*args)

    def train(self, state, step, num_steps, message=None):
        state, metrics = original(self, state, step, num_steps)
        return state, metrics if message is None else metrics | {"message": message}

    original = Trainer.train
    monkeypatch.setattr(Trainer, "train", train)
    monkeypatch.setattr(loop, "Agreement", OfTwo)
    save = Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", lambda *args: saved.append(args[1].step) or save(*args))
    _, metrics = run(tmp_path / "run", make_dataset(), monkeypatch, epochs=4.0, checkpoint_minutes=1e-9)
    assert len(metrics) == 4
    assert len(saved) == len(set(saved)) >= 4


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_dispatch_is_started_ahead_only_where_the_trainer_allows_it(ahead):
    events = []

    class Loss:
        def __init__(self, step):
            self.step = step

        def __array__(self, *args, **kwargs):
            events.append(f"fetched {self.step}")
            return np.ones(4)

    def train(state, step, num_steps):
        events.append(f"started {step}")
        return state, {"loss": Loss(step), "correct": np.ones(4, int), "gradient_norm": np.ones(4)}

    trainer = SimpleNamespace(train=train, ahead=ahead, config=make_config(batch_size=16))
    train_steps(trainer, None, 0, 12, DispatchLength(4), Sums())
    alternating = ["started 0", "fetched 0", "started 4", "fetched 4", "started 8", "fetched 8"]
    one_ahead = ["started 0", "started 4", "fetched 0", "started 8", "fetched 4", "fetched 8"]
    assert events == (one_ahead if ahead else alternating)


def test_a_dispatch_that_train_waits_for_counts_with_its_own_seconds(monkeypatch):
    clock, rates = [0.0], []

    def train(state, step, num_steps):
        clock[0] += 0.5 * num_steps
        return state, {"loss": np.ones(8), "correct": np.ones(8, int), "gradient_norm": np.ones(8)}

    trainer = SimpleNamespace(train=train, ahead=0, config=make_config(batch_size=16), max_steps=8)
    observer = SimpleNamespace(progress=lambda dispatch: rates.append(dispatch.images_per_second))
    monkeypatch.setattr(epoch, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    length, sums = DispatchLength(8), Sums()
    train_steps(trainer, None, 0, 24, length, sums, [observer])
    assert rates == [16 / 0.5] * 6
    assert (sums.steps, sums.seconds) == (24, 12.0)


def test_a_training_compiles_five_programs(tmp_path, monkeypatch, caplog):
    """On a TPU, each program takes a tenth of a second or more to compile, however small it is."""
    monkeypatch.setattr(LOGGER, "propagate", True)  # to caplog
    with jax.log_compiles():
        run(tmp_path / "run", make_dataset(), monkeypatch, epochs=2.0, schedule__name="cosine")
    lines = "\n".join(record.getMessage() for record in caplog.records)
    _, _, training = lines.partition("run directory")
    training, _, _ = training.partition("Scoring")
    # The learning rates of the steps to log, the initial state, training, evaluation, the learning rate of an epoch.
    assert training.count("Finished XLA compilation of") == 5
