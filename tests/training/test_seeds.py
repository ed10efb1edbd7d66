"""Several seeds at the same time: each ends as it would alone, stops when it would, and leaves the same directory."""

import threading
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mixer_jax.training import Trainer, seeds
from mixer_jax.training.epoch import FEWEST_STEPS, Sums, train_steps
from mixer_jax.training.seeds import SeedGroup
from mixer_jax.training.step import Programs
from runs import DEVICES, as_on_an_accelerator
from support import make_config, make_dataset

RANDOM = {"augment__mixing__mixup_alpha": 1.0, "model__dropout_rate": 0.2, "ema_decay": 0.9}


def seed_group(num_seeds, how="on cores", seed=0, **fields):
    config = make_config(batch_size=16, seed=seed, num_seeds=num_seeds, **fields)
    trainer = Trainer(config, make_dataset(), jax.devices()[: DEVICES[how]])
    if how != "side by side":
        return SeedGroup(trainer, range(seed, seed + num_seeds))
    with as_on_an_accelerator():
        return SeedGroup(trainer, range(seed, seed + num_seeds))


def trained(trainer, num_steps=6):
    """The loss of each step, the state after the last, and its scores and logits on the test set."""
    state, metrics = trainer.train(trainer.init(), 0, num_steps)
    scores = trainer.evaluate(state.evaluated, trainer.dataset.test)
    logits, _ = trainer.predict(state.evaluated, trainer.dataset.test)
    return np.asarray(metrics["loss"])[:num_steps], jax.device_get(state), scores, logits


@pytest.mark.parametrize(
    ("how", "fields"),
    [
        ("on cores", RANDOM),
        ("in turn", RANDOM),
        ("side by side", {"augment__automatic": "randaugment", "augment__flip": "alternating"}),
    ],
)
def test_each_seed_trains_as_it_would_alone(how, fields):
    group = seed_group(2, how, seed=3, **fields)
    outcomes = group.run([lambda each=each: trained(each) for each in group.trainers])
    assert not np.allclose(outcomes[0][0], outcomes[1][0])
    for i, (losses, state, scores, logits) in enumerate(outcomes):
        config = make_config(batch_size=16, seed=3 + i, **fields)
        alone = trained(Trainer(config, make_dataset(), jax.devices()[: DEVICES[how]]))
        assert (state.seed, state.step, scores.examples) == (3 + i, 6, 30)
        if how != "side by side":  # to the bit: it is the same program
            jax.tree.map(np.testing.assert_array_equal, (losses, state, scores, logits), alone)
            continue
        np.testing.assert_allclose(losses, alone[0], rtol=2e-4)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), state, alone[1])
        assert scores.loss == pytest.approx(alone[2].loss, rel=1e-3)
        np.testing.assert_allclose(logits, alone[3], atol=2e-2)


def made_up_group(num_seeds, program, num_devices=1):
    """A group whose programs are a function of (state, resident, chunk, num_steps), which is not compiled."""
    trainer = SimpleNamespace(
        platform="cpu",
        programs=Programs(program, program, program),
        parallel=SimpleNamespace(devices=jax.devices()[:num_devices]),
        max_steps=256,
    )
    trainer.of_seed = lambda seed: SimpleNamespace(seed=seed)
    return SeedGroup(trainer, range(num_seeds))


@pytest.mark.parametrize(
    ("cores", "num_devices", "num_steps", "at_once"),
    [(1, 1, 3, 1), (2, 1, 3, 2), (3, 1, 3, 3), (2, 2, 3, 1), (2, 1, 0, 1)],
    ids=["a core", "two cores", "three cores", "two devices", "no steps, to compile"],
)
def test_as_many_programs_run_at_once_as_there_are_cores(cores, num_devices, num_steps, at_once, monkeypatch):
    monkeypatch.setattr(seeds, "cores", lambda: cores)
    together, lock, running, most = threading.Barrier(at_once, timeout=10), threading.Lock(), [0], [0]

    def program(state, resident, chunk, num_steps):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        together.wait()
        with lock:
            running[0] -= 1
        return {"state": state, "resident": resident, "chunk": chunk, "num_steps": num_steps}

    group = made_up_group(6, program, num_devices)

    def function(i):
        return group.trainers[i].programs.train(f"state {i}", "data", f"chunk {i}", np.int32(num_steps + i // 9))

    results = group.run([lambda i=i: function(i) for i in range(6)])
    assert most == [at_once]
    assert results == [
        {"state": f"state {i}", "resident": "data", "chunk": f"chunk {i}", "num_steps": num_steps} for i in range(6)
    ]


def test_the_code_of_one_seed_runs_at_a_time_and_in_the_same_order():
    order, alone = [], threading.Lock()
    group = made_up_group(3, lambda state, *_: state)

    def function(i):
        for call in range(1 + i):  # the first is over first
            assert alone.acquire(blocking=False)
            order.append((call, i))
            time.sleep(0.01)
            alone.release()
            assert group.trainers[i].programs.train((call, i), "data", "chunk", np.int32(1)) == (call, i)
        return f"seed {i}"

    assert group.run([lambda i=i: function(i) for i in range(3)]) == ["seed 0", "seed 1", "seed 2"]
    assert order == [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]


def test_an_exception_in_a_device_program_reaches_the_seed_that_called_it():
    def program(state, *_):
        if "fails" in state:
            raise ValueError(f"{state} in the program")
        return state

    group = made_up_group(4, program)

    def function(i):
        call = group.trainers[i].programs.train
        caught = ""
        try:
            call(f"{i} fails" if i % 2 else f"{i} works", "data", "chunk", np.int32(1))
        except ValueError as error:
            caught = str(error)
            if i == 3:
                raise
        return caught, call(f"{i} again", "data", "chunk", np.int32(1))

    *finished, failed = group.run([lambda i=i: function(i) for i in range(4)])
    assert finished == [("", "0 again"), ("1 fails in the program", "1 again"), ("", "2 again")]
    assert isinstance(failed, ValueError)
    assert str(failed) == "3 fails in the program"


def test_an_exception_in_the_program_of_all_reaches_each_seed_that_called_it():
    group = seed_group(3, "side by side")

    def function(i):
        each = group.trainers[i]
        state = each.init()
        if i == 2:
            return "not called"
        return each.train(state.replace(params=()), 0, 1)  # of which no program can be made

    *failed, other = group.run([lambda i=i: function(i) for i in range(3)])
    assert other == "not called"
    assert all(isinstance(error, Exception) for error in failed)
    group.run([lambda each=each: trained(each) for each in group.trainers])  # nobody is left waiting


def test_dispatches_grow_though_the_first_seed_is_over():
    group, asked = made_up_group(2, lambda state, resident, chunk, num_steps: {"num_steps": num_steps}), []

    def train(state, step, num_steps):
        asked.append(num_steps)
        result = group.trainers[1].programs.train(state, "data", "chunk", np.int32(num_steps))
        ones = np.ones(result["num_steps"])
        return state, {"loss": ones, "correct": ones.astype(int), "gradient_norm": ones}

    trainer = SimpleNamespace(train=train, ahead=0, config=make_config(batch_size=16))
    group.run([lambda: None, lambda: train_steps(trainer, None, 0, 4096, group.length, Sums())])
    assert asked[0] <= FEWEST_STEPS
    assert max(asked) > FEWEST_STEPS


# A rate of next to nothing after the first epochs: seeds stop early, and not all in the same epoch.
