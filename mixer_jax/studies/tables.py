"""The tables of a comparison of runs with each other and with published numbers."""

from collections.abc import Sequence

import numpy as np

from mixer_jax.reporting.summary import duration
from mixer_jax.studies.rows import Row
from mixer_jax.studies.statistics import against_one, against_others, interval


def cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]], list[str]]:
    """Return the main table of a comparison.

    Args:
      rows: of the comparison.

    Returns:
      The column names, the cells of each row, and the footnotes to which [1], [2], ... in the titles refer.
    """
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
        first, epochs = row.results[0], [run.epochs for run in row.results]
        table.append(
            [
                title,
                f"{first.num_params:,}",
                " to ".join(f"{x:g}" for x in sorted({min(epochs), max(epochs)})),
                seeds,
                published_cell,
                _with_interval(row.accuracies("last")),
                f"{np.mean(values) - published:+.2f}" if known else "",
                against_one(values, published) if known else "",
                _with_interval(row.accuracies("best")),
                first.selected_on,
                duration(row.seconds),
            ]
        )
    return columns, table, notes


def differences(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return a table of differences in the accuracy of the last epoch.

    Each row is compared with the first row that has the same data and chose its best epoch on the same split.

    Args:
      rows: of the comparison.

    Returns:
      The column names, and the cells of each row.
    """
    table, first = [], {}
    for row in filter(lambda row: row.results, rows):
        same = (row.results[0].selected_on, row.results[0].data_fingerprint)
        reference = first.setdefault(same, row)
        found = against_others(row.accuracies("last"), reference.accuracies("last")) if reference is not row else None
        if found:
            difference, half, verdict = found
            table.append([row.title, reference.title, same[0], f"{difference:+.2f} \u00b1 {half:.2f}", verdict])
    return ["model", "compared with", "chosen on", "difference, 95% interval", "verdict"], table


def circumstances(rows: Sequence[Row]) -> list[str]:
    """Return lines that describe data and hardware; if they differ, each line ends with the titles of its rows."""
    kinds: dict[str, list[str]] = {}
    for row in rows:
        for run in row.results:
            framework = next(name for name in ("torch", "jax") if name in run.versions)
            line = (
                f"{run.dataset}, data fingerprint {run.data_fingerprint}, {run.test_examples:,} test images; "
                f"{run.devices} x {run.device_kind}, {run.dtype}, {framework} {run.versions[framework]}"
            )
            if row.title not in (titles := kinds.setdefault(line, [])):
                titles.append(row.title)
    if len(kinds) == 1:
        return list(kinds)
    return [f"{line}: {'; '.join(titles)}" for line, titles in kinds.items()]


EXPLANATION = (
    "Accuracies in percent: mean ± standard deviation over seeds [95% confidence interval of the mean]. The verdict"
    " on a published number asks whether that one run could be one of these (95% prediction interval); against "
    "other runs it is Welch's t-test at 95%, not corrected for the number of comparisons."
)


def markdown(columns: Sequence[str], table: Sequence[Sequence[str]]) -> str:
    """Return a table in GitHub's Markdown."""
    lines = [columns, ["---"] * len(columns), *table]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _with_interval(values: Sequence[float]) -> str:
    half = interval(values)
    if half is None:
        return f"{values[0]:.2f}"
    mean, std = np.mean(values), np.std(values, ddof=1)
    return f"{mean:.2f} \u00b1 {std:.2f} [{mean - half:.2f}, {mean + half:.2f}]"
