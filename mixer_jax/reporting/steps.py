"""The metrics of single training steps, evenly spaced, in steps.jsonl."""

import time
from collections.abc import Callable, Mapping, Sequence

from mixer_jax.errors import UserError
from mixer_jax.messages import warn
from mixer_jax.records import Epoch, StepMetrics
from mixer_jax.reporting.observer import Dispatch, Observer
from mixer_jax.run_directory import RunDirectory

POINTS = 1000  # about this many steps are logged, roughly one per pixel of a chart's width
SECONDS = 5.0  # between writes, because some disks are slow


def chosen_steps(total: int) -> range:
    """Return which of the `total` steps of a run are logged, counted from 1."""
    every = max(1, round(total / POINTS))
    return range(every, total + 1, every)


class StepObserver(Observer):
    """An observer of chosen steps."""

    def __init__(self, learning_rates: Mapping[int, float], lost: str):
        """Observe the steps that are keys of `learning_rates`; the warning of a failed write begins with `lost`."""
        self._learning_rates, self._lost, self._failed = learning_rates, lost, False

    def progress(self, dispatch: Dispatch) -> None:
        """Pass the chosen steps of the dispatch to `steps`."""
        chosen = [step for step in range(dispatch.first + 1, dispatch.step + 1) if step in self._learning_rates]
        if chosen:
            self.steps([self._metrics(dispatch, step) for step in chosen])

    def _metrics(self, dispatch: Dispatch, step: int) -> StepMetrics:
        columns = (dispatch.losses, dispatch.accuracies, dispatch.gradient_norms)
        values = (float(column[step - 1 - dispatch.first]) for column in columns)
        return StepMetrics(step, *values, self._learning_rates[step], round(dispatch.images_per_second, 1))

    def steps(self, metrics: Sequence[StepMetrics]) -> None:
        """Handle the metrics of consecutive chosen steps."""

    def attempt(self, write: Callable[[], None]) -> None:
        """Write, unless that has failed before; the first failure prints a warning."""
        if self._failed:
            return
        try:
            write()
        except (OSError, UserError) as error:
            warn(f"{self._lost}: {error}")
            self._failed = True


class StepLog(StepObserver):
    """An observer that writes the chosen steps to steps.jsonl; if that fails, it warns once and writes no more."""

    def __init__(self, run: RunDirectory, learning_rates: Mapping[int, float]):
        super().__init__(learning_rates, "steps.jsonl is no longer written")
        self._run = run
        self._unwritten: list[StepMetrics] = []
        self._wrote = time.monotonic()

    def started(self, history: Sequence[Epoch], step: int, compile_seconds: float) -> None:
        """Drop the lines that an earlier process wrote after its last checkpoint."""
        self.attempt(lambda: self._run.drop_steps_after(step))

    def steps(self, metrics: Sequence[StepMetrics]) -> None:
        """Buffer the metrics, and write the buffer every SECONDS seconds."""
        self._unwritten += metrics
        if time.monotonic() - self._wrote > SECONDS:
            self._flush()

    def epoch(self, record: Epoch, best: Epoch) -> None:
        self._flush()

    def saving(self) -> None:
        self._flush()

    def closed(self) -> None:
        self._flush()

    def _flush(self) -> None:
        if self._unwritten:
            unwritten, self._unwritten, self._wrote = self._unwritten, [], time.monotonic()
            self.attempt(lambda: self._run.append_steps(unwritten))
