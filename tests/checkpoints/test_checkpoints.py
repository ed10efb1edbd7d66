"""Damaged checkpoints are noticed and set aside, and a run resumes from the one before; nothing is deleted."""

import dataclasses
import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mixer_jax.checkpoints import Checkpoint, Checkpoints
from mixer_jax.checkpoints import files as module
from mixer_jax.checkpoints.files import Damaged
from saved import RNG, files, flip, rewrite_manifest, same, write


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pair") / "checkpoints"
    return directory, write(directory, 100, 200)


def test_the_newest_two_are_kept_and_read_back(tmp_path):
    written = write(tmp_path / "c", 1, 2, 10)
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.saved_steps() == [2, 10]
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


def swap(one, other):
    one_content, other_content = one.read_bytes(), other.read_bytes()
    one.write_bytes(other_content)
    other.write_bytes(one_content)


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
    aside = directory / "200.damaged1"
    assert {p.relative_to(aside): p.read_bytes() for p in files(aside)} == left
    assert not (directory / "200").exists()


def test_a_damaged_checkpoint_that_cannot_be_set_aside_never_passes_for_a_good_one(pair, tmp_path, monkeypatch):
    """On a disk with no room for another, the intact checkpoint is the one that is kept."""
    original, (first, last) = pair
    directory = shutil.copytree(original, tmp_path / "c")
    flip(next(file for file in files(directory / "200") if file.name != "manifest.json"), 3)
    rename = Path.rename

    def refuse(path, target):
        if "damaged" in Path(target).name:
            raise OSError(errno.EACCES, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    checkpoints = Checkpoints(directory)
    newest, [problem] = checkpoints.newest(last)
    assert (newest.step, problem.endswith("; cannot be set aside: Permission denied")) == (100, True)
    assert checkpoints.saved_steps() == [100]
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
        checkpoints.save(dataclasses.replace(first, step=150))
        with pytest.raises(OSError, match="no space left"):
            checkpoints.wait()
    assert checkpoints.saved_steps() == [100]
    checkpoints.save(dataclasses.replace(last, step=200))  # the same step again: now it is a good one
    assert checkpoints.wait() == []
    assert checkpoints.saved_steps() == [100, 200]
    assert same(Checkpoints(directory).newest(last)[0], last)
    checkpoints.close()


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
    assert checkpoints.saved_steps() == [1]


def test_an_optimiser_that_overflowed_is_kept_and_named(tmp_path):
    """Adam's second moment may be infinite while the loss is finite: the run continues, and can be resumed."""
    [good] = write(tmp_path / "c", 1)
    checkpoints = Checkpoints(tmp_path / "c")
    state = good.state | {"opt_state": {"nu": np.array([1.0, np.inf], np.float32)}}
    checkpoints.save(Checkpoint(2, state, good.best, {"step": 2}))
    assert checkpoints.wait() == [f"checkpoint {tmp_path / 'c' / '2'}: opt_state/nu holds NaN or infinity"]
    assert checkpoints.saved_steps() == [1, 2]
