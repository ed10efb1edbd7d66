"""A folder has one process at a time, on this machine and on others that share it, as far as a file can tell."""

import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from mixer_jax import lock
from mixer_jax.errors import UserError

NOW = "%Y-%m-%dT%H:%M:%SZ"


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "GONE_SECONDS", 3.0)
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.2)
    return tmp_path / ".lock"


def sign(host, age=0.0):
    return f"process 17 on {host}, {time.strftime(NOW, time.gmtime(time.time() - age))}"


def rewrite(file, text):
    """As who holds it does: an empty file in between would say that it is free."""
    with file.open("r+") as opened:
        opened.write(text)


def test_who_holds_it_is_told(file):
    with (
        lock.locked(file),
        pytest.raises(UserError, match=rf"in use by process {os.getpid()} on {socket.gethostname()}, 20..-.*Z: wait"),
    ):
        lock.require_free(file)
    lock.require_free(file)
    assert file.read_text() == ""


def test_a_killed_process_holds_nothing(file):
    program = f"import sys; sys.path.insert(0, {os.getcwd()!r})\nfrom mixer_jax import lock\nfrom pathlib import Path\n"
    program += f"with lock.locked(Path({str(file)!r})):\n print('in', flush=True)\n import time; time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    process.stdout.readline()
    with pytest.raises(UserError, match=f"in use by process {process.pid} on"):
        lock.require_free(file)
    process.kill()
    process.wait()
    process.stdout.close()
    start = time.monotonic()
    lock.require_free(file)
    assert time.monotonic() - start < 2.5


def test_another_machines_recent_sign_is_waited_out(file, capsys):
    file.write_text(sign("elsewhere"))
    start = time.monotonic()
    with lock.locked(file):
        assert 1.5 < time.monotonic() - start < 30
    assert "was in use by process 17 on elsewhere" in capsys.readouterr().err


def test_another_machine_that_lives_keeps_it(file, capsys):
    file.write_text(sign("elsewhere", age=1.0))
    beat = threading.Timer(0.5, lambda: rewrite(file, sign("elsewhere", age=-5.0)))
    beat.start()
    with pytest.raises(UserError, match="in use by process 17 on elsewhere"):
        lock.require_free(file)
    beat.join()


def test_another_machines_old_sign_says_nothing(file):
    file.write_text(sign("elsewhere", age=10.0))
    start = time.monotonic()
    with lock.locked(file):
        pass
    assert time.monotonic() - start < 2.5


def test_who_holds_it_signs_again_and_again(file, monkeypatch):
    with lock.locked(file):
        before = file.read_text()
        time.sleep(1.5)
        after = file.read_text()
    assert before != after
    assert lock.SIGN.fullmatch(after)


def test_without_locks_the_sign_has_to_do(file, monkeypatch):
    def unknown(*arguments):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", unknown)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    file.write_text(sign(socket.gethostname()).replace("process 17", f"process {process.pid}"))
    start = time.monotonic()
    lock.require_free(file)  # of a process that has gone
    assert time.monotonic() - start < 2.5
    file.write_text(sign(socket.gethostname()).replace("process 17", "process 1"))
    beat = threading.Timer(0.5, lambda: rewrite(file, sign(socket.gethostname(), age=-5.0)))
    beat.start()
    with pytest.raises(UserError, match="in use by process 17 on"):
        lock.require_free(file)
    beat.join()
