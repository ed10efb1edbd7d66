"""Requests to stop a run: by Ctrl-C, a closed terminal, or a machine that is about to be preempted."""

import contextlib
import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AGAIN_SECONDS = 1.0


class Interrupted(BaseException):  # like KeyboardInterrupt, so that no handler of errors swallows it
    """The run has stopped because of a signal, and can be resumed.

    Attributes:
      signal: the number of the signal.
      alone: True if only this process has stopped, and others, if any, keep running.
    """

    def __init__(self, message: str, signal: int, alone: bool = False):
        super().__init__(message)
        self.signal, self.alone = signal, alone


class StopRequest(contextlib.ExitStack):
    """A context in which signals are only recorded, so that the run can save its state before it stops.

    The signals are SIGINT (Ctrl-C), SIGTERM, which clouds and cluster managers send some seconds before they preempt a
    process, and SIGHUP, which a process receives when its terminal is closed. A Ctrl-C at least AGAIN_SECONDS after the
    first signal raises KeyboardInterrupt at once. An earlier one does not, because one click on Jupyter's Stop button
    makes IPython send SIGINT, SIGHUP and SIGINT to a `!command` within 0.4 s. (0.1 s later it sends SIGKILL; Colab
    sends SIGINT alone.)

    Attributes:
      signal: the number of the first signal received; 0 for none.
    """

    def __init__(self):
        super().__init__()
        self.signal, self._asked = 0, 0.0

    def __enter__(self) -> "StopRequest":
        self.enter_context(_handling(self._ask))
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if not self.signal:
            self.signal, self._asked = number, time.monotonic()
            _say("\nstopping after this dispatch and a checkpoint; Ctrl-C again stops at once\n")
        elif number == signal.SIGINT and time.monotonic() - self._asked >= AGAIN_SECONDS:
            raise KeyboardInterrupt  # an incomplete file is ignored when the run resumes


@contextlib.contextmanager
def stopping_at_once(message: str) -> Iterator[None]:
    """In this context, raise `Interrupted` with this message on each signal; for a run with nothing left to save.

    Other processes of the run do not stop.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        _say("")
        raise Interrupted(message, number, alone=True)

    with _handling(stop):
        yield


@contextlib.contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle the signals, except those that were already ignored when the process started, as under nohup."""
    before = {}
    # Python lets only the main thread handle signals; in another thread, the caller has to handle them.
    if threading.current_thread() is threading.main_thread():
        wanted = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, handler) for number in wanted}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _say(line: str) -> None:
    """Write a line from a signal handler, which may have interrupted a print."""
    for descriptor in (1, 2):
        try:
            os.get_terminal_size(descriptor)
        except OSError as error:
            if error.errno == errno.EIO:  # the terminal is closed, and every print would fail
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    with contextlib.suppress(OSError):
        os.write(2, line.encode())
