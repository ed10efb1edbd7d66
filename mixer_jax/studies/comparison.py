"""Comparisons of runs: tables, plots and an HTML page in a folder."""

from collections.abc import Sequence
from pathlib import Path

from mixer_jax.errors import UserError
from mixer_jax.reporting import page
from mixer_jax.storage import write_json, writing
from mixer_jax.studies import tables
from mixer_jax.studies.plots import plot_costs, plot_curves
from mixer_jax.studies.rows import merged, read_rows, to_json

WRITTEN = ("curves.png", "costs.png", "comparison.md", "comparison.html", "comparison.json")
# The plotting function, the file, its heading and its description.
PICTURES = (
    (plot_curves, "curves.png", "Learning curves", "validation accuracy over the epochs"),
    (plot_costs, "costs.png", "Accuracy and what it costs", "test accuracy against parameters and minutes"),
)


def compare(paths: Sequence[Path], output: Path, merge: bool = False) -> str:
    """Compare runs, and write the comparison to a folder.

    Args:
      paths: run directories, study directories and comparison.json files.
      output: the folder.
      merge: whether to merge rows of the same title that were trained by the same recipe on the same data.

    Returns:
      The comparison as Markdown, and the paths of the files.

    Raises:
      UserError: before anything is written, if there is no run to compare, a path cannot be read, rows to merge share a
        seed, or the folder contains one of the paths or anything other than an earlier comparison.
    """
    require_free(output, paths)
    rows = [row for path in paths for row in read_rows(path)]
    if merge:
        rows = merged(rows)
    if not rows:
        raise UserError(f"no run in {', '.join(map(str, paths))} is finished yet")
    # A comparison.json is named after its folder.
    names = (path.resolve().parent.name if path.name == WRITTEN[-1] else path.resolve().name for path in paths)
    title = ", ".join(dict.fromkeys(names))
    columns, table, notes = tables.cells(rows)
    beside_columns, beside = tables.differences(rows)
    where = tables.circumstances(rows)
    text = [tables.markdown(columns, table), tables.EXPLANATION, *where]
    parts = [page.table(columns, table), *map(page.paragraph, (tables.EXPLANATION, *where))]
    if notes:
        text.append("\n".join(f"{i}. {note}" for i, note in enumerate(notes, 1)))
        parts += [page.heading("Notes"), page.numbered(notes)]
    if beside:
        text.append(tables.markdown(beside_columns, beside))
        parts += [page.heading("Compared with each other"), page.table(beside_columns, beside)]
    text = "\n\n".join(text)
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        for draw, file, heading, described in PICTURES:
            if draw(rows, output / file, title):
                parts.append(page.heading(heading))
                parts.append(page.image((output / file).read_bytes(), described))
            else:
                (output / file).unlink(missing_ok=True)  # from an earlier comparison
        (output / "comparison.md").write_text(f"# {title}\n\n{text}\n")
        (output / "comparison.html").write_text(page.page(title, parts))
        write_json(output / "comparison.json", {"rows": list(map(to_json, rows))})
    return f"{text}\n\n{output}/comparison.md, comparison.html, comparison.json"


def require_free(output: Path, paths: Sequence[Path] = ()) -> None:
    """Require that a folder can receive a comparison.

    Args:
      output: the folder, which need not exist.
      paths: the paths to be compared.

    Raises:
      UserError: if the folder contains one of the paths, or anything other than an earlier comparison.
    """
    try:
        there = {path.name for path in output.glob("[!.]*")} if output.is_dir() else set()
    except OSError as error:
        raise UserError(f"cannot use {output}: {error.strerror}") from error
    if foreign := sorted(there.difference(WRITTEN)):
        raise UserError(f"{output} holds other files ({foreign[0]}, ...): choose another output")
    if any(path.resolve().parent == output.resolve() for path in paths):
        raise UserError(f"{output} holds what is to be compared: choose another output")
