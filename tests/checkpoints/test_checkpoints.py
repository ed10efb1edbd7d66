"""Damaged checkpoints are noticed and set aside, and a run resumes from the one before; nothing is deleted."""

import json
import os
import shutil

import jax
import numpy as np
import pytest

from mixer_jax import data, training
from mixer_jax.checkpoints import Checkpoint, Checkpoints
from mixer_jax.checkpoints import files as module
from mixer_jax.checkpoints.files import Damaged
from mixer_jax.errors import UserError
from mixer_jax.run_directory import RunDirectory
from mixer_jax.training import restore
from runs import Crash, crashing, run, without_times
from saved import RNG, same, write
from support import make_config, make_dataset


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pair") / "checkpoints"
    return directory, write(directory, 100, 200)


def test_the_newest_two_are_kept_and_read_back(tmp_path):
    written = write(tmp_path / "c", 1, 2, 10)
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.steps() == [2, 10]
    newest, problems = checkpoints.newest(written[-1])
    assert (newest.step, newest.progress, problems) == (10, {"step": 10}, [])
    assert same(newest, written[-1])
    assert same(checkpoints.read(2), written[1])
    best, problems = checkpoints.newest(best_alone=True)
    assert (best.step, best.state, best.progress, problems) == (10, (), {"step": 10}, [])
    assert jax.tree.all(jax.tree.map(np.array_equal, best.best, checkpoints.read(10).best))


def test_a_damaged_state_is_found_by_those_who_want_the_best_alone(tmp_path, pair):
    directory = shutil.copytree(pair[0], tmp_path / "c")
    flip(files(directory / "200", "state")[0], 5)
    newest, problems = Checkpoints(directory).newest(set_aside=False, best_alone=True)
    assert newest.step == 100
    assert "state" in problems[0]


def files(path, part=""):
    """The files of a checkpoint, the largest first."""
    found = [p for p in (path / part).rglob("*") if p.is_file()]
    return sorted(found, key=lambda p: (-p.stat().st_size, p))


def flip(file, position):
    content = bytearray(file.read_bytes())
    content[position % len(content)] ^= 1 << position % 8
    file.write_bytes(content)


def swap(one, other):
    one_content, other_content = one.read_bytes(), other.read_bytes()
    one.write_bytes(other_content)
    other.write_bytes(one_content)


def rewrite_manifest(path):
    """Makes the damage look wanted, as somebody who means harm would."""
    (path / "manifest.json").unlink()
    (path / "manifest.json").write_text(json.dumps(module.hashes(path)))


def garbage(path, name):
    (path / name).write_bytes(RNG.bytes(200))
    rewrite_manifest(path)


def other_shapes(path):
    shutil.rmtree(path / "state")
    module.save_arrays(path / "state", {"params": {"kernel": np.zeros((3, 3), np.float32)}, "step": np.int32(200)})
    rewrite_manifest(path)


def replace(path, new):
    shutil.rmtree(path)
    new(path)


DAMAGES = {
    "largest file cut in half": lambda p: os.truncate(files(p)[0], files(p)[0].stat().st_size // 2),
    "largest file cut by a byte": lambda p: os.truncate(files(p)[0], files(p)[0].stat().st_size - 1),
    "largest file emptied": lambda p: os.truncate(files(p)[0], 0),
    "largest file longer": lambda p: files(p)[0].write_bytes(files(p)[0].read_bytes() + b"\0"),
    "largest file zeroed": lambda p: files(p)[0].write_bytes(bytes(files(p)[0].stat().st_size)),
    "largest file missing": lambda p: files(p)[0].unlink(),
    "smallest file missing": lambda p: files(p)[-1].unlink(),
    "largest file a folder": lambda p: [file := files(p)[0], file.unlink(), file.mkdir()],
    "two files swapped": lambda p: swap(files(p, "state")[0], files(p, "best")[0]),
    "a bit flipped in the parameters": lambda p: flip(files(p, "state")[0], 777),
    "a bit flipped in the best parameters": lambda p: flip(files(p, "best")[0], 1),
    "a bit flipped in Orbax's metadata": lambda p: flip(p / "state" / "_METADATA", 20),
    "a bit flipped in the progress": lambda p: flip(p / "progress.json", 9),
    "a hash of another file": lambda p: (p / "manifest.json").write_text(
        (p / "manifest.json").read_text().replace("a", "b")
    ),
    "manifest missing": lambda p: (p / "manifest.json").unlink(),
    "manifest emptied": lambda p: (p / "manifest.json").write_text(""),
    "manifest half written": lambda p: os.truncate(p / "manifest.json", 100),
    "manifest no object": lambda p: (p / "manifest.json").write_text("[1, 2]"),
    "manifest binary": lambda p: (p / "manifest.json").write_bytes(RNG.bytes(500)),
    "progress missing": lambda p: (p / "progress.json").unlink(),
    "state missing": lambda p: shutil.rmtree(p / "state"),
    "best missing": lambda p: shutil.rmtree(p / "best"),
    "everything missing": lambda p: replace(p, lambda p: p.mkdir()),
    "never finished": lambda p: p.rename(p.with_name("200.partial")),
    "a file in its place": lambda p: replace(p, lambda p: p.write_text("x")),
    "renamed from another step": lambda p: replace(p, lambda p: shutil.copytree(p.with_name("100"), p)),
    "garbage with good hashes": lambda p: garbage(p, "state/_METADATA"),
    "a database of garbage with good hashes": lambda p: garbage(p, "state/manifest.ocdbt"),
    "progress of garbage with good hashes": lambda p: garbage(p, "progress.json"),
    "arrays of other shapes with good hashes": other_shapes,
}  # fmt: skip
SILENT = ("never finished", "a file in its place")  # such a one is none


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # TensorStore's threads, on garbage
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_set_aside_and_the_one_before_it_used(damage, pair, tmp_path):
    original, (first, last) = pair
    directory = shutil.copytree(original, tmp_path / "c")
    DAMAGES[damage](directory / "200")
    left = {p.relative_to(directory / "200"): p.read_bytes() for p in files(directory / "200")}
    newest, problems = Checkpoints(directory).newest(last)
    assert newest.step == 100
    assert same(newest, first)
    if damage in SILENT:
        assert problems == []
        return
    assert len(problems) == 1
    assert problems[0].startswith(f"checkpoint {directory / '200'} ")
    assert "\n" not in problems[0]
    aside = directory / "200.damaged"
    assert {p.relative_to(aside): p.read_bytes() for p in files(aside)} == left
    assert not (directory / "200").exists()


def test_any_flipped_bit_is_noticed(pair, tmp_path):
    original, (_, last) = pair
    rng, noticed = np.random.default_rng(1), 0
    for i in range(60):
        directory = tmp_path / str(i)
        shutil.copytree(original / "200", directory / "200")
        file = rng.choice(files(directory / "200"))
        flip(file, int(rng.integers(file.stat().st_size)))
        try:
            found = Checkpoints(directory).read(200, last)
        except Damaged:
            noticed += 1
        else:  # in the white space or the order of the manifest
            assert file.name == "manifest.json"
            assert same(found, last)
    assert noticed > 50


def test_when_all_are_damaged_nothing_is_touched(pair, tmp_path):
    original, (_, last) = pair
    directory = shutil.copytree(original, tmp_path / "c")
    for step in ("100", "200"):
        files(directory / step)[0].unlink()
    before = {p: p.read_bytes() for p in files(directory)}
    with pytest.raises(Damaged, match=r"checkpoint .*200 is damaged: .* is missing; checkpoint .*100 is damaged"):
        Checkpoints(directory).newest(last)
    assert {p: p.read_bytes() for p in files(directory)} == before


def test_parameters_that_are_no_numbers_are_not_written_and_named(tmp_path):
    [good] = write(tmp_path / "c", 1)
    checkpoints = Checkpoints(tmp_path / "c")
    bad = jax.tree.map(lambda x: x * np.nan if x.ndim else x, good.state)
    checkpoints.save(Checkpoint(2, bad, good.best, {"step": 2}))
    with pytest.raises(OSError, match=r"cannot write checkpoint .*/2: params/kernel holds NaN or infinity"):
        checkpoints.wait()
    assert checkpoints.steps() == [1]


def test_an_optimiser_that_overflowed_is_kept_and_named(tmp_path):
    """Adam's second moment may be infinite while the loss is finite: the run continues, and can be resumed."""
    [good] = write(tmp_path / "c", 1)
    checkpoints = Checkpoints(tmp_path / "c")
    state = good.state | {"opt_state": {"nu": np.array([1.0, np.inf], np.float32)}}
    checkpoints.save(Checkpoint(2, state, good.best, {"step": 2}))
    assert checkpoints.wait() == [f"checkpoint {tmp_path / 'c' / '2'}: opt_state/nu holds NaN or infinity"]
    assert checkpoints.steps() == [1, 2]


FIELDS = {"epochs": 6.0, "checkpoint_steps": 3}


def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one(tmp_path, monkeypatch, capsys):
    dataset = make_dataset()
    whole = run(tmp_path / "run", dataset, monkeypatch, **FIELDS)
    (tmp_path / "run" / "results.json").unlink()
    steps = Checkpoints(tmp_path / "run" / "checkpoints").steps()
    flip(files(tmp_path / "run" / "checkpoints" / str(steps[-1]))[0], 5)
    assert run(tmp_path / "run", dataset, monkeypatch, **FIELDS) == whole
    out = capsys.readouterr()
    assert f"Resuming at step {steps[-2]} of" in out.out
    assert f"checkpoints/{steps[-1]} is damaged" in out.err
    assert f"set aside, resuming from step {steps[-2]}" in out.err
    assert (tmp_path / "run" / "checkpoints" / f"{steps[-1]}.damaged").is_dir()


def test_a_run_whose_checkpoints_are_all_damaged_gets_one_line(tmp_path, monkeypatch):
    dataset = make_dataset()
    run(tmp_path / "run", dataset, monkeypatch, **FIELDS)
    (tmp_path / "run" / "results.json").unlink()
    metrics = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        files(path)[0].unlink()
    with pytest.raises(UserError, match="no checkpoint is intact; none was deleted; .*overwrite starts over") as caught:
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
    assert "Changed: epochs: 2.0 there, 4.0 here" in capsys.readouterr().out
    assert (results, longer) == (whole, metrics)
    kept = json.loads((tmp_path / "run" / "results.old1.json").read_text())
    assert (kept["epochs"], kept["test_loss"]) == (2, first["test_loss"])
    with pytest.raises(UserError, match=r"config.epochs=1: the run in .* is at step \d+ of \d+: give more"):
        run(tmp_path / "run", dataset, monkeypatch, epochs=1.0, **fields)


def test_an_ending_that_does_not_fit_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    dataset, path = make_dataset(), tmp_path / "run"
    half, metrics = run(path, dataset, monkeypatch, epochs=1.5)
    before = {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}
    for epochs, message in ((0.9, "is at step 5 of 3: give more"), (2.0, "epoch 2, .* more than 2")):
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
        assert Checkpoints(cut.path / seed / "checkpoints").steps() == [4]
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
    [*_, newest] = Checkpoints(tmp_path / "run" / "checkpoints").steps()

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
    steps = Checkpoints(tmp_path / "run" / "checkpoints").steps()
    without = lambda progress: {key: value for key, value in progress.items() if key != field}  # noqa: E731
    change_progress(tmp_path / "run" / "checkpoints" / str(steps[-1]), without)
    with pytest.raises(UserError, match=rf"checkpoint {steps[-1]} in .*checkpoints was not written by this") as caught:
        run(tmp_path / "run", dataset, monkeypatch, **FIELDS)
    assert "\n" not in str(caught.value)
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == steps


def test_a_directory_has_one_process_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load", lambda config: make_dataset())
    directory = RunDirectory(tmp_path / "run")
    with directory.locked():
        line = rf"workdir .*run is in use by process {os.getpid()} on .*: wait for its end, or choose another"
        with pytest.raises(UserError, match=line):
            training.train(make_config(), RunDirectory(tmp_path / "run"))
        with pytest.raises(UserError, match=line):
            RunDirectory(tmp_path / "run").check(make_config(), overwrite=True)
    directory.check(make_config())  # it is free again, and holds nothing but the lock
