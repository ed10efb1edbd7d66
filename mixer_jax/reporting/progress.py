"""The progress of training on the console, with a progress bar on terminals and plain lines elsewhere."""

import statistics
import sys
import time
from collections.abc import Sequence
from typing import TextIO

from tqdm import tqdm

from mixer_jax.records import Epoch
from mixer_jax.reporting.observer import Dispatch, Observer

PLAIN_LINE_SECONDS = 30.0  # interval of the lines within long epochs, without a bar
# For 80 columns. A star marks the best epoch so far.
HEADER = (
    f"{'epoch':>9} {'train loss':>10} {'accuracy':>9} {'val loss':>10} {'accuracy':>9}  {'images/s':>10} {'left':>9}"
)
SHOWN = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")


class ConsoleProgress(Observer):
    """An observer that prints the progress of a run of `num_epochs` and `total_steps`, with batches of `batch_size`."""

    def __init__(self, num_epochs: int, total_steps: int, batch_size: int, file: TextIO | None = None):
        self._num_epochs, self._total_steps, self._batch_size = num_epochs, total_steps, batch_size
        self._file = file or sys.stdout
        self._bar: tqdm | None = None
        self._spoke = time.monotonic()
        self._epoch, self._header = 1, HEADER

    def started(self, history: Sequence[Epoch], step: int, compile_seconds: float) -> None:
        """Print the table's header, and show a progress bar on a terminal."""
        self._say(f"Compiled in {compile_seconds:.1f} s")
        self._epoch = 1 + len(history)
        if step:
            self._say(f"Resuming at step {step} of {self._total_steps}, in {self._title()}")
        if step < self._total_steps:
            self._say(self._header)
        if self._file.isatty():
            self._bar = tqdm(
                total=self._total_steps,
                initial=step,
                file=self._file,
                dynamic_ncols=True,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {remaining} left{postfix}",
            )
            self._bar.set_description_str(self._title())

    def progress(self, dispatch: Dispatch) -> None:
        """Update the bar, or print a line every PLAIN_LINE_SECONDS."""
        loss, accuracy = float(dispatch.losses[-1]), float(dispatch.accuracies.mean())
        self._show(dispatch.step, loss, accuracy, dispatch.images_per_second)

    def _show(self, step: int, loss: float, accuracy: float, images_per_second: float) -> None:
        numbers = f"loss {loss:.4f}, accuracy {accuracy:.2f}%, {images_per_second:,.0f} images/s"
        if self._bar is not None:
            self._bar.set_postfix_str(numbers, refresh=False)
            self._bar.update(step - self._bar.n)
        elif time.monotonic() - self._spoke > PLAIN_LINE_SECONDS:
            left = (self._total_steps - step) * self._batch_size / images_per_second
            self._say(f"{self._title()}, step {step}/{self._total_steps}: {numbers}, {tqdm.format_interval(left)} left")

    def validating(self) -> None:
        """Show in the bar that validation is running."""
        if self._bar is not None:
            self._bar.set_postfix_str("validation")

    def note(self, line: str) -> None:
        """Print a line."""
        if self._bar is not None and self._bar.n >= self._total_steps:
            self.closed()  # so that no bar stays on the screen at 100%
        self._say(line)

    def epoch(self, record: Epoch, best: Epoch) -> None:
        """Print a row of the table."""
        self._row(record, "*" if best is record else " ")

    def _row(self, record: Epoch, mark: str, remark: str = "") -> None:
        self._epoch = record.epoch + 1
        left = (self._total_steps - record.step) * self._batch_size / record.images_per_second
        self._say(
            f"{f'{record.epoch}/{self._num_epochs}':>9} {record.train_loss:10.4f} {record.train_accuracy:8.2f}%"
            f" {record.val_loss:10.4f} {record.val_accuracy:8.2f}%{mark}"
            f" {record.images_per_second:10,.0f} {tqdm.format_interval(left):>9}{remark}"
        )
        if self._bar is not None:
            self._bar.set_description_str(self._title())

    def warning(self, message: str) -> None:
        """Print a warning to stderr."""
        tqdm.write(f"warning: {message}", file=sys.stderr)

    def closed(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _title(self) -> str:
        return f"epoch {min(self._epoch, self._num_epochs)}/{self._num_epochs}"

    def _say(self, line: str) -> None:
        self._spoke = time.monotonic()
        tqdm.write(line, file=self._file)
        self._file.flush()


class SeedsProgress(ConsoleProgress):
    """The progress of several seeds, shown as one run.

    Each line has means over the seeds, and the throughput of all of them together. A line appears when all seeds have
    reached its step or epoch. `batch_size` counts the images of all seeds; `observers` has an observer for each seed.
    """

    def __init__(self, num_epochs: int, total_steps: int, batch_size: int, seeds: Sequence[int]):
        super().__init__(num_epochs, total_steps, batch_size)
        self._of_seed, self._header = batch_size // len(seeds), f"{HEADER}   \u00b1val"
        self.observers = [_Seed(seed, self) for seed in seeds]
        self._shown, self._compiling, self._training = 0, False, len(seeds)

    def update(self) -> None:
        """Show the dispatches and epochs that all seeds in training have finished."""
        if any(seed.start is None for seed in self.observers):
            return
        if not self._shown:
            histories, steps, seconds = zip(*(seed.start for seed in self.observers), strict=True)
            self._shown = 1 + min(map(len, histories))
            self.started(min(histories, key=len), min(steps), max(seconds))
        going = [seed for seed in self.observers if not seed.over]
        if going and all(seed.last is not None for seed in going):
            last, self._batch_size = [seed.last for seed in going], self._of_seed * len(going)
            self._show(
                min(dispatch.step for dispatch in last),
                statistics.fmean(dispatch.losses[-1] for dispatch in last),
                statistics.fmean(dispatch.accuracies.mean() for dispatch in last),
                sum(dispatch.images_per_second for dispatch in last),
            )
            for seed in going:
                seed.last = None
        while any(self._shown in seed.epochs for seed in self.observers) and all(
            self._shown in seed.epochs or seed.over for seed in self.observers
        ):
            self._show_epoch(self._shown)
            self._shown += 1
        if not going:
            self.closed()

    def _show_epoch(self, epoch: int) -> None:
        trained = [seed.epochs[epoch] for seed in self.observers if epoch in seed.epochs]
        latest = [seed.epochs[min(epoch, max(seed.epochs))] for seed in self.observers if seed.epochs]
        values = {key: statistics.fmean(getattr(record, key) for record in latest) for key in SHOWN}
        remark = f" \u00b1{statistics.stdev(record.val_accuracy for record in latest):.2f}" if len(latest) > 1 else ""
        if len(trained) < self._training:
            self._training = len(trained)
            self.note(f"Still training: {len(trained)} of {len(self.observers)} seeds")
        self._batch_size = self._of_seed * len(trained)
        throughput = sum(record.images_per_second for record in trained)
        self._row(Epoch(epoch=epoch, step=trained[0].step, images_per_second=throughput, **values), " ", remark)

    def note_of(self, seed: int, line: str) -> None:
        """Print a line of a seed; "Compiling", which every seed reports, is printed once."""
        if line != "Compiling":
            self.note(f"seed {seed}: {line}")
        elif not self._compiling:
            self._compiling = True
            self.note(line)


class _Seed(Observer):
    """An observer that passes the events of one seed to a `SeedsProgress`."""

    def __init__(self, seed: int, shown: SeedsProgress):
        self.seed, self._shown = seed, shown
        self.start: tuple[Sequence[Epoch], int, float] | None = None
        self.last: Dispatch | None = None
        self.epochs: dict[int, Epoch] = {}
        self.over = False

    def started(self, history: Sequence[Epoch], step: int, compile_seconds: float) -> None:
        self.start = (tuple(history), step, compile_seconds)
        self.epochs = {record.epoch: record for record in history}
        self._shown.update()

    def progress(self, dispatch: Dispatch) -> None:
        self.last = dispatch
        self._shown.update()

    def epoch(self, record: Epoch, best: Epoch) -> None:
        self.epochs[record.epoch] = record
        self._shown.update()

    def note(self, line: str) -> None:
        self._shown.note_of(self.seed, line)

    def warning(self, message: str) -> None:
        self._shown.warning(f"seed {self.seed}: {message}")

    def closed(self) -> None:
        self.over = True
        self._shown.update()
