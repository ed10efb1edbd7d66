"""Several processes that train one model together, each with its own devices; the first process writes the files.

All functions also work with a single process, at no cost.
"""

import contextlib
import hashlib
import json
import os
import socket
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from mixer_jax.data import memory
from mixer_jax.errors import UserError

HEARTBEAT_SECONDS = 45  # if a process is silent for longer, the others end


def join(distributed: bool, coordinator_address: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Connect to the other processes, if there are any.

    This also sets `data.memory.processes_here`, the number of processes on this machine.

    Args:
      distributed: whether there are other processes; on Cloud TPU and Slurm, JAX finds them.
      coordinator_address, num_processes, process_id: HOST:PORT of the first process, the number of processes, and the
        index of this one, from 0. Give all three values, or none if JAX is to find them.

    Raises:
      UserError: if the arguments are inconsistent, or if the other processes cannot be reached.
    """
    given: dict[str, Any] = {
        "coordinator_address": coordinator_address,
        "num_processes": num_processes,
        "process_id": process_id,
    }
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == 3 and not distributed:
        return
    if missing and not distributed:
        raise UserError(f"{missing[0]} is missing: give all of {', '.join(given)}, or distributed alone")
    if process_id is not None and num_processes is not None and not 0 <= process_id < num_processes:
        raise UserError(f"process_id={process_id}: must be in 0..{num_processes - 1}")
    try:
        jax.distributed.initialize(**given, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"cannot connect to the other processes: {str(error).splitlines()[0]}") from error
    host = np.uint32(zlib.crc32(socket.gethostname().encode()))
    memory.processes_here = int((multihost_utils.process_allgather(host) == host).sum())


def is_first() -> bool:
    """Return whether this process is the one that writes files and prints."""
    return jax.process_index() == 0


@contextlib.contextmanager
def speaking_once() -> Iterator[None]:
    """In this context, let only the first process print to stdout."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(sys.stdout if is_first() else nowhere):
        yield


def on_first(function: Callable[[], Any]) -> Any:
    """Call a function on the first process; return its result, or raise its `UserError`, on all processes.

    Args:
      function: returns a value that JSON can represent.
    """
    if jax.process_count() == 1:
        return function()
    outcome: dict[str, Any] = {}
    if is_first():
        try:
            outcome = {"value": function()}
        except UserError as error:
            outcome = {"error": str(error)}
    message = np.frombuffer(json.dumps(outcome).encode(), np.uint8)
    length = int(from_first(np.int32(len(message))))
    outcome = json.loads(bytes(from_first(message if is_first() else np.zeros(length, np.uint8))))
    if "error" in outcome:
        raise UserError(outcome["error"])
    return outcome["value"]


def from_first(tree: Any) -> Any:
    """Return the arrays of the first process, on all processes.

    Args:
      tree: arrays of dtypes of at most 32 bits. The values on the other processes are ignored, but their shapes and
        dtypes must be those of the first process.
    """
    return multihost_utils.broadcast_one_to_all(tree) if jax.process_count() > 1 else tree


def first_goes_first(function: Callable[[], Any]) -> Any:
    """Call a function on the first process, then on the others, and return its result on each.

    This lets the other processes use files that the first one has written. If the first process raises a `UserError`,
    all processes raise it.
    """
    result: list[Any] = []
    on_first(lambda: result.append(function()))
    return result[0] if is_first() else function()


class Agreement:
    """Decisions that all processes take together between two dispatches, without waiting for each other.

    Each process sends a message with every dispatch; with the metrics, it receives the elementwise maximum of all
    messages. All processes start dispatches and read metrics in the same order, so they base each decision on the same
    maximum.

    Attributes:
      message: int32 (3,), sent with the next dispatch; None for a single process.
    """

    def __init__(self):
        self.message = None if jax.process_count() == 1 else np.zeros(3, np.int32)
        self._received: np.ndarray | None = None

    def settle(self, signal: int, time_is_up: bool, length: int) -> tuple[int, bool, int]:
        """Set the next message, and return the decision of all processes.

        Args:
          signal: the number of the signal that asked this process to stop, or 0; the signal of any process counts.
          time_is_up: whether a checkpoint is due; only the value of the first process counts.
          length: the steps of the next dispatch; only the value of the first process counts.

        Returns:
          The signal, whether a checkpoint is due, and the steps of the next dispatch. With several processes, they come
          from the last message received, or are 0, False and `length` if there is none yet. If a message says that a
          checkpoint is due, only the first call after the message was received returns this; later calls return False.
        """
        if self.message is None:
            return signal, time_is_up, length
        self.message = np.array([signal, *((time_is_up, length) if is_first() else (0, 0))], np.int32)
        if self._received is None:
            return 0, False, length
        signal, due, length = map(int, self._received)
        self._received = np.array([signal, 0, length], np.int32)
        return signal, bool(due), length

    def receive(self, metrics: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Keep the message in the metrics of a dispatch, and return the metrics without it."""
        metrics = dict(metrics)
        if (message := metrics.pop("message", None)) is not None:
            self._received = message
        return metrics


def check_same(describe: Callable[[], dict[str, str]]) -> None:
    """Check that all processes are about to do the same thing.

    Args:
      describe: returns descriptions, by name, of the things that have to be equal, such as the config.

    Raises:
      UserError: on all processes; it names the first thing that differs, and a process on which it differs.
    """
    if jax.process_count() == 1:
        return
    described = describe()
    digests = [np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8) for text in described.values()]
    everywhere = multihost_utils.process_allgather(np.stack(digests))
    for i, name in enumerate(described):
        if others := np.flatnonzero((everywhere[:, i] != everywhere[0, i]).any(axis=1)).tolist():
            raise UserError(
                f"process {others[0]} differs from process 0 in {name}: start all of them with the same command, "
                "on the same files, devices and packages"
            )
