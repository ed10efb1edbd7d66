"""What a run shows on the console while it trains: a progress bar on a terminal, plain lines elsewhere."""

import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO

from tqdm import tqdm

PLAIN_LINE_SECONDS = 30.0  # without a bar, how often a long epoch gives a sign of life
# For 80 columns; a star is at the best epoch so far.
HEADER = (
    f"{'epoch':>9} {'train loss':>10} {'accuracy':>9} {'val loss':>10} {'accuracy':>9}  {'images/s':>10} {'left':>9}"
)
SHOWN = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")


class ConsoleProgress:
    """Follows a run as an observer of `mixer_jax.training`; of several runs at once it shows the mean.

    Attributes:
      num_epochs: in the whole run.
      total_steps: in the whole run.
      batch_size: images a step, of all runs.
    """

    def __init__(self, num_epochs: int, total_steps: int, batch_size: int, file: TextIO | None = None):
        self.num_epochs = num_epochs
        self.total_steps = total_steps
        self.batch_size = batch_size
        self._file = file or sys.stdout
        self._bar: tqdm | None = None
        self._spoke = time.monotonic()
        self._epoch = 1

    def started(self, histories: Sequence[list[dict[str, Any]]], step: int, compile_seconds: float) -> None:
        self._say(f"Compiled in {compile_seconds:.1f} s")
        self._epoch = 1 + max(map(len, histories))
        if step:
            self._say(f"Going on from step {step} of {self.total_steps}, in {self._title()}")
        if step < self.total_steps:
            self._say(HEADER)
        if self._file.isatty():
            self._bar = tqdm(
                total=self.total_steps,
                initial=step,
                file=self._file,
                dynamic_ncols=True,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {remaining} left{postfix}",
            )
            self._bar.set_description_str(self._title())

    def progress(self, step: int, loss: float, accuracy: float, images_per_second: float) -> None:
        numbers = f"loss {loss:.4f}, accuracy {accuracy:.2f}%, {images_per_second:,.0f} images/s"
        if self._bar is not None:
            self._bar.set_postfix_str(numbers, refresh=False)
            self._bar.update(step - self._bar.n)
        elif time.monotonic() - self._spoke > PLAIN_LINE_SECONDS:
            left = (self.total_steps - step) * self.batch_size / images_per_second
            self._say(f"{self._title()}, step {step}/{self.total_steps}: {numbers}, {tqdm.format_interval(left)} left")

    def validating(self) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str("validation")

    def note(self, line: str) -> None:
        if self._bar is not None and self._bar.n >= self.total_steps:
            self.closed()  # not a bar of 100% that waits
        self._say(line)

    def epoch(self, latest: Sequence[dict[str, Any]], best: Sequence[dict[str, Any]]) -> None:
        epoch = max(record["epoch"] for record in latest)
        self._epoch = epoch + 1
        going = [record for record in latest if record["epoch"] == epoch]
        images_per_second = len(going) * going[0]["images_per_second"]
        left = (self.total_steps - going[0]["step"]) * self.batch_size / images_per_second
        mean = {key: statistics.fmean(record[key] for record in latest) for key in SHOWN}
        note = "*" if best[0] is latest[0] else " "
        if len(latest) > 1:
            spread = statistics.stdev(record["val_accuracy"] for record in latest)
            note = f"   \u00b1{spread:.2f}" + f" {len(going)} of {len(latest)} go on" * (len(going) < len(latest))
        self._say(
            f"{f'{epoch}/{self.num_epochs}':>9} {mean['train_loss']:10.4f} {mean['train_accuracy']:8.2f}%"
            f" {mean['val_loss']:10.4f} {mean['val_accuracy']:8.2f}%{note[:1]}"
            f" {images_per_second:10,.0f} {tqdm.format_interval(left):>9}{note[1:]}"
        )
        if self._bar is not None:
            self._bar.set_description_str(self._title())

    def warning(self, message: str) -> None:
        tqdm.write(f"warning: {message}", file=sys.stderr)

    def closed(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _title(self) -> str:
        return f"epoch {min(self._epoch, self.num_epochs)}/{self.num_epochs}"

    def _say(self, line: str) -> None:
        self._spoke = time.monotonic()
        tqdm.write(line, file=self._file)
        self._file.flush()
