"""Interleaved measurements of several workloads, so that other load on the machine affects all of them alike."""

import contextlib
import dataclasses
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tqdm import tqdm


@dataclasses.dataclass(frozen=True)
class Work:
    """A workload to measure.

    Attributes:
      run: executes the workload the given number of times, and returns when it is complete.
      images: images per device per execution; 0 if the workload does not process images.
      flops: floating-point operations of the matrix products per device per execution; 0 if not counted.
      beside: the name of this library's workload to compare with; None for this library's own workloads.
      fewest: the minimum number of executions per measurement.
      around: returns a context manager that is active while the workload runs.
    """

    run: Callable[[int], Any]
    images: float = 0
    flops: float = 0
    beside: str | None = None
    fewest: int = 1
    around: Callable[[], Any] = contextlib.nullcontext


def measure(works: Mapping[str, Work], rounds: int, at_least: float) -> dict[str, list[float]]:
    """Measure workloads alternately, each once per round.

    Args:
      works: the workloads by name, already warmed up.
      rounds: measurements of each workload.
      at_least: the minimum duration of a measurement in seconds; a first round, not reported, determines the number of
        repetitions.

    Returns:
      By name, the seconds per execution in each round.
    """
    times: dict[str, int] = {}
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for round_ in tqdm(range(rounds + 1), "rounds", leave=False, disable=None):
        for name, work in works.items():
            with work.around():
                work.run(1)  # lets background activity of the previous workload end
                start = time.perf_counter()
                work.run(times.get(name, 1))
                taken = (time.perf_counter() - start) / times.get(name, 1)
            if round_ == 0:  # only sets the number of repetitions
                times[name] = max(math.ceil(at_least / taken), work.fewest)
            else:
                seconds[name].append(taken)
    return seconds


def on_one_core(work: Work, beside: str | None = None) -> Work:
    """Return the same workload with all threads of this process on one core; Linux only. `beside` is as in `Work`."""

    def move(cores: set[int]) -> None:
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread), cores)

    @contextlib.contextmanager
    def around() -> Iterator[None]:
        before = os.sched_getaffinity(0)
        with work.around(), contextlib.ExitStack() as stack:
            stack.callback(move, before)
            move({min(before)})
            yield

    return dataclasses.replace(work, around=around, beside=beside)


def ratio(seconds: Mapping[str, list[float]], over: str, under: str) -> list[float]:
    """Return the time of the workload `over` divided by that of `under`, round by round."""
    return [a / b for a, b in zip(seconds[over], seconds[under], strict=True)]


def spread(values: list[float]) -> dict[str, float]:
    """Return the median, the minimum and the maximum of values."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
