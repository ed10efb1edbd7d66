"""How runs go on and how they end: resuming, early stopping, the best epoch, and a loss that is no number."""

import gc
import signal

import jax
import pytest

from mixer_jax import reporting, train, training
from mixer_jax.metrics import accuracy_and_loss
from mixer_jax.reporting import Observer
from mixer_jax.run_directory import RunDirectory
from mixer_jax.training import Diverged, Interrupted, stages
from mixer_jax.training.loop import train_epochs
from runs import Crash, crashing, main, run
from support import make_config, make_dataset


def test_a_process_keeps_no_programs_of_earlier_runs(tmp_path, monkeypatch):
    """JAX would, and a process with those of some eighty runs crashes."""
    loaded = []
    for name in ("one", "two"):
        run(tmp_path / name, make_dataset(), monkeypatch, epochs=1.0)
        gc.collect()
        loaded.append(len(jax.devices()[0].client.live_executables()))
    assert loaded[1] <= loaded[0]


def test_overwrite_moves_the_earlier_run_aside(tmp_path, monkeypatch, capsys):
    dataset = make_dataset()
    run(tmp_path / "run", dataset, monkeypatch)
    (tmp_path / "run" / "notes.txt").write_text("mine")
    config = make_config(model__num_blocks=1, batch_size=16, epochs=1.0)
    training.train(config, RunDirectory(tmp_path / "run"), overwrite=True)
    assert (tmp_path / "run.old1" / "notes.txt").read_text() == "mine"
    assert len(RunDirectory(tmp_path / "run.old1").read_metrics()) == 2
    assert len(RunDirectory(tmp_path / "run").read_metrics()) == 1
    assert "Moved the earlier run to" in capsys.readouterr().out


@pytest.mark.parametrize("crash_after", ["append_metrics", "save"])
def test_a_run_that_died_goes_on_to_the_same_end(crash_after, tmp_path, monkeypatch):
    """Killed after an epoch or a checkpoint in the midst of one, a run ends as the uninterrupted one, to the bit."""
    from mixer_jax.checkpoints import Checkpoints

    fields = {"epochs": 5.0, "model__dropout_rate": 0.1, "ema_decay": 0.9, "augment__mixing__mixup_alpha": 0.5}
    fields |= {"checkpoint_steps": 5}
    dataset = make_dataset()
    whole = run(tmp_path / "whole", dataset, monkeypatch, **fields)
    owner = RunDirectory if crash_after == "append_metrics" else Checkpoints
    with crashing(owner, crash_after, calls=3):
        run(tmp_path / "run", dataset, monkeypatch, **fields)
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "st')  # a line the crash cut short
    assert run(tmp_path / "run", dataset, monkeypatch, **fields) == whole


def test_checkpoints_are_of_no_device_count(tmp_path, monkeypatch, capsys):
    import jax

    dataset = make_dataset()
    whole = run(tmp_path / "whole", dataset, monkeypatch, epochs=4.0)
    config = make_config(model__num_blocks=1, batch_size=16, epochs=4.0, checkpoint_steps=3)
    monkeypatch.setattr(RunDirectory, "write_results", lambda self, results: None)
    with monkeypatch.context() as patch:
        crashing = [CrashAfter(2)]
        patch.setattr(stages, "train_epochs", lambda trainer, run, stop, _: train_epochs(trainer, run, stop, crashing))
        with pytest.raises(Crash):
            training.train(config, RunDirectory(tmp_path / "run"), devices=jax.devices()[:2])
    results = training.train(config, RunDirectory(tmp_path / "run"), devices=jax.devices()[:1])
    assert "Resuming at step 6 of 13" in capsys.readouterr().out
    assert results.devices == 1
    assert results.test_loss == pytest.approx(whole[0]["test_loss"], rel=1e-3)


class CrashAfter(Observer):
    def __init__(self, epochs):
        self.epochs = epochs

    def epoch(self, record, best):
        if record.epoch == self.epochs:
            raise Crash


def test_early_stopping_waits_for_patience_epochs(tmp_path, monkeypatch):
    # A learning rate of next to nothing: no epoch is better than the first.
    fields = {"epochs": 9.0, "optimizer__learning_rate": 1e-12, "early_stopping_patience": 3}
    results, metrics = run(tmp_path / "run", make_dataset(), monkeypatch, **fields)
    assert (results["best_epoch"], results["epochs"], len(metrics)) == (1, 4, 4)
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == [str(metrics[-1]["step"])]


def test_the_best_epoch_is_scored_with_its_own_parameters(tmp_path, monkeypatch):
    # Hopelessly large steps late on: the last epoch is worse than the best.
    fields = {"epochs": 4.0, "optimizer__name": "sgd", "optimizer__learning_rate": 1.9, "seed": 2}
    fields |= {"schedule__name": "linear", "schedule__warmup_epochs": 3.5}
    dataset = make_dataset(num_train=200)
    results, metrics = run(tmp_path / "run", dataset, monkeypatch, **fields)
    assert results["best_epoch"] < results["epochs"]
    assert results["val_accuracy"] > results["last_val_accuracy"]
    from mixer_jax.checkpoints import Checkpoints
    from mixer_jax.training import Trainer

    trainer = Trainer(make_config(model__num_blocks=1, batch_size=16, **fields), dataset)
    trainer.compile(trainer.init())
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    best = checkpoints.read(metrics[-1]["step"]).best
    assert trainer.evaluate(trainer.place(best), dataset.val).accuracy == results["val_accuracy"]
    logits, labels = trainer.predict(trainer.place(best), dataset.test)
    assert accuracy_and_loss(logits, labels)[1] == results["test_loss"]
    assert trainer.evaluate(trainer.place(best), dataset.test).loss == pytest.approx(results["test_loss"], rel=1e-6)
    checkpoints.close()


def test_a_published_protocol_that_selects_on_test_is_named_so(tmp_path, monkeypatch):
    results, _ = run(tmp_path / "run", make_dataset(), monkeypatch, dataset__val_split="test")
    assert results["selected_on"] == "test"


def test_a_loss_that_is_no_number_stops_the_run(tmp_path, monkeypatch):
    dataset = make_dataset()
    fields = {"optimizer__name": "sgd", "optimizer__learning_rate": 1e30, "epochs": 4.0}
    with pytest.raises(Diverged, match=r"the loss became nan at step \d+ \(epoch 1\); no checkpoint has been written"):
        run(tmp_path / "early", dataset, monkeypatch, **fields)
    # The first epoch is sane; then the learning rate goes up, not down.
    fields |= {"optimizer__learning_rate": 1e-3, "schedule__name": "step", "schedule__decay_rate": 1e35}
    fields |= {"checkpoint_steps": 2}
    with pytest.raises(
        Diverged, match=r"at step \d+ \(epoch 2\); the last good checkpoint is of step 4, in .*checkpoints"
    ):
        run(tmp_path / "late", dataset, monkeypatch, **fields)
    assert not (tmp_path / "late" / "results.json").exists()
    monkeypatch.setattr(train, "train", lambda *args, **kwargs: (_ for _ in ()).throw(Diverged("the loss became nan")))
    assert main("digits", tmp_path / "x") == 1


@pytest.mark.parametrize("alone", [True, False])
def test_a_process_that_a_signal_ends_alone_does_not_wait_for_the_others(alone, tmp_path, monkeypatch, capsys):
    left = []
    monkeypatch.setattr("mixer_jax.cli.leave", left.append)
    error = Interrupted("training is over", signal.SIGTERM, alone)
    monkeypatch.setattr(train, "train", lambda *args, **kwargs: (_ for _ in ()).throw(error))
    assert main("digits", tmp_path / "x") == 143
    assert left == [143] * alone
    assert capsys.readouterr().err == "training is over\n"


def test_a_signal_while_the_report_is_drawn_is_not_taken_for_a_failed_report(tmp_path, monkeypatch):
    def finish(*_):
        with reporting.optional("report"):
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(stages, "finish", finish)
        with pytest.raises(Interrupted, match="training is over, and the final checkpoint is saved") as caught:
            run(tmp_path / "run", make_dataset(), patch)
    assert caught.value.alone
    assert not (tmp_path / "run" / "results.json").exists()
    results, _ = run(tmp_path / "run", make_dataset(), monkeypatch)
    assert results["epochs"] == 2
