"""Comparisons of runs: tables, plots and an HTML page in a folder."""

import dataclasses
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from mixer_jax.errors import UserError, printable
from mixer_jax.reporting import page
from mixer_jax.reporting.charts import controls
from mixer_jax.reporting.text import markdown_text
from mixer_jax.storage import write_json, write_text, writing
from mixer_jax.studies import charts, tables
from mixer_jax.studies.plots import plot_costs, plot_curves
from mixer_jax.studies.rows import Row, datasets, merged, read_rows, to_json

PICTURES = {"curves.png": plot_curves, "costs.png": plot_costs}
TEXTS = ("comparison.md", "comparison.html", "comparison.csv", "comparison.tex", "comparison.json")
WRITTEN = (*PICTURES, *TEXTS)


def compare(paths: Sequence[Path], output: Path, merge: bool = False, only: str = "") -> str:
    """Compare runs, and write the comparison to a folder.

    Args:
      paths: run directories, study directories and comparison.json files.
      output: the folder.
      merge: whether to merge rows of the same title that were trained by the same recipe on the same data. Otherwise,
        rows of the same title from several paths are told apart by their paths.
      only: a regular expression; rows whose titles do not match are left out.

    Returns:
      The comparison as text for a terminal, and the paths of the files.

    Raises:
      UserError: before anything is written, if there is no run to compare, a path cannot be read, rows to merge share a
        seed, or the folder contains one of the paths or anything other than an earlier comparison.
    """
    require_free(output, paths)
    paths = list({path.resolve(): path for path in paths}.values())
    read = [(path, row) for path in paths for row in read_rows(path)]
    if only:
        try:
            read = [(path, row) for path, row in read if re.search(only, row.title)]
        except re.error as error:
            raise UserError(f"{only!r} is not a regular expression: {error}") from error
        if not read:
            raise UserError(f"no row has a title that matches {only!r}")
    rows = merged([row for _, row in read]) if merge else _told_apart(read)
    if not rows:
        raise UserError(f"no run in {', '.join(map(str, paths))} is finished yet")
    known = {row.dataset for row in rows if row.dataset}
    if len(known) == 1:  # in a file of an older release, a row without results does not name its dataset
        rows = [row if row.dataset else dataclasses.replace(row, of_dataset=min(known)) for row in rows]
    # A comparison.json is named after its folder.
    folders = (path.resolve().parent if path.name == TEXTS[-1] else path.resolve() for path in paths)
    names = (printable(path.stem if path.suffix == ".json" else path.name) for path in folders)
    title = ", ".join(dict.fromkeys(names))
    names = datasets(rows)
    sections = [(name if len(names) > 1 else "", [row for row in rows if row.dataset == name]) for name in names]
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        for file, draw in PICTURES.items():
            if not draw(rows, output / file, title):
                (output / file).unlink(missing_ok=True)  # from an earlier comparison
        write_text(output / "comparison.md", f"# {title}\n\n" + "\n\n".join(_markdown(*each) for each in sections))
        write_text(output / "comparison.tex", "\n".join(_latex(*each) for each in sections))
        write_text(output / "comparison.csv", tables.as_csv(rows))
        parts = [part for name, of_dataset in sections for part in _page(name, of_dataset)]
        write_text(output / "comparison.html", page.page(title, parts))
        write_json(output / "comparison.json", {"rows": list(map(to_json, rows))})
    width = shutil.get_terminal_size().columns
    text = "\n\n".join(_text(*each, width) for each in sections)
    return f"{text}\n\n{output}/{', '.join(TEXTS)}"


def _told_apart(read: Sequence[tuple[Path, Row]]) -> list[Row]:
    """If a title occurs under several paths, append the part of the path that differs."""
    paths: dict[str, set[Path]] = {}
    for path, row in read:
        paths.setdefault(row.title, set()).add(path.absolute())
    told_apart = []
    for path, row in read:
        if len(same := paths[row.title]) > 1:
            part = path.absolute().relative_to(os.path.commonpath(same))
            row = dataclasses.replace(row, title=f"{row.title} ({printable(part)})")
        told_apart.append(row)
    return told_apart


def _markdown(name: str, rows: Sequence[Row]) -> str:
    columns, table, notes = tables.cells(rows)
    text = [f"## {name}"] if name else []
    text += [tables.markdown(columns, table), tables.EXPLANATION, *tables.circumstances(rows)]
    text += ["\n".join(f"{i}. {markdown_text(note)}" for i, note in enumerate(notes, 1))] if notes else []
    text += [tables.markdown(*each) for each in (tables.differences(rows), tables.settings(rows)) if each[1]]
    return "\n\n".join(text) + "\n"


def _latex(name: str, rows: Sequence[Row]) -> str:
    columns, table, notes = tables.cells(rows)
    comments = [f"% {name}"] if name else []
    comments += [f"% [{i}] {note}" for i, note in enumerate(notes, 1)]
    return "\n".join([*comments, tables.latex(columns, table)])


def _text(name: str, rows: Sequence[Row], width: int) -> str:
    columns, table, notes = tables.cells(rows)
    text = [f"{name}\n" if name else "", tables.plain(columns, table, width)]
    text += [f"[{i}] {note}" for i, note in enumerate(notes, 1)]
    compared_columns, compared = tables.differences(rows)
    text += ["", tables.plain(compared_columns, compared, width, tables.OF_DIFFERENCES)] if compared else []
    if any("\u00b1" in cell for line in table for cell in line):
        text.append(tables.EXPLANATION)
    return "\n".join([*text, *tables.circumstances(rows)]).strip("\n")


def _page(name: str, rows: Sequence[Row]) -> list[str]:
    """Return the page's parts on a dataset: its table, and charts for each way to choose the best epoch."""
    columns, table, notes = tables.cells(rows)
    parts, level = ([page.heading(name)], 3) if name else ([], 2)
    parts += [page.table(columns, table, sortable=True, cards=True), page.paragraph(tables.EXPLANATION, "muted")]
    parts += [page.paragraph(line) for line in tables.circumstances(rows)]
    parts += [page.heading("Notes", level), page.numbered(notes)] if notes else []
    for protocol in dict.fromkeys(row.protocol for row in rows if row.curves):
        # Published numbers have no protocol of their own.
        of_protocol = [row for row in rows if row.protocol == protocol or not (row.curves or row.results)]
        if drawn := charts.curves(of_protocol):
            parts.append(page.heading(f"Learning curves, best epoch chosen on {protocol}", level))
            parts.append(page.charts(drawn, controls(charts.AXES, names=len(of_protocol) > 4)))
    if drawn := charts.costs(rows):
        parts += [page.heading("Accuracy and what it costs", level), page.charts(drawn)]
    both = {"Compared with each other": tables.differences(rows), "Settings": tables.settings(rows)}
    for heading, (columns, table) in both.items():
        parts += [page.heading(heading, level), page.table(columns, table, cards=True)] if table else []
    return parts


def require_free(output: Path, paths: Sequence[Path] = ()) -> None:
    """Require that a folder can receive a comparison.

    Args:
      output: the folder, which need not exist.
      paths: the paths to be compared.

    Raises:
      UserError: if the folder contains one of the paths, or anything other than an earlier comparison.
    """
    try:
        there = {path.name for path in output.iterdir() if path.name[0] != "."} if output.exists() else set()
    except OSError as error:
        raise UserError(f"cannot use {output}: {error.strerror}") from error
    if foreign := sorted(there.difference(WRITTEN)):
        raise UserError(f"{output} holds other files ({foreign[0]}, ...): choose another output")
    if any(path.resolve().parent == output.resolve() for path in paths):
        raise UserError(f"{output} contains one of the paths to compare: choose another output")
