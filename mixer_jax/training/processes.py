"""Several processes that train one model together, each with its own devices; the first keeps the files.

Everything here is the same for one process, where it costs nothing.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.experimental import multihost_utils

from mixer_jax.errors import UserError

HEARTBEAT_SECONDS = 45  # after which a process that has gone silent ends the others


def define_flags(values: flags.FlagValues) -> None:
    """Defines what `join` reads."""
    flags.DEFINE_boolean(
        "distributed",
        False,
        "one of several processes, as JAX finds out (Cloud TPU, Slurm)",
        flag_values=values,
    )
    flags.DEFINE_string("coordinator_address", None, "of several processes: HOST:PORT of the first", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "how many there are", flag_values=values)
    flags.DEFINE_integer("process_id", None, "which one this is, from 0", flag_values=values)


def join(values: flags.FlagValues) -> None:
    """Meets the other processes, if the flags say that there are any.

    Raises:
      UserError: if the flags do not belong together, or the others cannot be found.
    """
    given = {name: values[name].value for name in ("coordinator_address", "num_processes", "process_id")}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == 3 and not values.distributed:
        return
    if missing and not values.distributed:
        raise UserError(f"--{missing[0]} is missing: give all of --{', --'.join(given)}, or --distributed alone")
    if not missing and not 0 <= values.process_id < values.num_processes:
        raise UserError(f"--process_id={values.process_id}: must be in 0..{values.num_processes - 1}")
    try:
        jax.distributed.initialize(**given, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"cannot meet the other processes: {str(error).splitlines()[0]}") from error


def is_first() -> bool:
    """Whether this process is the one that writes files and speaks."""
    return jax.process_index() == 0


@contextlib.contextmanager
def speaking_once() -> Iterator[None]:
    """Only the first process prints."""
    with contextlib.ExitStack() as stack:
        if not is_first():
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        yield


def on_first(function: Callable[[], Any]) -> Any:
    """Calls a function on the first process; what it returns, as JSON has it, or its `UserError`, is that of all."""
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
    """The arrays of the first process, on all; the others give any of the same shapes and types, of 32 bits or less."""
    return multihost_utils.broadcast_one_to_all(tree) if jax.process_count() > 1 else tree


def first_goes_first(function: Callable[[], Any]) -> Any:
    """Calls a function on all, on the first alone before, who may leave something on the disk for the others."""
    if jax.process_count() == 1:
        return function()
    result = function() if is_first() else None
    multihost_utils.sync_global_devices("the first is done")
    return result if is_first() else function()


def agree(*values: int) -> np.ndarray:
    """What each process gives, int32 (processes, values)."""
    mine = np.array(values, np.int32)
    return multihost_utils.process_allgather(mine) if jax.process_count() > 1 else mine[None]
