"""Measuring in turns: whatever else the machine does meets all that is compared alike."""

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
    """Something to measure.

    Attributes:
      run: does it so many times, to the end.
      images: that a device takes each time; 0 where it is not about images.
      flops: floating-point operations of a device's matrix products each time; 0 where they are not counted.
      beside: name of the work of ours that it is compared with, if it is not ours.
      fewest: times that it is done in a row.
      around: what holds while it runs.
    """

    run: Callable[[int], Any]
    images: float = 0
    flops: float = 0
    beside: str | None = None
    fewest: int = 1
    around: Callable[[], Any] = contextlib.nullcontext


def measure(works: Mapping[str, Work], rounds: int, at_least: float) -> dict[str, list[float]]:
    """Runs all works, already warm, in turns.

    Args:
      works: by name.
      rounds: how often each is measured.
      at_least: seconds that each of these takes.

    Returns:
      By name the seconds that it took once, round by round.
    """
    times: dict[str, int] = {}
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for round_ in tqdm(range(rounds + 1), "rounds", leave=False, disable=None):
        for name, work in works.items():
            with work.around():
                work.run(1)  # meanwhile what the last one left running comes to its end
                start = time.perf_counter()
                work.run(times.get(name, 1))
                taken = (time.perf_counter() - start) / times.get(name, 1)
            if round_ == 0:  # only tells how often it fits into `at_least`
                times[name] = max(math.ceil(at_least / taken), work.fewest)
            else:
                seconds[name].append(taken)
    return seconds


def on_one_core(work: Work, beside: str | None = None) -> Work:
    """The same work with all threads of this process on one core, `beside` another; Linux only."""

    @contextlib.contextmanager
    def around() -> Iterator[None]:
        with work.around(), _one_core():
            yield

    return dataclasses.replace(work, around=around, beside=beside)


@contextlib.contextmanager
def _one_core() -> Iterator[None]:

    def move(cores: set[int]) -> None:
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread), cores)

    before = os.sched_getaffinity(0)
    move({min(before)})
    try:
        yield
    finally:
        move(before)


def ratio(seconds: Mapping[str, list[float]], over: str, under: str) -> list[float]:
    """How many times as long the one took as the other, round by round."""
    return [a / b for a, b in zip(seconds[over], seconds[under], strict=True)]


def spread(values: list[float]) -> dict[str, float]:
    """The median, the least and the most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
