"""Compares runs and published numbers: python -m mixer_jax.compare RUN_OR_STUDY ... [--output DIR] [--merge]

Each path is a run directory (of one seed or several), a study's, or a comparison.json that this command wrote; numbers
that others published are in configs/results/published_cifar10.json. With --merge, rows of one title that were trained
by the same recipe are one row of all their seeds: of a study that several machines had a part in. Prints a table in
Markdown and writes comparison.md, .html, .json, curves.png and, of models of several sizes, costs.png.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from mixer_jax import cli
from mixer_jax.config import default_config, flat
from mixer_jax.data import selected_on
from mixer_jax.errors import UserError
from mixer_jax.output import define_flags, require_new
from mixer_jax.reporting import comparison, page
from mixer_jax.reporting.comparison import Row
from mixer_jax.reporting.comparison_plots import plot_costs, plot_curves
from mixer_jax.run_directory import ENDING, MAY_CHANGE, RunDirectory
from mixer_jax.storage import write_json, writing

STUDY_FILE = "study.json"
WRITTEN = ("curves.png", "costs.png", "comparison.md", "comparison.html", "comparison.json")
# Of results.json, what a comparison needs and what tells where it is from.
KEPT = (
    "dataset", "model", "num_params", "seed", "epochs", "best_epoch", "val_accuracy", "val_loss", "test_accuracy",
    "test_loss", "test_examples", "last_test_accuracy", "last_test_loss", "selected_on", "train_seconds", "devices",
    "device_kind", "dtype", "data_fingerprint", "versions",
)  # fmt: skip
SOMETIMES = ("recipe", "diverged", "num_params", "epochs", "selected_on")  # what a row may have beside its results
# Of a config, what is of the seed, or of the machine and how it gets there.
NOT_THE_RECIPE = {
    "seed", "num_seeds", "accumulation_steps", "dtype", "eval_batch_size", "dataset.hold_out", *MAY_CHANGE,
}.difference(ENDING)  # fmt: skip

# What draws, the file, its heading and what it shows.
PICTURES = (
    (plot_curves, "curves.png", "Learning curves", "validation accuracy over the epochs"),
    (plot_costs, "costs.png", "Accuracy and what it costs", "test accuracy beside parameters and minutes"),
)


def main(argv: list[str]) -> int:
    """Parses the command line and compares; returns the exit code."""
    values, paths = cli.parse_flags(argv, _define_flags, __doc__, num_paths=None)
    return compare([Path(path) for path in paths], Path(values.output or "comparison"), values.merge, values.overwrite)


def _define_flags(values: flags.FlagValues) -> None:
    define_flags(values, "folder for the results; by default comparison")
    flags.DEFINE_boolean("merge", False, "rows of one title, trained alike, are one of all seeds", flag_values=values)


def compare(paths: Sequence[Path], output: Path, merge: bool = False, overwrite: bool = False) -> int:
    """Prints the comparison of what is in these paths, and writes it to a folder; returns the exit code.

    Args:
      paths: of runs, studies and comparison.json.
      output: the folder.
      merge: make one row of those that have a title in common and were trained alike.
      overwrite: an earlier comparison that is there.

    Raises:
      UserError: before anything is written, if one of the paths holds no finished run, or two to merge the same seed,
        or the folder holds one of the paths or anything but an earlier comparison.
    """
    require_free(output, paths)
    require_new((output / name for name in WRITTEN), overwrite)
    rows = [row for path in paths for row in _rows(path)]
    if merge:
        rows = _merged(rows)
    if not rows:
        raise UserError(f"no run in {', '.join(map(str, paths))} is finished yet")
    # What this command wrote is called as its folder.
    names = (path.resolve().parent.name if path.name == WRITTEN[-1] else path.resolve().name for path in paths)
    title = ", ".join(dict.fromkeys(names))
    columns, table, notes = comparison.cells(rows)
    beside_columns, beside = comparison.differences(rows)
    where = comparison.circumstances(rows)
    text = [comparison.markdown(columns, table), comparison.EXPLANATION, *where]
    parts = [page.table(columns, table), *map(page.paragraph, (comparison.EXPLANATION, *where))]
    if notes:
        text.append("\n".join(f"{i}. {note}" for i, note in enumerate(notes, 1)))
        parts += [page.heading("Notes"), page.numbered(notes)]
    if beside:
        text.append(comparison.markdown(beside_columns, beside))
        parts += [page.heading("Beside each other"), page.table(beside_columns, beside)]
    text = "\n\n".join(text)
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        for draw, file, heading, described in PICTURES:
            if draw(rows, output / file, title):
                parts.append(page.heading(heading))
                parts.append(page.image((output / file).read_bytes(), described))
            else:
                (output / file).unlink(missing_ok=True)  # of an earlier comparison
        (output / "comparison.md").write_text(f"# {title}\n\n{text}\n")
        (output / "comparison.html").write_text(page.page(title, parts))
        write_json(output / "comparison.json", {"rows": [_plain(row) for row in rows]})
    print(f"{text}\n\n{output}/comparison.md, comparison.html, comparison.json")
    return 0


def require_free(output: Path, paths: Sequence[Path] = ()) -> None:
    """Raises `UserError` if a folder holds one of the paths, or anything but an earlier comparison."""
    try:
        there = {path.name for path in output.glob("[!.]*")} if output.is_dir() else set()
    except OSError as error:
        raise UserError(f"cannot use {output}: {error.strerror}") from error
    if foreign := sorted(there.difference(WRITTEN)):
        raise UserError(f"{output} holds other files ({foreign[0]}, ...): choose another with --output")
    if any(path.resolve().parent == output.resolve() for path in paths):
        raise UserError(f"{output} holds what is to be compared: choose another with --output")


def _rows(path: Path) -> Iterator[Row]:
    if path.suffix == ".json":
        yield from _written(path)
    elif (path / STUDY_FILE).exists():
        try:
            for arm in _read(path / STUDY_FILE)["arms"]:
                for protocol in arm["protocols"]:
                    runs = [RunDirectory(one) for one in _seeds(path / arm["name"] / protocol)]
                    published = arm["published"] if protocol == "published" else {}
                    if row := _row(arm["title"], runs, published, arm["notes"] if published else ()):
                        yield row
        except (KeyError, TypeError) as error:
            raise UserError(f"{path / STUDY_FILE} was not written by a study: {error}") from error
    else:
        run = RunDirectory(path)
        if not run.config_file.exists():
            raise UserError(f"{path} is no run directory, study or .json file")
        config = run.config()
        title = f"{path.resolve().name}: {config.dataset.name}, {config.model.variant}"
        runs = [run] if config.num_seeds == 1 else [RunDirectory(one) for one in _seeds(path)]
        row = _row(title, runs, {}, ()) or _unfinished(title, runs)
        if not row:
            raise UserError(f"the run in {path} is not finished, and no epoch of it is")
        yield row


def _merged(rows: Sequence[Row]) -> list[Row]:
    """Joins rows of one title that were trained by the same recipe on the same data."""
    merged: dict[tuple, Row] = {}
    for row in sorted(rows, key=lambda row: not row.results):  # those with results first: others have only a recipe
        if row.results and not row.recipe:
            raise UserError(f"--merge: the file of {row.title!r} tells no recipe: compare its runs anew")
        same = (key for key in merged if key[:2] == (row.title, row.recipe))
        key = next(same, None) if not row.results else None
        key = key or (row.title, row.recipe, *_where(row))
        other = merged.setdefault(key, row)
        if other is row:
            continue
        results, histories = [*other.results, *row.results], [*other.histories, *row.histories]
        diverged, seeds = other.diverged + row.diverged, [result["seed"] for result in results]
        if len(set(seeds)) < len(seeds) or not (seeds or diverged):
            raise UserError(f"--merge: {row.title!r} is there twice" + (f", of seeds {seeds}" if seeds else ""))
        merged[key] = dataclasses.replace(other, results=results, histories=histories, diverged=diverged)
    order = list(dict.fromkeys((row.title, row.recipe) for row in rows))
    return sorted(merged.values(), key=lambda row: order.index((row.title, row.recipe)))


def _where(row: Row) -> tuple:
    """What else runs of one row have in common, where there are any."""
    return tuple((r["dtype"], r["data_fingerprint"], "torch" in r["versions"]) for r in row.results[:1])


def _seeds(path: Path) -> list[Path]:
    seeds = {one.name.removeprefix("seed_"): one for one in path.glob("seed_*")}
    return [seeds[number] for number in sorted(filter(str.isdecimal, seeds), key=int)]


def _row(title: str, runs: Sequence[RunDirectory], published: dict[str, float], notes: Sequence[str]) -> Row | None:
    """The row of those runs that are finished, or diverged."""
    finished, diverged = [run for run in runs if run.results_file.exists()], sum(run.diverged for run in runs)
    if not finished and not diverged:
        return None
    results = []
    for run in finished:
        result = run.read_results()
        if missing := [key for key in KEPT if key not in result]:
            raise UserError(f"cannot read {run.results_file}: {missing[0]} is missing")
        # Seeds that were trained at once each say how long all of them took.
        results.append(result | {"train_seconds": result["train_seconds"] / result.get("num_seeds", 1)})
    histories = [[record for record in run.read_metrics() if "val_accuracy" in record] for run in finished]
    recipes = {_recipe(run.config(), run.extended) for run in runs if run.diverged or run in finished}
    recipe = recipes.pop() if len(recipes) == 1 else ""
    before = sorted({of["epochs"] for run in finished for of in run.extended})
    if before:
        epochs = ", ".join(f"{x:g}" for x in before)
        notes = (*notes, f"trained for {epochs} epochs at first, then on: the learning rate went down more than once")
    return Row(title, results, histories, published, tuple(notes), diverged=diverged, recipe=recipe)


def _unfinished(title: str, runs: Sequence[RunDirectory]) -> Row | None:
    """The row of runs that are not finished, which has a curve and no test accuracy."""
    histories = [run.read_metrics() for run in runs]
    if not histories or not all(histories):
        return None
    config, done = runs[0].config(), min(map(len, histories))
    title = f"{title}, epoch {done} of {math.ceil(config.epochs)}, not finished"
    return Row(title, (), histories, epochs=done, selected_on=selected_on(config.dataset))


def _recipe(config: ConfigDict, extended: Sequence[dict[str, Any]] = ()) -> str:
    """Tells runs apart, in 16 hexadecimal digits, by all that makes another result but the seed and the machine.

    That is the config, and what the run was to be before it was given more epochs.
    """
    # Without what is left at its default, so that it stays the same when there are more fields.
    defaults = {path: json.dumps(value) for path, value in flat(default_config())}
    fields = sorted((path, json.dumps(value)) for path, value in flat(config) if path not in NOT_THE_RECIPE)
    text = json.dumps([field for field in fields if field[1] != defaults[field[0]]] + list(extended))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(row: Row) -> dict[str, Any]:
    kept = [{key: result[key] for key in KEPT} for result in row.results]
    curves = [[round(record["val_accuracy"], 4) for record in history] for history in row.histories]
    rest = {key: getattr(row, key) for key in SOMETIMES if getattr(row, key)}
    rest |= {"published": dict(row.published), "notes": list(row.notes)}
    return {"title": row.title, **rest, "results": kept, "val_accuracies": curves}


def _written(path: Path) -> Iterator[Row]:
    try:
        for row in _read(path)["rows"]:
            histories = [[{"val_accuracy": value} for value in curve] for curve in row["val_accuracies"]]
            missing = [key for result in row["results"] for key in KEPT if key not in result]
            rest = {key: row[key] for key in SOMETIMES if key in row}
            if missing or not (row["results"] or row["published"] or histories or "diverged" in rest):
                raise KeyError(missing[0] if missing else "results")
            yield Row(row["title"], row["results"], histories, row["published"], tuple(row["notes"]), **rest)
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} was not written by this command: {error} is missing") from error


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {' '.join(str(error).split())}") from error


if __name__ == "__main__":
    cli.run(main)
