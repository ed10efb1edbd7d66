"""Disks that fill up, or fail: no checkpoint is lost by it, and housekeeping that fails, fails nothing else."""

import os
import shutil
import subprocess

import pytest

from mixer_jax import training
from mixer_jax.checkpoints import Checkpoints
from mixer_jax.errors import UserError
from mixer_jax.run_directory import RunDirectory
from mixer_jax.training import Trainer
from runs import crashing, run
from saved import made, same, write
from support import make_config, make_dataset

FIELDS = {"epochs": 6.0, "checkpoint_steps": 3}


@pytest.mark.parametrize("call", ["fsync of folders", "truncate", "rmtree", "rename of old ones"])
def test_housekeeping_that_fails_fails_no_checkpoint(call, tmp_path, monkeypatch):
    write(tmp_path / "c", 1, 2)

    def failing(original, when):
        def maybe(*arguments, **keywords):
            if when(*arguments):
                raise OSError(5, "Input/output error")
            return original(*arguments, **keywords)

        return maybe

    if call == "fsync of folders":
        monkeypatch.setattr(os, "fsync", failing(os.fsync, lambda d: os.path.isdir(f"/proc/self/fd/{d}")))
    elif call == "rename of old ones":
        monkeypatch.setattr(os, "rename", failing(os.rename, lambda a, b: str(b).endswith(".partial")))
    else:
        owner = os if call == "truncate" else shutil
        monkeypatch.setattr(owner, call, failing(getattr(owner, call), lambda *arguments: True))
    checkpoints = Checkpoints(tmp_path / "c")
    third = made(3)
    checkpoints.save(third)
    remarks = checkpoints.wait()
    assert 3 in checkpoints.saved_steps()
    assert same(checkpoints.newest(third)[0], third)
    if call == "rename of old ones":
        assert remarks == [f"checkpoint {tmp_path / 'c' / '1'} cannot be deleted: Input/output error"]
    monkeypatch.undo()
    checkpoints.save(made(4))
    checkpoints.wait()
    assert checkpoints.saved_steps() == [3, 4]
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["3", "4"]


def test_a_rename_that_fails_leaves_the_earlier_checkpoint_of_the_same_step(tmp_path, monkeypatch):
    _, earlier = write(tmp_path / "c", 1, 2)
    checkpoints, rename = Checkpoints(tmp_path / "c"), os.rename

    def failing(source, target):
        if str(source).endswith(".partial") and str(target).endswith("/2") and "2.2" not in str(source):
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    checkpoints.save(made(2))
    with pytest.raises(OSError, match="cannot write checkpoint"):
        checkpoints.wait()
    monkeypatch.undo()
    assert checkpoints.saved_steps() == [1, 2]
    assert same(checkpoints.read(2, earlier), earlier)


def test_a_folder_that_cannot_be_listed_fails_no_complete_checkpoint(tmp_path, monkeypatch):
    write(tmp_path / "c", 1, 2)
    checkpoints, third = Checkpoints(tmp_path / "c"), made(3)

    def failing(self):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(
        Checkpoints, "saved_steps", lambda self: failing(self) if (self.directory / "3").exists() else []
    )
    checkpoints.save(third)
    assert checkpoints.wait() == []
    monkeypatch.undo()
    assert same(checkpoints.newest(third)[0], third)


def test_what_a_failed_checkpoint_leaves_is_emptied_before_it_goes(tmp_path, monkeypatch):
    checkpoints, emptied = Checkpoints(tmp_path / "c"), []

    def failing(partial, path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(checkpoints, "_put", failing)
    monkeypatch.setattr(os, "truncate", lambda file, size: emptied.append(file.name))
    checkpoints.save(made(1))
    with pytest.raises(OSError, match="cannot write checkpoint"):
        checkpoints.wait()
    assert "progress.json" in emptied
    assert not list((tmp_path / "c").iterdir())


def test_a_damaged_checkpoint_that_cannot_be_renamed_stops_no_resume(tmp_path, monkeypatch):
    first, _ = write(tmp_path / "c", 1, 2)
    (tmp_path / "c" / "2" / "progress.json").write_text("{}")

    def failing(source, target):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "rename", failing)
    found, problems = Checkpoints(tmp_path / "c").newest(first)
    assert same(found, first)
    assert len(problems) == 1


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MiB; returns its path and a function that makes it of another size."""
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", path], capture_output=True).returncode:
        pytest.skip("mounting a small file system takes root")
    yield path, lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", path], check=True)
    subprocess.run(["umount", path], check=True)


def test_room_for_checkpoints_is_asked_for_before_anything_is_compiled(small_disk, tmp_path, monkeypatch):
    path, resize = small_disk
    resize("1280k")
    dataset = make_dataset()
    line = r"no room for checkpoints in .*: 2 take 2\.\d MiB, and 1\.\d MiB are free: make room, or choose another"
    with pytest.raises(UserError, match=line):
        run(path / "run", dataset, monkeypatch, **FIELDS)
    assert not (path / "run").exists()


def test_room_is_asked_for_the_checkpoints_of_all_seeds_with_those_that_are_there(small_disk, monkeypatch):
    path, resize = small_disk
    config, dataset = make_config(model__num_blocks=1, batch_size=16, num_seeds=2, **FIELDS), make_dataset()
    line = r"no room for checkpoints in .*: 4 take 4\.\d MiB, and [23]\.\d MiB are free"
    with pytest.raises(UserError, match=line):
        training.train(config, RunDirectory(path / "run"), dataset=dataset)
    assert not (path / "run").exists()
    resize("5m")
    with crashing(RunDirectory, "write_results", calls=1):
        training.train(config, RunDirectory(path / "run"), dataset=dataset)
    for seed in ("seed_0", "seed_1"):
        assert len(Checkpoints(path / "run" / seed / "checkpoints").saved_steps()) == 2
    mine = sum(file.stat().st_size for file in path.glob("run/seed_*/checkpoints/**/*") if file.is_file())
    needed, used = 4 * module_room(Trainer(config, dataset).state_shapes), shutil.disk_usage(path).used
    resize(f"{(used + needed - mine // 2) // 1024}k")  # there is room but for half of those that are there already
    results = training.train(config, RunDirectory(path / "run"), dataset=dataset)
    assert results.seeds == [0, 1]
    with pytest.raises(UserError, match="no room for checkpoints"):  # the earlier run stays on the disk
        training.train(config, RunDirectory(path / "run"), dataset=dataset, overwrite=True)
    assert not (path / "run.old1").exists()


def test_a_disk_that_fills_up_leaves_the_last_good_checkpoint(small_disk, tmp_path, monkeypatch, capsys):
    path, _ = small_disk
    dataset = make_dataset()
    whole = run(tmp_path / "whole", dataset, monkeypatch, **FIELDS)
    save = Checkpoints.save

    def filled(self, checkpoint):
        self.wait()
        if len(self.saved_steps()) == 1 and not (path / "others").exists():
            (path / "others").write_bytes(bytes(int(2.2 * 2**20)))
        save(self, checkpoint)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", filled)
        with pytest.raises(
            UserError, match=r"the final checkpoint could not be saved; the last good checkpoint is of step \d+, in "
        ):
            run(path / "run", dataset, monkeypatch, **FIELDS)
    steps = Checkpoints(path / "run" / "checkpoints").saved_steps()
    assert steps
    assert not list((path / "run" / "checkpoints").glob("*.partial"))
    assert "no space left on the device" in capsys.readouterr().err
    (path / "others").unlink()
    assert run(path / "run", dataset, monkeypatch, **FIELDS) == whole
    assert f"Resuming at step {steps[-1]} of" in capsys.readouterr().out


def test_an_older_checkpoint_makes_room_for_a_new_one(small_disk, tmp_path):
    path, resize = small_disk
    write(path / "c", 1, 2)
    (path / "others").write_bytes(bytes(int(2.2 * 2**20)))
    checkpoints = Checkpoints(path / "c")
    free = shutil.disk_usage(path).free
    resize(f"{(3 * 2**20 - free + module_room(made(3).state, made(3).best) - 4096) // 1024}k")
    checkpoints.save(made(3))
    checkpoints.wait()
    assert checkpoints.saved_steps()[-1] == 3
    assert len(checkpoints.saved_steps()) == 2


def module_room(state, best=None):
    from mixer_jax.checkpoints.checkpoints import _size

    return _size(state, state.evaluated if best is None else best)


def test_metrics_that_cannot_be_written_for_a_while_stop_nothing(tmp_path, monkeypatch, capsys):
    dataset = make_dataset()
    whole = run(tmp_path / "whole", dataset, monkeypatch, **FIELDS)
    append, calls = RunDirectory.append_metrics, []

    def sometimes(self, record):
        calls.append(record)
        if len(calls) in (2, 3):
            raise UserError("cannot write metrics.jsonl: Transport endpoint is not connected")
        append(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "append_metrics", sometimes)
        assert run(tmp_path / "run", dataset, monkeypatch, **FIELDS) == whole
    assert "metrics.jsonl: Transport endpoint is not connected; training continues" in capsys.readouterr().err
