"""Keep other processes out of a folder: those on this machine by a lock, those on other machines by a heartbeat.

On a network drive, a lock may hold on one machine only. So the process that uses a folder also writes its number, its
machine's name and the time to the lock file every BEAT_SECONDS. A process that finds a recent time from another machine
waits: either a newer time appears, and the folder is in use, or the time becomes GONE_SECONDS old, and the folder is
free. The clocks of the machines must agree to within GONE_SECONDS - BEAT_SECONDS.
"""

import contextlib
import datetime
import fcntl
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from mixer_jax.errors import UserError
from mixer_jax.messages import warn
from mixer_jax.storage import is_running

BEAT_SECONDS, GONE_SECONDS = 60.0, 150.0
SIGN = re.compile(r"process (\d+) on (.*), (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)")


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a lock file, in a folder that is created if it does not exist; the lock of a dead process does not count.

    Raises:
      UserError: if another process holds it, or if it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
            descriptor = stack.enter_context(file.open("r+b", buffering=0)).fileno()
            _require_free(descriptor, file.parent)
            os.ftruncate(descriptor, 0)
            _sign(descriptor)
        except OSError as error:
            message = f"workdir {file.parent} is not writable ({error.strerror}): choose another workdir"
            raise UserError(message) from error
        over = threading.Event()
        beat = threading.Thread(target=_beat, args=(descriptor, over), daemon=True)
        beat.start()
        try:
            yield
        finally:
            over.set()
            beat.join()
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)


def require_free(file: Path) -> None:
    """Raise `UserError` if another process holds a lock file; the file need not exist."""
    with contextlib.suppress(OSError), file.open("rb", buffering=0) as opened:
        _require_free(opened.fileno(), file.parent)


def _require_free(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        alone = True
    except BlockingIOError as error:
        raise _in_use(folder, _read(descriptor)) from error
    except OSError:
        alone = False  # some network file systems have no locks
    sign = _read(descriptor)
    if not (match := SIGN.match(sign)):
        return
    process, host, said = int(match[1]), match[2], datetime.datetime.fromisoformat(match[3])
    age = (datetime.datetime.now(datetime.UTC) - said).total_seconds()
    lives = process != os.getpid() and is_running(process)
    if age > GONE_SECONDS or (host == socket.gethostname() and (alone or not lives)):
        return
    left = GONE_SECONDS - max(age, 0.0)
    warn(f"{folder} was in use by {sign} a moment ago: waiting up to {left:.0f} s to see whether it still runs")
    end = time.monotonic() + left
    while time.monotonic() < end:
        time.sleep(min(1.0, GONE_SECONDS / 10))
        if (now := _read(descriptor)) != sign:
            if SIGN.match(now):
                raise _in_use(folder, now)
            return


def _in_use(folder: Path, sign: str) -> UserError:
    return UserError(
        f"workdir {folder} is in use by {sign or 'another process'}: wait until it ends, or choose another workdir"
    )


def _read(descriptor: int) -> str:
    return os.pread(descriptor, 1000, 0).decode(errors="replace")


def _sign(descriptor: int) -> None:
    # The length is the same each time, and one call writes it, so that no other process reads half of it.
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}, {now}".encode(), 0)


def _beat(descriptor: int, over: threading.Event) -> None:
    while not over.wait(BEAT_SECONDS):
        with contextlib.suppress(OSError):
            _sign(descriptor)
