"""File systems that fail, or that know not every call, and what is to become of files there."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mixer_jax import storage


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EBADF])
def test_a_sync_that_a_file_system_does_not_know_is_none(number, tmp_path, monkeypatch):
    def unknown(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", unknown)
    storage.sync(tmp_path)


def test_a_file_is_written_where_nothing_can_be_synced(tmp_path, monkeypatch):
    def unknown(descriptor):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", unknown)
    storage.write_json(tmp_path / "results.json", {"a": 1})
    assert storage.read_json(tmp_path / "results.json") == {"a": 1}


def test_a_sync_that_fails_is_told(tmp_path, monkeypatch):
    def broken(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        storage.sync(tmp_path)


def test_files_are_emptied_before_they_go(tmp_path, monkeypatch):
    """What a drive keeps in its trash is then empty."""
    folder = tmp_path / "old"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "big").write_bytes(bytes(1000))
    (tmp_path / "mine").write_bytes(bytes(10))
    (folder / "link").symlink_to(tmp_path / "mine")
    sizes = []
    monkeypatch.setattr(storage.shutil, "rmtree", lambda path: sizes.append((path / "in" / "big").stat().st_size))
    storage.delete(folder)
    assert sizes == [0]
    assert (tmp_path / "mine").stat().st_size == 10
    monkeypatch.undo()
    storage.delete(folder)
    assert not folder.exists()


def test_a_file_with_another_name_elsewhere_is_not_emptied(tmp_path):
    """As in a backup made by `cp --link`."""
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "params").write_bytes(b"parameters")
    os.link(tmp_path / "old" / "params", tmp_path / "backup")
    storage.delete(tmp_path / "old")
    assert (tmp_path / "backup").read_bytes() == b"parameters"


def test_a_file_that_two_processes_write_is_whole(tmp_path):
    """Each writes a file of its own, which then replaces the other's."""
    with storage.replacing(tmp_path / "x") as partial:
        partial.write_text("half")
        program = "import sys; from pathlib import Path; from mixer_jax import storage; "
        program += "storage.write_text(Path(sys.argv[1]), 'other')"
        subprocess.run([sys.executable, "-c", program, str(tmp_path / "x")], check=True)
        assert ((tmp_path / "x").read_text(), partial.read_text()) == ("other", "half")
        partial.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "whole"


def test_drives_that_are_elsewhere_are_known(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/vda / ext4 rw 0 0\ndrive /content/drive fuse.drive rw 0 0\nhost:/x /mnt/a\\040b nfs4 rw 0 0\n"
        "tmpfs /content/drive/local tmpfs rw 0 0\n"
    )
    remote = {
        "/content/drive/My Drive/run": True,
        "/mnt/a b/x": True,
        "/home/me/run": False,
        "/content/drive/local/x": False,
    }
    assert {path: storage.on_network(Path(path), mounts) for path in remote} == remote
    assert not storage.on_network(Path("/content/drive"), tmp_path / "nothing")
    (tmp_path / "link").symlink_to("/content/drive/run")
    assert storage.on_network(tmp_path / "link" / "x", mounts)
