"""The tables of a comparison of runs with each other and with published numbers, and how they are written."""

import collections
import csv
import io
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm.utils import disp_len

from mixer_jax.config import default_config, flat
from mixer_jax.reporting.summary import duration
from mixer_jax.reporting.text import markdown_text
from mixer_jax.studies.rows import Row
from mixer_jax.studies.statistics import against_one, against_others, interval

TITLE_SHARE = 0.4  # of a terminal, the most for the titles
EXPLANATION = (
    "Accuracies in percent: mean ± standard deviation over seeds [95% confidence interval of the mean]. The verdict "
    "on a published number says whether it lies within the 95% prediction interval for one more run. The verdict "
    "between rows is that of Welch's t-test at the 5% level, not corrected for the number of comparisons."
)
# The columns of a comparison with their ranks: a terminal shows as many of the lowest as fit.
COLUMNS = {
    "model": 0, "parameters": 7, "epochs": 8, "seeds": 6, "published": 2, "test accuracy, last epoch": 1,
    "difference": 3, "verdict": 4, "test accuracy, best epoch": 5, "chosen on": 10, "training time, fastest run": 9,
}  # fmt: skip
OF_DIFFERENCES = {"model": 0, "compared with": 3, "chosen on": 4, "difference, 95% interval": 1, "verdict": 2}


def cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]], list[str]]:
    """Return the main table of a comparison: the names of the columns that are not empty, and the cells of each row.

    The footnotes, to which [1], [2], ... in the titles refer, are returned as well.
    """
    notes, table = list(dict.fromkeys(note for row in rows for note in row.notes)), []
    for row in rows:
        marks = (f"[{notes.index(note) + 1}]" for note in row.notes)
        published, values = row.published.get(row.against), row.accuracies(row.against)
        line = dict.fromkeys(COLUMNS, "")
        line["model"] = " ".join((row.title, *marks))
        if row.results or row.diverged:
            more = {"diverged": row.diverged, "not finished": row.unfinished}
            others = ", ".join(f"{len(seeds)} more {how}" for how, seeds in more.items() if seeds)
            line["seeds"] = f"{len(values)}{others and f' ({others})'}"
        if published is not None:
            line["published"] = f"{published:.2f}{' (best)' if row.against == 'best' else ''}"
        if row.results:
            first, epochs = row.results[0], [run.epochs for run in row.results]
            line |= {
                "epochs": " to ".join(f"{x:g}" for x in sorted({min(epochs), max(epochs)})),
                "test accuracy, last epoch": _with_interval(row.accuracies("last")),
                "test accuracy, best epoch": _with_interval(row.accuracies("best")),
                "chosen on": first.selected_on,
            }
            if published is not None:
                line["difference"] = f"{np.mean(values) - published:+.2f}"
                line["verdict"] = against_one(values, published)
        elif row.epochs is not None:
            line["epochs"] = f"{row.epochs:,}"
        line["parameters"] = "" if row.size is None else f"{row.size:,}"
        line["training time, fastest run"] = "" if row.seconds is None else duration(row.seconds)
        table.append(list(line.values()))
    full = [i for i in range(len(COLUMNS)) if i == 0 or any(line[i] for line in table)]
    return [list(COLUMNS)[i] for i in full], [[line[i] for i in full] for line in table], notes


def differences(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return a table of differences in the accuracy of the last epoch.

    Each row of several seeds is compared with the first such row that has the same data and chose its best epoch on the
    same split.
    """
    table, first = [], {}
    for row in filter(lambda row: len(row.results) > 1, rows):
        same = (row.results[0].selected_on, row.results[0].data_fingerprint)
        reference = first.setdefault(same, row)
        found = against_others(row.accuracies("last"), reference.accuracies("last")) if reference is not row else None
        if found:
            difference, half, verdict = found
            table.append([row.title, reference.title, same[0], f"{difference:+.2f} \u00b1 {half:.2f}", verdict])
    return list(OF_DIFFERENCES), table


def settings(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return a table of what is special in each row's config: the values that at most half of the rows share.

    Only rows with known settings count.
    """

    def text(value: Any) -> str:
        return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

    known = [row for row in rows if row.settings is not None]
    defaults = flat(default_config())
    shown = [(row.title, {key: text(x) for key, x in (defaults | row.settings).items()}) for row in known]
    counts = collections.Counter(field for _, one in shown for field in one.items())
    table = [
        [title, ", ".join(f"{key}={x}" for key, x in sorted(one.items()) if 2 * counts[key, x] <= len(shown))]
        for title, one in shown
    ]
    return ["model", "settings that at most half of the rows have"], table if any(line[1] for line in table) else []


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


def markdown(columns: Sequence[str], table: Sequence[Sequence[str]]) -> str:
    """Return a table in GitHub's Markdown."""
    lines = [[markdown_text(cell) for cell in line] for line in (columns, *table)]
    lines.insert(1, ["---"] * len(columns))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def latex(columns: Sequence[str], table: Sequence[Sequence[str]]) -> str:
    """Return a table in LaTeX, for the package booktabs."""
    escaped = {character: f"\\{character}" for character in "&%$#_{}"}
    escaped |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\u00b1": r"$\pm$"}
    escaped |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}

    def line(texts: Sequence[str]) -> str:
        cells = " & ".join("".join(escaped.get(character, character) for character in text) for text in texts)
        return f"{'{}' * cells.startswith(('[', '*'))}{cells} " + r"\\"  # after \\, [ and * would be its arguments

    body = [line(columns), r"\midrule", *map(line, table), r"\bottomrule"]
    begin = rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}"
    return "\n".join([begin, r"\toprule", *body, r"\end{tabular}", ""])


def plain(
    columns: Sequence[str], table: Sequence[Sequence[str]], width: int, ranks: Mapping[str, int] = COLUMNS
) -> str:
    """Return a table for a terminal; columns that do not fit are left out, those with the largest `ranks` first."""
    lines = [[_wrapped(cell, max(int(TITLE_SHARE * width), 24)) for cell in line] for line in (columns, *table)]
    widths = [max(disp_len(part) for cell in column for part in cell) for column in zip(*lines, strict=True)]
    by_importance = sorted(range(len(columns)), key=lambda i: ranks[columns[i]])
    shown: list[int] = []
    for i in by_importance:
        if not shown or sum(widths[j] + 2 for j in shown) + widths[i] <= width:
            shown.append(i)
    shown.sort()
    text = []
    for line in lines:
        for parts in itertools.zip_longest(*(line[i] for i in shown), fillvalue=""):
            padded = (part + " " * (widths[i] - disp_len(part)) for i, part in zip(shown, parts, strict=True))
            text.append("  ".join(padded).rstrip())
    return "\n".join(text)


def as_csv(rows: Sequence[Row]) -> str:
    """Return the numbers of a comparison as CSV, a line per row, unrounded."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow([
        "dataset", "model", "parameters", "epochs", "seeds", "diverged", "chosen_on", "published", "published_epoch",
        *(f"test_accuracy_{which}_{what}" for which in ("last", "best") for what in ("mean", "std", "half_interval")),
        "train_seconds",
    ])  # fmt: skip
    for row in rows:
        published = row.published.get(row.against, "")
        accuracies = [number for which in ("last", "best") for number in _numbers(row.accuracies(which))]
        epochs = np.mean([run.epochs for run in row.results]) if row.results else row.epochs
        writer.writerow([
            row.dataset, row.title, row.size, epochs, len(row.results), len(row.diverged), row.protocol, published,
            row.against if published != "" else "", *accuracies, row.seconds,
        ])  # fmt: skip
    return file.getvalue()


def _numbers(values: Sequence[float]) -> tuple[float | str | None, ...]:
    if len(values) < 2:
        return (values[0] if values else "", "", "")
    return float(np.mean(values)), float(np.std(values, ddof=1)), interval(values)


def _wrapped(text: str, width: int) -> list[str]:
    """Return a text as lines of at most `width` columns of a terminal; some characters take two."""
    return textwrap.wrap(text, width if disp_len(text) == len(text) else width // 2) or [""]


def _with_interval(values: Sequence[float]) -> str:
    mean, std, half = _numbers(values)
    return f"{mean:.2f}" + (f" \u00b1 {std:.2f} [{mean - half:.2f}, {mean + half:.2f}]" if len(values) > 1 else "")
