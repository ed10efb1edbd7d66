"""Signals that ask a run to stop."""

import signal

import pytest

from mixer_jax.training import interruption
from mixer_jax.training.interruption import StopRequest


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = [100.0]
    monkeypatch.setattr(interruption.time, "monotonic", lambda: now[0])
    # As in a terminal: a shell lets what it starts in the background ignore SIGINT, nohup SIGHUP.
    before = {number: signal.signal(number, signal.default_int_handler) for number in interruption.SIGNALS}
    yield now
    for number, handler in before.items():
        signal.signal(number, handler)


def send(*names):
    for name in names:
        signal.raise_signal(getattr(signal, f"SIG{name}"))


def test_the_second_interrupt_is_python_s_own(clock):
    with StopRequest() as stop:
        send("INT")
        assert stop.signal == signal.SIGINT
        clock[0] += 1.0
        with pytest.raises(KeyboardInterrupt):
            send("INT")


def test_the_signals_of_jupyters_stop_button_are_one_request(clock):
    """IPython interrupts the command of a cell, and ends it as pexpect does, whose SIGKILL follows 0.1 s later."""
    with StopRequest() as stop:
        for name, seconds in (("INT", 0.2), ("HUP", 0.1), ("CONT", 0.1), ("INT", 0.1)):
            send(name)
            clock[0] += seconds
        assert stop.signal == signal.SIGINT
