"""How the loop cuts an epoch into dispatches."""

from types import SimpleNamespace

import numpy as np
import pytest

from mixer_jax.training import Trainer, epoch
from mixer_jax.training.epoch import FEWEST_STEPS, SECONDS_PER_DISPATCH, Pace, Sums, train_steps
from support import make_config, make_dataset


def test_the_pace_comes_near_to_a_dispatchs_seconds_and_keeps_its_bounds():
    seconds_per_step, pace, lengths = SECONDS_PER_DISPATCH / 100, Pace(256), []
    for _ in range(6):
        lengths.append(pace.steps)
        pace.learn(pace.steps, pace.steps * seconds_per_step)
    assert lengths == [FEWEST_STEPS, 4 * FEWEST_STEPS, 16 * FEWEST_STEPS, 100, 100, 100]
    pace.learn(100, 1000.0)
    assert pace.steps == FEWEST_STEPS
    for _ in range(9):
        pace.learn(pace.steps, 1e-9)
    assert pace.steps == 256
    streamed = Pace(1)
    streamed.learn(1, 1e-9)
    assert streamed.steps == 1


@pytest.mark.parametrize(("steps", "pace", "expected"), [(41, 20, [14, 14, 13]), (40, 20, [20, 20]), (3, 20, [3])])
def test_dispatches_of_an_epoch_are_even(steps, pace, expected, monkeypatch):
    trainer = Trainer(make_config(batch_size=16), make_dataset())
    original, asked = trainer.train, []

    def train(state, step, num_steps, going):
        asked.append(num_steps)
        return original(state, step, num_steps, going)

    monkeypatch.setattr(trainer, "train", train)
    steady = Pace(256)
    steady.steps = pace
    monkeypatch.setattr(steady, "learn", lambda *args: None)
    sums, going = Sums.zero(1), np.ones(1, bool)
    state, step = train_steps(trainer, trainer.init(), 0, steps, steady, sums, going)
    assert asked == expected
    assert int(state.step) == step == sums.steps == steps
    assert 0 < sums.records(16)[0]["train_loss"] < 3


def test_a_dispatch_that_train_waits_for_counts_with_its_own_seconds(monkeypatch):
    clock, rates = [0.0], []

    def train(state, step, num_steps, going):
        clock[0] += 0.5 * num_steps
        return state, {"loss": np.ones((2, 8)), "correct": np.ones((2, 8), int)}

    trainer = SimpleNamespace(
        train=train, ahead=0, seeds=(0, 1), config=make_config(batch_size=16, num_seeds=2), max_steps=8
    )
    observer = SimpleNamespace(progress=lambda step, loss, accuracy, rate: rates.append(rate))
    monkeypatch.setattr(epoch, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    pace, sums = Pace(8), Sums.zero(2)
    train_steps(trainer, None, 0, 24, pace, sums, np.ones(2, bool), [observer])
    assert rates == [2 * 16 / 0.5] * 6
    assert (sums.steps, sums.seconds) == (24, 12.0)
