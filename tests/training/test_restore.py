"""Runs that resume: from the newest intact checkpoint, from one of an older release, for more epochs."""

import json
import os

import jax
import numpy as np
import pytest

from mixer_jax import data, training
from mixer_jax.checkpoints import Checkpoints
from mixer_jax.claim import require_usable
from mixer_jax.errors import UserError
from mixer_jax.run_directory import RunDirectory
from mixer_jax.training import restore
from runs import Crash, crashing, run, without_times
from saved import files, flip, rewrite_manifest
from support import make_config, make_dataset

FIELDS = {"epochs": 6.0, "checkpoint_steps": 3}


def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one(tmp_path, monkeypatch, capsys):
    dataset = make_dataset()
    whole = run(tmp_path / "run", dataset, monkeypatch, **FIELDS)
    (tmp_path / "run" / "results.json").unlink()
    steps = Checkpoints(tmp_path / "run" / "checkpoints").saved_steps()
    flip(files(tmp_path / "run" / "checkpoints" / str(steps[-1]))[0], 5)
    assert run(tmp_path / "run", dataset, monkeypatch, **FIELDS) == whole
    out = capsys.readouterr()
    assert f"Resuming at step {steps[-2]} of" in out.out
    assert f"checkpoints/{steps[-1]} is damaged" in out.err
    assert f"set aside; resuming from step {steps[-2]}" in out.err
    assert (tmp_path / "run" / "checkpoints" / f"{steps[-1]}.damaged1").is_dir()


def test_a_run_whose_checkpoints_are_all_damaged_gets_one_line(tmp_path, monkeypatch):
    dataset = make_dataset()
    run(tmp_path / "run", dataset, monkeypatch, **FIELDS)
    (tmp_path / "run" / "results.json").unlink()
    metrics = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        files(path)[0].unlink()
    with pytest.raises(UserError, match="no checkpoint is intact; none was deleted; set overwrite") as caught:
        run(tmp_path / "run", dataset, monkeypatch, **FIELDS)
    assert "\n" not in str(caught.value)
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 2
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == metrics


def test_more_epochs_may_be_asked_for_and_the_earlier_results_stay(tmp_path, monkeypatch, capsys):
    fields = {"schedule__name": "constant", "checkpoint_steps": 3}
    dataset = make_dataset()
    whole, metrics = run(tmp_path / "whole", dataset, monkeypatch, epochs=4.0, **fields)
    first, _ = run(tmp_path / "run", dataset, monkeypatch, epochs=2.0, **fields)
    results, longer = run(tmp_path / "run", dataset, monkeypatch, epochs=4.0, **fields)
    assert "Changed: epochs: 2.0 in the run, 4.0 now" in capsys.readouterr().out
    assert (results, longer) == (whole, metrics)
    kept = json.loads((tmp_path / "run" / "results.old1.json").read_text())
    assert (kept["epochs"], kept["test_loss"]) == (2, first["test_loss"])
    with pytest.raises(UserError, match=r"epochs=1: the run in .* is already at step \d+, past the requested \d+"):
        run(tmp_path / "run", dataset, monkeypatch, epochs=1.0, **fields)


def test_an_ending_that_does_not_fit_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    dataset, path = make_dataset(), tmp_path / "run"
    half, metrics = run(path, dataset, monkeypatch, epochs=1.5)
    before = {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}
    for epochs, message in ((0.9, "already at step 5, past the requested 3"), (2.0, "epoch 2, .* more than 2")):
        with pytest.raises(UserError, match=message):
            run(path, dataset, monkeypatch, epochs=epochs)
        assert {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()} == before
    longer, more = run(path, dataset, monkeypatch, epochs=3.0)
    assert (half["steps"], longer["steps"], more[:2]) == (5, 10, metrics)


def test_several_seeds_resume_from_arrays_that_must_not_be_written(tmp_path, monkeypatch):
    # As they come from another process.
    def frozen(tree):
        tree = jax.tree.map(np.array, tree)
        for x in jax.tree.leaves(tree):
            x.flags.writeable = False
        return tree

    def save_and_die(self, checkpoint):
        save(self, checkpoint)
        raise Crash

    fields = {"num_seeds": 2, "schedule__name": "constant", "model__num_blocks": 1, "batch_size": 16}
    dataset, save = make_dataset(), Checkpoints.save
    monkeypatch.setattr(data, "load", lambda config: dataset)
    whole, cut = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "cut")
    training.train(make_config(epochs=6.0, **fields), whole)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_die)
        with pytest.raises(Crash):
            training.train(make_config(epochs=6.0, checkpoint_steps=4, **fields), cut)
    monkeypatch.setattr(restore, "from_first", frozen)
    for seed in ("seed_0", "seed_1"):
        assert Checkpoints(cut.path / seed / "checkpoints").saved_steps() == [4]
    training.train(make_config(epochs=6.0, checkpoint_steps=4, **fields), cut)
    for seed in ("seed_0", "seed_1"):
        mine, theirs = (RunDirectory(one.path / seed).read_results() for one in (whole, cut))
        assert without_times(mine) == without_times(theirs)


def change_progress(path, change):
    """Changes the progress of a checkpoint, which stays intact."""
    progress = json.loads((path / "progress.json").read_text())
    (path / "progress.json").write_text(json.dumps(change(progress)))
    rewrite_manifest(path)


def test_a_run_resumes_from_a_checkpoint_of_an_older_release(tmp_path, monkeypatch, capsys):
    dataset = make_dataset()
    whole = run(tmp_path / "whole", dataset, monkeypatch, **FIELDS)
    with crashing(Checkpoints, "save", calls=3):
        run(tmp_path / "run", dataset, monkeypatch, **FIELDS)
    [*_, newest] = Checkpoints(tmp_path / "run" / "checkpoints").saved_steps()

    def older(progress):
        sums, history = progress.pop("sums"), progress.pop("history")
        assert sums["steps"] > 0  # in the middle of an epoch
        sums = {"losses": [sums["loss"]], "correct": [sums["correct"]], "steps": sums["steps"], "seconds": 1.0}
        return progress | {"histories": [history], "sums": sums}

    change_progress(tmp_path / "run" / "checkpoints" / str(newest), older)
    assert run(tmp_path / "run", dataset, monkeypatch, **FIELDS) == whole
    out = capsys.readouterr()
    assert f"Resuming at step {newest} of" in out.out
    assert "warning" not in out.err


@pytest.mark.parametrize("field", ["history", "sums", "ran_on"])
def test_a_checkpoint_of_another_program_gets_one_line(field, tmp_path, monkeypatch):
    dataset = make_dataset()
    run(tmp_path / "run", dataset, monkeypatch, **FIELDS)
    (tmp_path / "run" / "results.json").unlink()
    steps = Checkpoints(tmp_path / "run" / "checkpoints").saved_steps()
    without = lambda progress: {key: value for key, value in progress.items() if key != field}  # noqa: E731
    change_progress(tmp_path / "run" / "checkpoints" / str(steps[-1]), without)
    with pytest.raises(UserError, match=rf"{steps[-1]} in .*checkpoints was not written by mixer_jax") as caught:
        run(tmp_path / "run", dataset, monkeypatch, **FIELDS)
    assert "\n" not in str(caught.value)
    assert Checkpoints(tmp_path / "run" / "checkpoints").saved_steps() == steps


def test_a_directory_has_one_process_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load", lambda config: make_dataset())
    directory = RunDirectory(tmp_path / "run")
    with directory.locked():
        line = rf"workdir .*run is in use by process {os.getpid()} on .*: wait until it ends, or choose another"
        with pytest.raises(UserError, match=line):
            training.train(make_config(), RunDirectory(tmp_path / "run"))
        with pytest.raises(UserError, match=line):
            require_usable(RunDirectory(tmp_path / "run"), make_config(), overwrite=True)
    require_usable(directory, make_config())  # it is free again, and holds nothing but the lock
