"""Runs beside each other and beside published numbers: what the differences are worth, as tables."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixer_jax.reporting.summary import duration

LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Row:
    """Runs that differ in their seed only.

    Attributes:
      title: what was trained.
      results: results.json of each run, what they have in common is read from the first; none for what is only
        published.
      histories: metrics.jsonl of each.
      published: "last" and "best", accuracies in percent of the last epoch and of the best one, as far as published.
      notes: footnotes.
      num_params, epochs, selected_on: of what is only published, or not finished, where they are known.
      diverged: how many more runs have no result, because their loss became infinite or no number.
      recipe: tells rows apart that were trained otherwise, where it is known.
    """

    title: str
    results: Sequence[Mapping[str, Any]]
    histories: Sequence[Sequence[Mapping[str, Any]]] = ()
    published: Mapping[str, float] = dataclasses.field(default_factory=dict)
    notes: Sequence[str] = ()
    num_params: int | None = None
    epochs: float | None = None
    diverged: int = 0
    recipe: str = ""
    selected_on: str = ""

    @property
    def protocol(self) -> str:
        """What the best epoch is chosen on, where it is known."""
        return self.results[0]["selected_on"] if self.results else self.selected_on

    def accuracies(self, which: str) -> list[float]:
        """Test accuracies in percent, of the "last" epoch or of the "best"."""
        return [result["last_test_accuracy" if which == "last" else "test_accuracy"] for result in self.results]

    @property
    def seconds(self) -> float:
        """Training time of the fastest run: what else a machine had to do only adds to it."""
        return min(result["train_seconds"] for result in self.results)

    @property
    def against(self) -> str:
        """Which of the two a published number is compared with: where both are known the last, which nobody chose."""
        return "best" if "last" not in self.published and "best" in self.published else "last"


def interval(values: Sequence[float]) -> float | None:
    """Half the width of the 95% confidence interval of the mean (Student's t); None for a single value."""
    return _quantile(len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else None


def against_one(values: Sequence[float], published: float) -> str:
    """What can be said of several runs beside a single published one, which is a draw of its own.

    "higher" or "lower" where it lies outside the 95% prediction interval for one more run like these.
    """
    if len(values) < 2:
        return "one seed: no verdict"
    spread = float(np.std(values, ddof=1))
    half = _quantile(len(values) - 1) * spread * math.sqrt(1 + 1 / len(values))
    return _verdict(float(np.mean(values)) - published, half)


def against_others(values: Sequence[float], others: Sequence[float]) -> tuple[float, float, str] | None:
    """The difference of two means, half the width of its 95% interval (Welch), and a verdict; None of single values."""
    if min(len(values), len(others)) < 2:
        return None
    parts = [np.var(x, ddof=1) / len(x) for x in (values, others)]
    difference, total = float(np.mean(values) - np.mean(others)), sum(parts)
    if total == 0.0:
        return difference, 0.0, _verdict(difference, 0.0)
    freedom = total**2 / sum(part**2 / (len(x) - 1) for part, x in zip(parts, (values, others), strict=True))
    half = _quantile(freedom) * math.sqrt(total)
    return difference, half, _verdict(difference, half)


def _verdict(difference: float, half: float) -> str:
    if abs(difference) <= half:
        return "not distinguishable"
    return "higher" if difference > 0 else "lower"


def _quantile(freedom: float) -> float:
    from scipy import stats  # only here: it is slow to import

    return float(stats.t.ppf((1 + LEVEL) / 2, freedom))


def cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]], list[str]]:
    """The table: its columns, its rows, and footnotes, to which [1], [2], ... in the titles refer."""
    columns = ["model", "parameters", "epochs", "seeds", "published", "test accuracy, last epoch", "difference"]
    columns += ["verdict", "test accuracy, best epoch", "chosen on", "training time, fastest run"]
    notes, table = [], []
    for row in rows:
        marks = []
        for note in row.notes:
            if note not in notes:
                notes.append(note)
            marks.append(f"[{notes.index(note) + 1}]")
        published, values = row.published.get(row.against), row.accuracies(row.against)
        known, title = published is not None, " ".join((row.title, *marks))
        seeds = f"{len(row.results)} ({row.diverged} more diverged)" if row.diverged else str(len(row.results))
        published_cell = f"{published:.2f}{' (best)' if row.against == 'best' else ''}" if known else ""
        if not row.results:
            sizes = ("" if number is None else f"{number:,}" for number in (row.num_params, row.epochs))
            table.append([title, *sizes, seeds if row.diverged else "", published_cell, *[""] * 6])
            continue
        first, epochs = row.results[0], [result["epochs"] for result in row.results]
        table.append(
            [
                title,
                f"{first['num_params']:,}",
                " to ".join(f"{x:g}" for x in sorted({min(epochs), max(epochs)})),
                seeds,
                published_cell,
                _with_interval(row.accuracies("last")),
                f"{np.mean(values) - published:+.2f}" if known else "",
                against_one(values, published) if known else "",
                _with_interval(row.accuracies("best")),
                first["selected_on"],
                duration(row.seconds),
            ]
        )
    return columns, table, notes


def differences(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Each row beside the first that was trained as it was: what the accuracy of the last epoch differs by."""
    table, first = [], {}
    for row in filter(lambda row: row.results, rows):
        same = (row.results[0]["selected_on"], row.results[0]["data_fingerprint"])
        reference = first.setdefault(same, row)
        found = against_others(row.accuracies("last"), reference.accuracies("last")) if reference is not row else None
        if found:
            difference, half, verdict = found
            table.append([row.title, reference.title, same[0], f"{difference:+.2f} \u00b1 {half:.2f}", verdict])
    return ["model", "beside", "chosen on", "difference, 95% interval", "verdict"], table


def circumstances(rows: Sequence[Row]) -> list[str]:
    """Lines that say on what data and hardware, each with the rows it is of unless it is of all."""
    kinds: dict[str, list[str]] = {}
    for row in rows:
        for result in row.results:
            framework = next(name for name in ("torch", "jax") if name in result["versions"])
            line = (
                f"{result['dataset']}, data fingerprint {result['data_fingerprint']}, {result['test_examples']:,} test "
                f"images; {result['devices']} x {result['device_kind']}, {result['dtype']}, {framework} "
                f"{result['versions'][framework]}"
            )
            if row.title not in (titles := kinds.setdefault(line, [])):
                titles.append(row.title)
    if len(kinds) == 1:
        return list(kinds)
    return [f"{line}: {'; '.join(titles)}" for line, titles in kinds.items()]


EXPLANATION = (
    "Accuracies in percent: mean ± standard deviation over seeds [95% confidence interval of the mean]. The verdict"
    " beside a published number asks whether that one run could be one of these (95% prediction interval); beside "
    "other runs it is Welch's t-test at 95%, not corrected for the number of comparisons."
)


def markdown(columns: Sequence[str], table: Sequence[Sequence[str]]) -> str:
    """A table in GitHub's Markdown."""
    lines = [columns, ["---"] * len(columns), *table]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _with_interval(values: Sequence[float]) -> str:
    half = interval(values)
    if half is None:
        return f"{values[0]:.2f}"
    mean, std = np.mean(values), np.std(values, ddof=1)
    return f"{mean:.2f} \u00b1 {std:.2f} [{mean - half:.2f}, {mean + half:.2f}]"
