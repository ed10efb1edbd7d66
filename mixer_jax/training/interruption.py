"""A run that is asked to stop: by Ctrl-C, or by the machine it runs on, which is about to be taken away."""

import os
import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """The run has stopped as it was asked to, and can go on; `signal` is what asked."""

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.signal = signal


class StopRequest:
    """While entered, keeps SIGTERM and Ctrl-C in `signal` instead of dying of them; a second Ctrl-C ends the process.

    Of a process that is preempted, clouds and cluster managers send SIGTERM some seconds before.
    """

    def __init__(self):
        self.signal = 0

    def __enter__(self) -> "StopRequest":
        # Python lets only the main thread handle signals; elsewhere whoever calls has to.
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.signal and number == signal.SIGINT:
            os._exit(128 + number)  # at once; what is being written counts only when it is whole
        self.signal = self.signal or number
        # Not print: the signal may have come in the middle of one.
        os.write(2, b"\nstopping: this dispatch is finished and the state saved; Ctrl-C exits at once\n")
