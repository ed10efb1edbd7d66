"""Several seeds at the same time: each is a run of its own, and their device programs run together.

Every seed has a thread, but only one thread runs at a time: it runs until it calls a device program, and then the next
thread runs. When all threads have called a program, the programs run together. On an accelerator, they run as one
program with a leading axis of seeds, because a small model alone does not use the whole device; on a CPU, in parallel
worker threads. So the code of a run does not depend on other seeds, everything happens in the same order on every
process, and no data is shared between running threads.
"""

import dataclasses
import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mixer_jax.cache import cores
from mixer_jax.training.epoch import DispatchLength
from mixer_jax.training.step import Programs
from mixer_jax.training.trainer import Trainer


@dataclasses.dataclass
class _Call:
    """A seed's call of a method of `DeviceFunctions`, with its arguments; it waits for the calls of the other seeds."""

    program: str
    arguments: tuple[Any, dict[str, Any], dict[str, Any], np.int32]
    answer: Future = dataclasses.field(default_factory=Future)

    def key(self) -> Hashable:
        """Return a key that is equal for calls that can run as one program."""
        _, resident, chunk, _ = self.arguments
        # Each seed trains on its own batches, but all are evaluated on the same images, which are then prepared once.
        return self.program, id(resident), None if self.program == "train" else np.asarray(chunk["indices"]).tobytes()


class _Turn(threading.Thread):
    """The thread of one seed, which runs only between `resume` and its next call of a device program.

    Attributes:
      call: the call for whose result the thread waits, if any.
      over: whether the seed's function has ended.
      outcome: what the function returned or raised.
    """

    current = threading.local()

    def __init__(self, function: Callable[[], Any]):
        super().__init__(daemon=True)
        self._function, self._resumed, self._paused = function, threading.Semaphore(0), threading.Semaphore(0)
        self.call: _Call | None = None
        self.over = False
        self.outcome: Any = None

    def resume(self) -> None:
        """Run until the next call of a device program, or to the end."""
        self.call = None
        if self.ident is None:
            self.start()
        else:
            self._resumed.release()
        self._paused.acquire()

    def wait_for(self, call: _Call) -> Any:
        """Return the result of a call, once this seed's thread is resumed; to be called in the thread."""
        self.call = call
        self._paused.release()
        self._resumed.acquire()
        return call.answer.result()

    def run(self) -> None:
        """Call the seed's function."""
        self.current.turn = self
        try:
            self.outcome = self._function()
        except BaseException as error:
            self.outcome = error
        self.over = True
        self._paused.release()


class SharedLength(DispatchLength):
    """The dispatch length of all seeds; only the times of `first`, the first seed that still runs, count."""

    first: _Turn | None = None

    def learn(self, num_steps: int, seconds: float) -> None:
        """Adapt to the measured time of a dispatch, if this is the seed whose times count."""
        if _Turn.current.turn is self.first:
            super().learn(num_steps, seconds)


class SeedGroup:
    """The trainers of several seeds, whose device programs run together.

    Attributes:
      trainers: the trainer of each seed, in order; only for use in the functions passed to `run`.
      length: the dispatch length of all seeds, so that all dispatch the same number of steps.
    """

    def __init__(self, trainer: Trainer, seeds: Sequence[int]):
        on_cpu = trainer.platform == "cpu"
        self._run_together = OnCores(trainer).run if on_cpu else SideBySide(trainer, len(seeds)).run
        self.length = SharedLength(trainer.max_steps)
        self.trainers = [trainer.of_seed(seed) for seed in seeds]
        for each in self.trainers:
            each.programs = Programs(*map(_deferred, Programs._fields))
            each.ahead = 0 if on_cpu else trainer.ahead

    def run(self, functions: Sequence[Callable[[], Any]]) -> list[Any]:
        """Call the function of each seed; return, for each, its result or the exception that it raised."""
        turns = [_Turn(function) for function in functions]
        while running := [turn for turn in turns if not turn.over]:
            self.length.first = running[0]
            for turn in running:
                turn.resume()
            together: dict[Hashable, list[_Call]] = {}
            for call in (turn.call for turn in running if turn.call is not None):
                together.setdefault(call.key(), []).append(call)
            for calls in together.values():
                self._run_together(calls)
        return [turn.outcome for turn in turns]


def _deferred(name: str) -> Callable:
    """Return a program that waits for the other seeds."""
    return lambda *arguments: _Turn.current.turn.wait_for(_Call(name, arguments))


class OnCores:
    """Runs the programs of several seeds in parallel threads, as many as there are cores.

    While one seed cannot use all cores, as in a small matrix product, the others use the rest.
    """

    def __init__(self, trainer: Trainer):
        self._programs = trainer.programs
        # With several devices, each program uses several cores itself, and its collectives must not mix with another's.
        self._at_once = cores() if len(trainer.parallel.devices) == 1 else 1

    def run(self, calls: Sequence[_Call]) -> None:
        """Answer each call."""
        # Calls with no steps only compile. One thread is used, so that equal programs are compiled once.
        compiling = all(call.arguments[-1] == 0 for call in calls)
        with ThreadPoolExecutor(1 if compiling else self._at_once) as pool:
            for call in calls:
                call.answer = pool.submit(self._run_one, call)

    def _run_one(self, call: _Call) -> Any:
        return jax.block_until_ready(getattr(self._programs, call.program)(*call.arguments))


class SideBySide:
    """Runs the programs of several seeds as one program with a leading axis of seeds."""

    def __init__(self, trainer: Trainer, num_seeds: int):
        self._num_seeds = num_seeds
        self._programs = {
            name: trainer.parallel.compile(
                _with_seed_axis(getattr(trainer.functions, name), own_batches=name == "train")
            )
            for name in Programs._fields
        }

    def run(self, calls: Sequence[_Call]) -> None:
        """Answer each call."""
        # Finished seeds stay in the program, without steps, so that nothing is compiled again.
        absent = self._num_seeds - len(calls)
        states, residents, chunks, num_steps = zip(*(call.arguments for call in calls), strict=True)
        chunk = chunks[0]
        if calls[0].program == "train":  # the axis of seeds comes after that of devices
            chunk = jax.tree.map(lambda *each: np.stack(each, axis=1), *chunks, *chunks[:1] * absent)
        numbers = np.array([*num_steps, *(0,) * absent], np.int32)
        try:
            results = self._programs[calls[0].program](states + states[:1] * absent, residents[0], chunk, numbers)
        except Exception as error:
            for call in calls:
                call.answer.set_exception(error)
            return
        for call, result in zip(calls, results, strict=False):
            call.answer.set_result(result)


def _with_seed_axis(function: Callable, own_batches: bool) -> Callable:
    """Return a method of `DeviceFunctions` for several seeds, which maps a tuple of states to a tuple of results."""

    def program(states: tuple, resident: Any, chunk: Any, num_steps: jax.Array) -> tuple:
        together = jax.tree.map(lambda *each: jnp.stack(each), *states)
        axes = (0, None, 0 if own_batches else None, 0)
        results = jax.vmap(function, in_axes=axes)(together, resident, chunk, num_steps)
        return tuple(jax.tree.map(lambda x, i=i: x[i], results) for i in range(len(states)))

    return program
