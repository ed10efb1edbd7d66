"""A run that is asked to stop: by Ctrl-C, a closed terminal, or a machine that is about to be taken away."""

import contextlib
import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """The run has stopped as it was asked to, and can go on; `signal` is what asked."""

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.signal = signal


class StopRequest:
    """While entered, keeps what asks to stop in `signal` instead of dying of it; a second Ctrl-C ends the process.

    That is Ctrl-C, SIGTERM, which clouds and cluster managers send some seconds before they preempt a process, and
    SIGHUP, which it gets when its terminal is closed.
    """

    def __init__(self):
        self.signal = 0

    def __enter__(self) -> "StopRequest":
        self._handling = contextlib.ExitStack()
        self._handling.enter_context(_handling(self._ask))
        return self

    def __exit__(self, *exception: object) -> None:
        self._handling.close()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.signal and number == signal.SIGINT:
            os._exit(128 + number)  # at once; what is being written counts only when it is whole
        self.signal = self.signal or number
        _say("\nstopping: this dispatch is finished and the state saved; Ctrl-C exits at once\n")


@contextlib.contextmanager
def stopping_at_once(message: str) -> Iterator[None]:
    """While entered, raise `Interrupted` with this message on whatever asks to stop: there is nothing left to save."""

    def stop(number: int, frame: FrameType | None) -> None:
        _say("")
        raise Interrupted(message, number)

    with _handling(stop):
        yield


@contextlib.contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handles the signals, but for those that whoever started this process, such as nohup, wants ignored."""
    before = {}
    # Python lets only the main thread handle signals; elsewhere whoever calls has to.
    if threading.current_thread() is threading.main_thread():
        wanted = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, handler) for number in wanted}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _say(line: str) -> None:
    """Says something from within a signal handler, which may have come in the middle of a print."""
    for descriptor in (1, 2):
        try:
            os.get_terminal_size(descriptor)
        except OSError as error:
            if error.errno == errno.EIO:  # the terminal has gone, and every print would fail
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    with contextlib.suppress(OSError):
        os.write(2, line.encode())
