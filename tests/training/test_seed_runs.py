"""Runs of several seeds: each ends, stops and resumes as it would alone, and leaves the run directory it would."""

import shutil
import signal
import threading
from contextlib import contextmanager

import jax
import numpy as np
import pytest

from mixer_jax import inference, training
from mixer_jax.checkpoints import Checkpoint, Checkpoints
from mixer_jax.errors import UserError
from mixer_jax.metrics import accuracy_and_loss
from mixer_jax.records import Epoch
from mixer_jax.run_directory import RunDirectory
from mixer_jax.training import Diverged, Interrupted, Trainer, epoch, stages
from mixer_jax.training.interruption import StopRequest
from mixer_jax.training.seeds import OnCores, SideBySide
from runs import DEVICES, Crash, as_on_an_accelerator, crashing, without_times
from saved import same
from support import make_config, make_dataset, streamed

STOPPING = {
    "epochs": 8.0, "early_stopping_patience": 2, "optimizer__name": "sgd", "optimizer__learning_rate": 0.5,
    "schedule__name": "step", "schedule__decay_rate": 1e-9, "schedule__decay_epochs": 3.0,
}  # fmt: skip
SEEDS = 3


def train(path, how="on cores", **fields):
    """Trains three seeds in this process."""
    fields = {"model__num_blocks": 1, "batch_size": 16, "num_seeds": SEEDS, **STOPPING} | fields
    directory, devices = RunDirectory(path), jax.devices()[: DEVICES[how]]
    with as_on_an_accelerator() if how == "side by side" else pytest.MonkeyPatch.context():
        return training.train(make_config(**fields), directory, devices=devices, dataset=make_dataset())


def train_alone(path, num_devices, **fields):
    config = make_config(model__num_blocks=1, batch_size=16, **STOPPING, **fields)
    training.train(config, RunDirectory(path), devices=jax.devices()[:num_devices], dataset=make_dataset())
    return RunDirectory(path)


def steps_kept(path):
    return sorted(int(p.name) for p in (path / "checkpoints").iterdir())


def last_checkpoint(directory):
    checkpoints = Checkpoints(directory.checkpoints)
    last = checkpoints.read(checkpoints.saved_steps()[-1])
    checkpoints.close()
    return last


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Returns a function that trains each seed alone, once, and returns the directories."""
    made = {}

    def of(num_devices):
        if num_devices not in made:
            path = tmp_path_factory.mktemp("alone")
            made[num_devices] = [train_alone(path / f"{i}", num_devices, seed=i) for i in range(SEEDS)]
        return made[num_devices]

    return of


@pytest.fixture(scope="module")
def at_once(tmp_path_factory):
    """Returns a function that trains three seeds in one of the ways, once, and returns the path."""
    made = {}

    def of(how):
        if how not in made:
            made[how] = tmp_path_factory.mktemp("seeds") / "run"
            train(made[how], how)
        return made[how]

    return of


def close_to(how, expected):
    """What equals a number, or is near to it where the seeds' numbers are summed in another order."""
    return pytest.approx(expected, rel=1e-4) if how == "side by side" and isinstance(expected, float) else expected


@pytest.mark.parametrize("how", DEVICES)
def test_each_seed_leaves_the_run_directory_it_would_alone(how, at_once, alone):
    path, singles = at_once(how), alone(DEVICES[how])
    assert len({directory.read_results().epochs for directory in singles}) > 1
    for i, directory in enumerate(singles):
        mine = RunDirectory(path / f"seed_{i}")
        assert mine.config_file.read_text() == directory.config_file.read_text()
        assert steps_kept(mine.path) == steps_kept(directory.path)
        assert {p.name for p in mine.path.iterdir()} == {p.name for p in directory.path.iterdir()}
        records, expected = mine.read_metrics(), directory.read_metrics()
        assert [record.step for record in records] == [record.step for record in expected]
        for record, other in zip(map(without_times, records), map(without_times, expected), strict=True):
            assert record == {key: close_to(how, value) for key, value in other.items()}
        results, other = without_times(mine.read_results()), without_times(directory.read_results())
        assert (results.pop("num_seeds"), other.pop("num_seeds")) == (SEEDS, 1)
        assert results == {key: close_to(how, value) for key, value in other.items()}


@pytest.mark.parametrize("how", DEVICES)
def test_a_seeds_checkpoint_is_its_own(how, at_once, alone):
    for i, directory in enumerate(alone(DEVICES[how])):
        mine, theirs = (last_checkpoint(one) for one in (RunDirectory(at_once(how) / f"seed_{i}"), directory))
        assert mine.state["seed"] == i
        assert (mine.step, mine.progress["ran_on"]) == (theirs.step, theirs.progress["ran_on"])
        arrays = (mine.state, mine.best), (theirs.state, theirs.best)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *arrays)
        if how != "side by side":
            jax.tree.map(np.testing.assert_array_equal, *arrays)


def test_each_seed_is_loaded_as_a_classifier_of_its_own(at_once):
    test, logits = make_dataset().test, []
    for i in range(SEEDS):
        directory = RunDirectory(at_once("on cores") / f"seed_{i}")
        logits.append(inference.load(directory.path).logits(test.images, 8))
        accuracy, loss = accuracy_and_loss(logits[-1], test.labels)
        results = directory.read_results()
        assert (accuracy, loss) == (results.test_accuracy, pytest.approx(results.test_loss, rel=1e-5))
    assert not np.allclose(logits[0], logits[1])
    assert not np.allclose(logits[1], logits[2])


@pytest.mark.parametrize("how", DEVICES)
def test_the_results_of_all_are_mean_and_standard_deviation(how, at_once, alone):
    path = at_once(how)
    results = RunDirectory(path).read_results()
    accuracies = [directory.read_results().test_accuracy for directory in alone(DEVICES[how])]
    assert results.seeds == [0, 1, 2]
    assert "seed" not in results.to_json()
    assert results.test_accuracy == pytest.approx(np.mean(accuracies))
    assert results.std["test_accuracy"] == pytest.approx(np.std(accuracies, ddof=1))
    assert sorted(p.name for p in path.iterdir()) == [
        ".lock", "config.json", "curves.png", "results.json", "seed_0", "seed_1", "seed_2",
    ]  # fmt: skip


def assert_same_end(path, whole):
    """Three seeds ended as those that nothing befell, to the bit."""
    for one, other in zip(directories(path), directories(whole), strict=True):
        assert [*map(without_times, one.read_metrics())] == [*map(without_times, other.read_metrics())]
        assert without_times(one.read_results()) == without_times(other.read_results())
        mine, theirs = last_checkpoint(one), last_checkpoint(other)
        assert mine.step == theirs.step
        jax.tree.map(np.testing.assert_array_equal, (mine.state, mine.best), (theirs.state, theirs.best))
    assert without_times(RunDirectory(path).read_results()) == without_times(RunDirectory(whole).read_results())


def directories(path):
    return [RunDirectory(path / f"seed_{i}") for i in range(SEEDS)]


@contextmanager
def dying_at(count, owner=OnCores):
    """What runs in here dies, all seeds at the same moment, when so many device programs are called for."""
    original, seen = owner.run, []

    def run(self, calls):
        seen.extend(calls)
        if len(seen) < count:
            return original(self, calls)
        for call in calls:
            call.answer.set_exception(Crash())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, "run", run)
        with pytest.raises(Crash):
            yield


def test_seeds_that_died_again_and_again_resume_to_the_same_end(at_once, tmp_path):
    # While compiling, in the first epoch, later in the middle of one and at an end, and when one has stopped early.
    moments = [(1, []), (4, []), (11, [1, 1, 1]), (19, [4, 4, 4]), (35, [11, 11, 11]), (19, [14, 13, 14])]
    for count, last in moments:
        with dying_at(count):
            train(tmp_path / "run", checkpoint_steps=1)
        saved = [
            steps for one in directories(tmp_path / "run") if (steps := Checkpoints(one.checkpoints).saved_steps())
        ]
        assert [steps[-1] for steps in saved] == last
    assert not (tmp_path / "run" / "results.json").exists()
    train(tmp_path / "run", checkpoint_steps=1)
    assert_same_end(tmp_path / "run", at_once("on cores"))


@pytest.mark.parametrize(
    ("owner", "method"),
    [(Checkpoints, "save"), (RunDirectory, "append_metrics"), (RunDirectory, "write_results")],
    ids=["save", "append_metrics", "write_results"],
)
def test_seeds_of_which_one_died_resume_to_the_same_end(owner, method, at_once, tmp_path):
    with crashing(owner, method, calls=3):
        train(tmp_path / "run")
    train(tmp_path / "run")
    assert_same_end(tmp_path / "run", at_once("on cores"))
    for one, other in zip(directories(tmp_path / "run"), directories(at_once("on cores")), strict=True):
        assert steps_kept(one.path) == steps_kept(other.path)


def test_seeds_side_by_side_that_died_resume_to_the_same_end(at_once, tmp_path):
    with dying_at(30, SideBySide):
        train(tmp_path / "run", "side by side", checkpoint_steps=2)
    train(tmp_path / "run", "side by side", checkpoint_steps=2)
    assert_same_end(tmp_path / "run", at_once("side by side"))


def test_a_seed_without_a_checkpoint_starts_from_the_weights_that_it_was_given(at_once, alone, tmp_path):
    source = str(alone(1)[0].path)
    train(tmp_path / "whole", init_from=source)
    with dying_at(11):
        train(tmp_path / "run", init_from=source, checkpoint_steps=1)
    assert steps_kept(tmp_path / "run" / "seed_1")
    shutil.rmtree(tmp_path / "run" / "seed_1" / "checkpoints")  # as if it had not come to write one
    train(tmp_path / "run", init_from=source, checkpoint_steps=1)
    assert_same_end(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("when", ["between dispatches", "in the turn of a seed", "one has stopped early"])
def test_a_stop_signal_saves_all_seeds(when, at_once, tmp_path, monkeypatch):
    done, steps, run_together, ask, heard = {}, Trainer.train, OnCores.run, StopRequest._ask, threading.Event()

    def count(self, state, step, num_steps, *message):
        result = steps(self, state, step, num_steps, *message)
        done[self.config.seed] = step + num_steps
        if when == "in the turn of a seed" and (self.config.seed, step + num_steps) == (1, 6):
            # The main thread, which handles signals, does not hear one that comes just before it begins to wait.
            for _ in range(600):
                signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
                if heard.wait(0.1):
                    break
            assert heard.is_set()
        return result

    def run(self, calls):
        run_together(self, calls)
        if {"between dispatches": done.get(2) == 5, "one has stopped early": len(calls) < SEEDS}.get(when):
            signal.raise_signal(signal.SIGTERM)

    def hear(*arguments):
        ask(*arguments)
        heard.set()

    monkeypatch.setattr(epoch, "FEWEST_STEPS", 1)  # in a dispatch, and no more
    monkeypatch.setattr(epoch.DispatchLength, "learn", lambda *arguments: None)
    monkeypatch.setattr(Trainer, "train", count)
    monkeypatch.setattr(OnCores, "run", run)
    monkeypatch.setattr(StopRequest, "_ask", hear)
    with pytest.raises(Interrupted, match=r"stopped at step \d+ of \d+; the last good checkpoint") as caught:
        train(tmp_path / "run")
    assert caught.value.signal == signal.SIGTERM
    saved = [steps_kept(directory.path)[-1] for directory in directories(tmp_path / "run")]
    assert saved == [done[i] for i in range(SEEDS)]
    # The first had begun another dispatch when the signal came in the turn of the second.
    expected = {"in the turn of a seed": [7, 6, 6], "one has stopped early": [14, 13, 14]}
    assert saved == expected.get(when, [6, 6, 6])
    monkeypatch.undo()
    train(tmp_path / "run")
    assert_same_end(tmp_path / "run", at_once("on cores"))


def test_a_seed_that_diverges_is_named(tmp_path):
    fields = {"optimizer__learning_rate": 1e30, "epochs": 4.0, "early_stopping_patience": 0}
    with pytest.raises(Diverged, match=r"seed 0: the loss became nan at step \d+ \(epoch 1\)"):
        train(tmp_path / "run", **fields)


def test_a_request_to_stop_comes_before_a_seed_that_diverged():
    stopped, diverged, failed = Interrupted("stopped", signal.SIGTERM), Diverged("nan"), OSError("disk")
    for outcomes, expected in (
        ([diverged, None, stopped], Interrupted),
        ([stopped, diverged, failed], OSError),
        ([None, diverged, None], Diverged),
    ):
        with pytest.raises(expected):
            stages._raise_errors(outcomes, range(3))


def test_a_seed_that_diverges_does_not_end_the_others(at_once, tmp_path, monkeypatch):
    original = Trainer.train

    def diverging(self, state, step, num_steps, *message):
        state, metrics = original(self, state, step, num_steps, *message)
        loss = np.full_like(metrics["loss"], np.nan) if self.config.seed == 1 and step >= 7 else metrics["loss"]
        return state, metrics | {"loss": loss}

    monkeypatch.setattr(Trainer, "train", diverging)
    line = r"seed 1: the loss became nan at step 8 \(epoch 3\); the last good checkpoint is of step 7, in .*seed_1"
    with pytest.raises(Diverged, match=line):
        train(tmp_path / "run", checkpoint_steps=7)
    assert not (tmp_path / "run" / "results.json").exists()
    for i in (0, 2):
        mine, whole = directories(tmp_path / "run")[i], directories(at_once("on cores"))[i]
        assert [*map(without_times, mine.read_metrics())] == [*map(without_times, whole.read_metrics())]
        assert last_checkpoint(mine).step == last_checkpoint(whole).step
    monkeypatch.undo()
    train(tmp_path / "run", checkpoint_steps=7)
    assert_same_end(tmp_path / "run", at_once("on cores"))


@pytest.fixture(scope="module")
def every_checkpoint(tmp_path_factory):
    """Of each seed what it would have saved after each step, by the step."""
    found = {i: {} for i in range(SEEDS)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", lambda self, saved: found[int(saved.state.seed)].update({saved.step: saved}))
        train(tmp_path_factory.mktemp("every") / "run", checkpoint_steps=1)
    return found


def stacked(every_checkpoint, step):
    """The checkpoint of all seeds together after a step, as older releases wrote it."""
    each = [saved[min(step, max(saved))] for saved in every_checkpoint.values()]
    state, best = jax.tree.map(lambda *x: np.stack(x), *((c.state, c.best) for c in each))
    sums = [c.progress["sums"] if c.step == step else {"loss": 7.0, "correct": 7} for c in each]
    [(steps, seconds)] = {(c.progress["sums"]["steps"], 1.0) for c in each if c.step == step}
    progress = {
        "step": step,
        "histories": [c.progress["history"] for c in each],
        "sums": {
            "losses": [one["loss"] for one in sums],
            "correct": [one["correct"] for one in sums],
            "steps": steps,
            "seconds": seconds,
        },
        "ran_on": each[0].progress["ran_on"],
    }
    return Checkpoint(step, state, best, progress)


def older_run(path, every_checkpoint, *steps):
    """Leaves the directory of a run that an older release was killed in, after the last of some checkpoints."""
    with dying_at(1):
        train(path)
    checkpoints = Checkpoints(path / "checkpoints")
    for step in steps:
        checkpoints.save(stacked(every_checkpoint, step))
        checkpoints.wait()
    checkpoints.close()
    for i, directory in enumerate(directories(path)):
        lines = every_checkpoint[i][min(steps[-1], max(every_checkpoint[i]))].progress["history"]
        assert not directory.checkpoints.exists()
        directory.write_metrics([Epoch.from_json(line) for line in lines])


@pytest.mark.parametrize("step", [2, 7, 9, 14], ids=["no epoch is over", "epochs are", "in the middle", "one is over"])
def test_a_checkpoint_of_all_seeds_is_split_and_resumed_to_the_bit(step, every_checkpoint, at_once, tmp_path, capsys):
    lasts = [max(saved) for saved in every_checkpoint.values()]
    assert (min(lasts) < step < max(lasts)) == (step == 14)
    older_run(tmp_path / "run", every_checkpoint, step)
    with dying_at(1):
        train(tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
    for directory, saved in zip(directories(tmp_path / "run"), every_checkpoint.values(), strict=True):
        expected, checkpoints = saved[min(step, max(saved))], Checkpoints(directory.checkpoints)
        assert checkpoints.saved_steps() == [expected.step]
        assert same(checkpoints.read(expected.step, expected), expected)
        checkpoints.close()
    train(tmp_path / "run")
    assert_same_end(tmp_path / "run", at_once("on cores"))
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("when", ["between two seeds", "while all seeds' is deleted"])
def test_a_crash_while_checkpoints_are_split_loses_nothing(when, every_checkpoint, at_once, tmp_path, monkeypatch):
    older_run(tmp_path / "run", every_checkpoint, 6, 10)
    if when == "between two seeds":
        with crashing(Checkpoints, "save", calls=2):
            train(tmp_path / "run")
        assert steps_kept(tmp_path / "run") == [6, 10]
    else:

        def delete_in_part(self):
            shutil.rmtree(self.checkpoints / "10")
            (self.checkpoints / "6" / "manifest.json").unlink()
            raise Crash

        with monkeypatch.context() as patch:
            patch.setattr(RunDirectory, "drop_checkpoints", delete_in_part)
            with pytest.raises(Crash):
                train(tmp_path / "run")
    train(tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert_same_end(tmp_path / "run", at_once("on cores"))


def test_of_a_damaged_checkpoint_of_all_seeds_the_one_before_is_split(every_checkpoint, at_once, tmp_path, capsys):
    older_run(tmp_path / "run", every_checkpoint, 6, 10)
    (tmp_path / "run" / "checkpoints" / "10" / "progress.json").write_text("{}")
    train(tmp_path / "run")
    err = capsys.readouterr().err
    assert "checkpoints/10 is damaged" in err
    assert "resuming from step 6" in err
    assert_same_end(tmp_path / "run", at_once("on cores"))


def test_where_all_checkpoints_of_all_seeds_are_damaged_nothing_is_touched(every_checkpoint, tmp_path):
    older_run(tmp_path / "run", every_checkpoint, 6, 10)
    for step in (6, 10):
        (tmp_path / "run" / "checkpoints" / str(step) / "progress.json").write_text("{}")
    with pytest.raises(UserError, match="no checkpoint is intact; none was deleted; set overwrite") as caught:
        train(tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert steps_kept(tmp_path / "run") == [6, 10]
    assert not any(directory.checkpoints.exists() for directory in directories(tmp_path / "run"))


def test_mistakes(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="config.num_seeds=0: must be in 1..1000"):
        make_config(num_seeds=0)
    with pytest.raises(UserError, match="leaves no room below 2147483648 for 2 seeds"):
        make_config(seed=2**31 - 1, num_seeds=2)
    directory = RunDirectory(tmp_path / "run")
    with pytest.raises(UserError, match="config.num_seeds=2: a streamed dataset feeds one run at a time"):
        training.train(make_config(num_seeds=2), directory, dataset=streamed(make_dataset()))
    assert not directory.path.exists()
