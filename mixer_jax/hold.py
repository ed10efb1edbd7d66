"""Keeps other processes out of a folder: those of this machine by a lock, those of others by a sign of life.

On a network drive a lock may hold on one machine only. So whoever is in a folder writes there every minute, and who
finds another machine's recent sign waits until there is a new one, or long enough without.
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
from typing import TextIO

from mixer_jax.errors import UserError, warn

BEAT_SECONDS, GONE_SECONDS = 60.0, 150.0
SIGN = re.compile(r"process (\d+) on (.*), (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)")


@contextlib.contextmanager
def held(file: Path) -> Iterator[None]:
    """Hold a lock file, whose folder has to be there; a dead process holds nothing.

    Raises:
      UserError: if another process holds it.
      OSError: if it cannot be written.
    """
    with file.open("a+") as opened:
        _require_free(opened, file.parent)
        opened.truncate(0)
        _sign(opened)
        over = threading.Event()
        beat = threading.Thread(target=_beat, args=(opened, over), daemon=True)
        beat.start()
        try:
            yield
        finally:
            over.set()
            beat.join()
            with contextlib.suppress(OSError):
                opened.truncate(0)


def require_free(file: Path) -> None:
    """Raise `UserError` if another process holds a lock file, which may be there or not."""
    with contextlib.suppress(OSError), file.open() as opened:
        _require_free(opened, file.parent)


def _require_free(file: TextIO, folder: Path) -> None:
    locked = False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        locked = True
    except BlockingIOError as error:
        raise _in_use(folder, _read(file)) from error
    except OSError:
        pass  # some network file systems have no locks
    sign = _read(file)
    if not (match := SIGN.match(sign)):
        return
    process, host, said = int(match[1]), match[2], datetime.datetime.fromisoformat(match[3])
    mine = host == socket.gethostname() and (locked or process == os.getpid())
    age = (datetime.datetime.now(datetime.UTC) - said).total_seconds()
    if mine or age > GONE_SECONDS:
        return
    left = GONE_SECONDS - max(age, 0.0)
    warn(f"{folder} was in use by {sign} a moment ago: waiting up to {left:.0f} s for another sign of it")
    end = time.monotonic() + left
    while time.monotonic() < end:
        time.sleep(min(1.0, GONE_SECONDS / 10))
        if (now := _read(file)) != sign:
            if SIGN.match(now):
                raise _in_use(folder, now)
            return


def _in_use(folder: Path, sign: str) -> UserError:
    return UserError(
        f"workdir {folder} is in use by {sign or 'another process'}: wait for its end, or choose another with --workdir"
    )


def _read(file: TextIO) -> str:
    return os.pread(file.fileno(), 1000, 0).decode(errors="replace")


def _sign(file: TextIO) -> None:
    # Of the same length each time and in one call, so that nobody reads half of it; the file was opened to append.
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    fcntl.fcntl(file, fcntl.F_SETFL, fcntl.fcntl(file, fcntl.F_GETFL) & ~os.O_APPEND)
    os.pwrite(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}, {now}".encode(), 0)


def _beat(file: TextIO, over: threading.Event) -> None:
    while not over.wait(BEAT_SECONDS):
        with contextlib.suppress(OSError):
            _sign(file)
