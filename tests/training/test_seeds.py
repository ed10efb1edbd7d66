"""Several seeds at once: each ends as it would alone, stops when it would, and leaves the run directory it would."""

import json
import threading

import jax
import numpy as np
import pytest
from mixer_jax.training.inference import Classifier

from mixer_jax import data, train
from mixer_jax.errors import UserError
from mixer_jax.run_directory import RunDirectory
from mixer_jax.training import Diverged, Trainer, seeds
from mixer_jax.training.parallel import DataParallel
from runs import crashing, run, without_times
from support import make_config, make_dataset, streamed

RANDOM = {"augment__mixing__mixup_alpha": 1.0, "model__dropout_rate": 0.2, "ema_decay": 0.9}


def trained(num_steps=6, devices=1, **fields):
    trainer = Trainer(make_config(batch_size=16, **fields), make_dataset(), jax.devices()[:devices])
    state, metrics = trainer.train(trainer.init(), 0, num_steps)
    scores = trainer.evaluate(state.evaluated, trainer.dataset.test)
    return np.atleast_2d(metrics["loss"])[:, :num_steps], jax.device_get(state), scores


@pytest.mark.parametrize(
    ("devices", "side_by_side", "fields"),
    [
        (1, False, RANDOM),
        (2, False, RANDOM),
        (1, True, {"augment__automatic": "randaugment", "augment__flip": "alternating"}),
    ],
    ids=["on cores", "in turn", "side by side"],
)
def test_each_seed_trains_as_it_would_alone(devices, side_by_side, fields, monkeypatch):
    if side_by_side:  # as on an accelerator
        compiled = DataParallel.compile
        monkeypatch.setattr(seeds, "on_cores", lambda program, *_: program)
        monkeypatch.setattr(
            DataParallel,
            "compile",
            lambda self, function, donate_state: compiled(
                self, seeds.side_by_side(function, own_steps=donate_state), donate_state
            ),
        )
    losses, states, scores = trained(seed=3, num_seeds=2, devices=devices, **fields)
    monkeypatch.undo()
    assert not np.allclose(losses[0], losses[1])
    for i in range(2):
        alone, state, [score] = trained(seed=3 + i, **fields)
        np.testing.assert_allclose(losses[i], alone[0], rtol=2e-4)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=2e-3), states, state)
        assert scores[i]["loss"] == pytest.approx(score["loss"], rel=1e-3)
        assert scores[i]["count"] == 30


def test_as_many_seeds_train_at_once_as_are_asked_for():
    def run(at_once):
        together, running, most = threading.Barrier(at_once, timeout=10), [0], [0]

        def program(state, resident, chunk, num_steps):
            running[0] += 1
            most[0] = max(most[0], running[0])
            together.wait()
            running[0] -= 1
            return {"seed": state["seed"], "chunk": chunk, "num_steps": num_steps}

        of_all = seeds.on_cores(program, num_seeds=4, own_steps=True, at_once=at_once)
        result = of_all({"seed": np.arange(4)}, "data", np.arange(8).reshape(1, 4, 2), np.full(4, 3))
        np.testing.assert_array_equal(result["seed"], np.arange(4))
        np.testing.assert_array_equal(result["chunk"][:, 0], np.arange(8).reshape(4, 2))
        return most[0]

    assert [run(1), run(2)] == [1, 2]


# A rate of next to nothing after the first epochs: seeds stop early, and not all in the same epoch.
STOPPING = {
    "epochs": 8.0, "early_stopping_patience": 2, "optimizer__name": "sgd", "optimizer__learning_rate": 0.5,
    "schedule__name": "step", "schedule__decay_rate": 1e-9, "schedule__decay_epochs": 3.0,
}  # fmt: skip


def steps_kept(path):
    return sorted(int(p.name) for p in (path / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def seeds_at_once(tmp_path_factory):
    """A directory of three seeds, and of each seed alone the directory, results and metrics."""
    path, dataset = tmp_path_factory.mktemp("seeds"), make_dataset()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", lambda config: dataset)
        train.train(
            make_config(model__num_blocks=1, batch_size=16, num_seeds=3, **STOPPING), RunDirectory(path / "all")
        )
        alone = [(path / f"{i}", *run(path / f"{i}", dataset, patch, seed=i, **STOPPING)) for i in range(3)]
    return path / "all", alone


def test_each_seed_leaves_the_run_directory_it_would_alone(seeds_at_once):
    path, alone = seeds_at_once
    assert len({results["epochs"] for _, results, _ in alone}) > 1
    for i, (directory, results, metrics) in enumerate(alone):
        mine = RunDirectory(path / f"seed_{i}")
        assert mine.config_file.read_text() == RunDirectory(directory).config_file.read_text()
        assert steps_kept(mine.path) == steps_kept(directory)
        assert {p.name for p in mine.path.iterdir()} == {p.name for p in directory.iterdir()}
        records = [without_times(record) for record in mine.read_metrics()]
        assert [r["step"] for r in records] == [m["step"] for m in metrics]
        for record, expected in zip(records, metrics, strict=True):
            assert record == pytest.approx(expected, rel=1e-4)
        for key, value in without_times(mine.read_results()).items():
            if key != "num_seeds":
                assert value == (pytest.approx(results[key], rel=1e-4) if isinstance(value, float) else results[key])


def test_a_seeds_checkpoint_is_its_own(seeds_at_once):
    from mixer_jax.checkpoints import Checkpoints

    path, alone = seeds_at_once
    states = []
    for directory in (path / "seed_2", alone[2][0]):
        checkpoints = Checkpoints(directory / "checkpoints")
        states.append(checkpoints.read(checkpoints.steps()[-1]).state)
        checkpoints.close()
    assert states[0]["seed"] == 2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *states)


def test_seeds_share_what_is_compiled_to_classify(seeds_at_once):
    path, _ = seeds_at_once
    images = make_dataset().test.images
    first = Classifier(RunDirectory(path / "seed_0"))
    logits = [first.logits(images, 8)]
    for i in (1, 2):
        run = RunDirectory(path / f"seed_{i}")
        with jax.no_tracing():
            logits.append(first.of_seed(run).logits(images, 8))
        np.testing.assert_array_equal(logits[-1], Classifier(run).logits(images, 8))
    assert not np.array_equal(logits[0], logits[1])
    np.testing.assert_array_equal(first.logits(images, 8), logits[0])


def test_the_results_of_all_are_mean_and_standard_deviation(seeds_at_once):
    path, alone = seeds_at_once
    results = json.loads((path / "results.json").read_text())
    accuracies = [each["test_accuracy"] for _, each, _ in alone]
    assert results["seeds"] == [0, 1, 2]
    assert "seed" not in results
    assert results["test_accuracy"] == pytest.approx(np.mean(accuracies))
    assert results["std"]["test_accuracy"] == pytest.approx(np.std(accuracies, ddof=1))
    assert sorted(p.name for p in path.iterdir()) == [
        ".lock", "config.json", "curves.png", "results.json", "seed_0", "seed_1", "seed_2",
    ]  # fmt: skip


@pytest.mark.parametrize("crash_in", ["save", "write_results"])
def test_seeds_that_died_go_on_to_the_same_end(crash_in, seeds_at_once, tmp_path, monkeypatch):
    from mixer_jax.checkpoints import Checkpoints

    config = make_config(model__num_blocks=1, batch_size=16, num_seeds=3, **STOPPING)
    monkeypatch.setattr(data, "load", lambda config: make_dataset())
    with crashing(Checkpoints if crash_in == "save" else RunDirectory, crash_in, calls=3):
        train.train(config, RunDirectory(tmp_path / "run"))
    train.train(config, RunDirectory(tmp_path / "run"))
    for i in range(3):
        whole, died = (RunDirectory(path / f"seed_{i}") for path in (seeds_at_once[0], tmp_path / "run"))
        assert [*map(without_times, died.read_metrics())] == [*map(without_times, whole.read_metrics())]
        assert without_times(died.read_results()) == without_times(whole.read_results())
        assert steps_kept(died.path) == steps_kept(whole.path)


def test_a_seed_that_diverges_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load", lambda config: make_dataset())
    fields = {"optimizer__name": "sgd", "optimizer__learning_rate": 1e30, "epochs": 4.0, "num_seeds": 2}
    with pytest.raises(Diverged, match=r"the loss of seed 0 became nan at step \d+ \(epoch 1\)"):
        train.train(make_config(batch_size=16, **fields), RunDirectory(tmp_path / "run"))


def test_mistakes():
    with pytest.raises(UserError, match="config.num_seeds=0: must be in 1..1000"):
        make_config(num_seeds=0)
    with pytest.raises(UserError, match="leaves no room below 2147483648 for 2 seeds"):
        make_config(seed=2**31 - 1, num_seeds=2)
    with pytest.raises(UserError, match="config.num_seeds=2: a streamed set feeds one run at a time"):
        Trainer(make_config(num_seeds=2), streamed(make_dataset()))
