"""The rows of a comparison, read from run directories, studies and earlier comparisons, and merged on request."""

import dataclasses
import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mixer_jax.claim import ENDING, MAY_CHANGE
from mixer_jax.config import default_config, flat
from mixer_jax.data import selected_on
from mixer_jax.errors import UserError, in_one_line, printable
from mixer_jax.records import Results
from mixer_jax.run_directory import RunDirectory
from mixer_jax.storage import read_json
from mixer_jax.studies.arms import EPOCHS

STUDY_FILE = "study.json"
# The fields of results.json that a comparison needs, or that document the origin of the results.
KEPT = (
    "dataset", "model", "num_params", "seed", "epochs", "best_epoch", "val_accuracy", "val_loss", "test_accuracy",
    "test_loss", "test_examples", "last_test_accuracy", "last_test_loss", "selected_on", "train_seconds", "devices",
    "device_kind", "dtype", "data_fingerprint", "versions",
)  # fmt: skip
# Optional fields of a row in comparison.json.
SOMETIMES = (
    "recipe",
    "settings",
    "diverged",
    "unfinished",
    "num_params",
    "epochs",
    "train_seconds",
    "selected_on",
    "of_dataset",
)
# The types of a row's fields in comparison.json, which may be written by hand.
KINDS: dict[str, Any] = {
    "title": str, "recipe": str, "selected_on": str, "of_dataset": str, "settings": dict, "published": dict,
    "notes": list, "results": list, "num_params": int, "epochs": int | float, "train_seconds": int | float,
    "diverged": int | list, "unfinished": list,
}  # fmt: skip
# Fields of a config that do not distinguish recipes, such as those of the seed and the machine.
NOT_THE_RECIPE = {
    "seed", "num_seeds", "accumulation_steps", "dtype", "eval_batch_size", "dataset.hold_out", *MAY_CHANGE,
}.difference(ENDING)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Curve:
    """The learning curves of a run, with one value per epoch.

    Lists other than `val_accuracies` are empty if a comparison.json of an older release lacks them.

    Attributes:
      val_accuracies, val_losses: on validation, accuracies in percent.
      seconds: the training time by the end of the epoch.
      images: the number of training images seen by the end of the epoch.
    """

    val_accuracies: Sequence[float]
    val_losses: Sequence[float] = ()
    seconds: Sequence[float] = ()
    images: Sequence[int] = ()


COURSES = tuple(field.name for field in dataclasses.fields(Curve))  # also the keys of a row in comparison.json


@dataclasses.dataclass(frozen=True)
class Row:
    """Runs that differ in their seed only, or a published result.

    Attributes:
      title: the title in tables and plots.
      results: one per finished run; common values are read from the first; empty for a published or unfinished row.
      curves: the curves of each run.
      published: accuracies in percent, "last" for the last epoch and "best" for the best epoch, where published.
      notes: footnotes.
      num_params, epochs, train_seconds, selected_on, of_dataset: of a published or unfinished row, if known.
      diverged: the seeds of further runs that have no results because their loss became infinite or NaN. A seed is None
        if it was not recorded, as in a comparison.json of an older release.
      unfinished: the seeds of further runs that are not finished.
      recipe: a hash of the training recipe; "" if unknown.
      settings: the fields of the recipe that are not at their defaults, by their dotted paths; None if unknown.
    """

    title: str
    results: Sequence[Results]
    curves: Sequence[Curve] = ()
    published: Mapping[str, float] = dataclasses.field(default_factory=dict)
    notes: Sequence[str] = ()
    num_params: int | None = None
    epochs: float | None = None
    train_seconds: float | None = None
    diverged: Sequence[int | None] = ()
    unfinished: Sequence[int] = ()
    recipe: str = ""
    settings: Mapping[str, Any] | None = None
    selected_on: str = ""
    of_dataset: str = ""

    @property
    def dataset(self) -> str:
        """The name of the dataset; "" if unknown. Folders are told apart by their fingerprints."""
        return _named(self.results[0].dataset, self.results[0].data_fingerprint) if self.results else self.of_dataset

    @property
    def protocol(self) -> str:
        """The split on which the best epoch is chosen, "validation" or "test"; "" if unknown."""
        return self.results[0].selected_on if self.results else self.selected_on

    def accuracies(self, which: str) -> list[float]:
        """Return the runs' test accuracies in percent, of the "last" or the "best" epoch."""
        return [run.last_test_accuracy if which == "last" else run.test_accuracy for run in self.results]

    @property
    def size(self) -> int | None:
        """The number of parameters; None if unknown."""
        return self.results[0].num_params if self.results else self.num_params

    @property
    def seconds(self) -> float | None:
        """The training time in seconds of the fastest run, which other load slowed down least; None if unknown."""
        return min((run.train_seconds for run in self.results), default=self.train_seconds)

    @property
    def against(self) -> str:
        """The epoch to compare with published numbers: "best" if only that is published, else "last"."""
        return "best" if "last" not in self.published and "best" in self.published else "last"


def require_study(directory: Path, name: str, begun: bool = False) -> None:
    """Require that a directory is that of a study or, unless `begun`, can become one.

    Raises:
      UserError: if it is a run directory, if it holds a study with another name, or, with `begun`, if it holds no
        study.
    """
    file = directory / STUDY_FILE
    if RunDirectory(directory).exists:
        raise UserError(f"{directory} is a run directory: choose another workdir")
    if file.exists():
        if (there := read_json(file).get("study")) != name:
            raise UserError(f"{directory} holds the study {there}: choose another workdir")
    elif begun:
        raise UserError(f"there is no study in {directory}")


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a run directory, a study directory or a comparison.json file.

    Raises:
      UserError: if the path is none of these or cannot be read, or if a run directory has no finished epoch.
    """
    path = Path(os.path.expanduser(path))
    if path.suffix == ".json":
        yield from _of_comparison(path)
    elif (path / STUDY_FILE).exists():
        try:
            for arm in read_json(path / STUDY_FILE)["arms"]:
                for protocol in arm["protocols"]:
                    runs = [RunDirectory(one) for one in _seeds(path / arm["name"] / protocol)]
                    published = arm["published"] if protocol == "published" else {}
                    if row := _row(arm["title"], runs, published, arm["notes"] if published else ()):
                        yield row
        except (KeyError, TypeError) as error:
            raise UserError(f"{path / STUDY_FILE} was not written by a study: {error}") from error
    else:
        run = RunDirectory(path)
        if not run.exists:
            raise UserError(f"{path} is not a run directory, study or .json file")
        config = run.config()
        title = f"{printable(path.resolve().name)}: {config.dataset.name}, {config.model.variant}"
        runs = [run] if config.num_seeds == 1 else [RunDirectory(one) for one in _seeds(path)]
        row = _row(title, runs, {}, ()) or _unfinished(title, runs, config.num_seeds)
        if not row:
            raise UserError(f"the run in {path} has not finished its first epoch yet")
        yield row


def datasets(rows: Sequence[Row]) -> list[str]:
    """Return the names of the datasets of a comparison, in the order of their first appearance."""
    return list(dict.fromkeys(row.dataset for row in rows))


def merged(rows: Sequence[Row]) -> list[Row]:
    """Merge rows of the same title, trained by the same recipe on the same data, in the order of first appearance.

    Raises:
      UserError: if a row's recipe is unknown, or if rows to merge share a seed.
    """
    joined: dict[tuple, Row] = {}
    for row in sorted(rows, key=lambda row: not row.results):  # rows with results first, others have only a recipe
        if row.results and not row.recipe:
            why = "its seeds were trained by different recipes, or its comparison.json is of an older release"
            raise UserError(f"merge: {row.title!r} has no recipe: {why}")
        same = (key for key in joined if key[:2] == (row.title, row.recipe))
        key = next(same, None) if not row.results else None
        # What runs must also have in common: dtype, data and framework; a row without runs has none of these.
        where = [(run.dtype, run.data_fingerprint, "torch" in run.versions) for run in row.results[:1]]
        key = key or (row.title, row.recipe, *where)
        other = joined.setdefault(key, row)
        # A published row may be in several comparisons.
        if other is row or (other == row and not (row.results or row.diverged)):
            continue
        results, curves = [*other.results, *row.results], [*other.curves, *row.curves]
        diverged = [*other.diverged, *row.diverged]
        seeds = [run.seed for run in results] + [seed for seed in diverged if seed is not None]
        shared = sorted({seed for seed in seeds if seeds.count(seed) > 1})
        differ = sorted(which for which, x in row.published.items() if other.published.get(which, x) != x)
        if shared or differ or not (results or diverged):
            what = f"share seeds {shared}" if shared else "differ in published numbers" if differ else "have no results"
            raise UserError(f"merge: two rows of {row.title!r} {what}")
        joined[key] = dataclasses.replace(
            other,
            results=results,
            curves=curves,
            diverged=diverged,
            unfinished=sorted({*other.unfinished, *row.unfinished}.difference(seeds)),
            published={**other.published, **row.published},
            notes=tuple(dict.fromkeys([*other.notes, *row.notes])),
        )
    order = list(dict.fromkeys((row.title, row.recipe) for row in rows))
    return sorted(joined.values(), key=lambda row: order.index((row.title, row.recipe)))


def _seeds(path: Path) -> list[Path]:
    seeds = {one.name.removeprefix("seed_"): one for one in path.glob("seed_*")}
    return [seeds[number] for number in sorted(filter(str.isdecimal, seeds), key=int)]


def _row(title: str, runs: Sequence[RunDirectory], published: dict[str, float], notes: Sequence[str]) -> Row | None:
    """Return the row of the runs that are finished or have diverged, or None if there are none."""
    finished = [run for run in runs if run.results_file.exists()]
    diverged = [run.config().seed for run in runs if run.diverged]
    if not finished and not diverged:
        return None
    unfinished = [run.config().seed for run in runs if run not in finished and not run.diverged]
    results = []
    for run in finished:
        result = run.read_results()
        if missing := [name for name in KEPT if getattr(result, name) is None]:
            raise UserError(f"cannot read {run.results_file}: {missing[0]} is missing")
        # The results of seeds trained at the same time each contain the time of all seeds.
        results.append(dataclasses.replace(result, train_seconds=result.train_seconds / (result.num_seeds or 1)))
    curves = [_curve(run, result.num_seeds or 1) for run, result in zip(finished, results, strict=True)]
    recipes = {_recipe(run.config(), run.extended) for run in runs if run.diverged or run in finished}
    recipe = recipes.pop() if len(recipes) == 1 else ""
    settings = _settings((finished or [run for run in runs if run.diverged])[0].config()) if recipe else None
    before = sorted({earlier["epochs"] for run in finished for earlier in run.extended})
    if before:
        epochs = ", ".join(f"{x:g}" for x in before)
        differs = "so the schedule is not that of a run of that length"
        notes = (*notes, f"started for {epochs} epochs, later changed, {differs}")
    of_dataset = "" if results else _dataset(next(run for run in runs if run.diverged))
    known = {"diverged": diverged, "unfinished": unfinished, "recipe": recipe, "settings": settings}
    known["of_dataset"] = of_dataset
    return Row(title, results, curves, published, tuple(notes), **known)


def _dataset(run: RunDirectory) -> str:
    return _named(run.config().dataset.name, run.dataset_info()["fingerprint"])


def _named(dataset: str, fingerprint: str) -> str:
    return f"{dataset} {fingerprint}" if dataset == "folder" else dataset


def _curve(run: RunDirectory, num_seeds: int) -> Curve:
    """Return the curve of a run that was trained at the same time as `num_seeds` - 1 others."""
    epochs = [epoch for epoch in run.read_metrics() if not math.isnan(epoch.val_accuracy)]
    batch_size = run.config().batch_size
    return Curve(
        [epoch.val_accuracy for epoch in epochs],
        [epoch.val_loss for epoch in epochs],
        list(itertools.accumulate(epoch.seconds / num_seeds for epoch in epochs)),
        [epoch.step * batch_size for epoch in epochs],
    )


def _unfinished(title: str, runs: Sequence[RunDirectory], num_seeds: int) -> Row | None:
    """Return the row of unfinished runs, with curves but no test accuracy, or None if a run has no finished epoch."""
    curves = [_curve(run, num_seeds) for run in runs]
    if not curves or not all(curve.val_accuracies for curve in curves):
        return None
    config, done = runs[0].config(), min(len(curve.val_accuracies) for curve in curves)
    title = f"{title}, epoch {done} of {math.ceil(config.epochs)}, not finished"
    split = selected_on(config.dataset)
    return Row(title, (), curves, epochs=done, selected_on=split, of_dataset=_dataset(runs[0]))


def _recipe(config: ConfigDict, extended: Sequence[dict[str, Any]] = ()) -> str:
    """Return a hash of the training recipe, 16 hexadecimal digits; `NOT_THE_RECIPE` lists what it leaves out.

    The hash covers the config and, if `epochs` was changed during the run, the earlier values of `epochs`.
    """
    fields = sorted((path, json.dumps(value)) for path, value in _settings(config).items())
    return hashlib.sha256(json.dumps(fields + list(extended)).encode()).hexdigest()[:16]


def _settings(config: ConfigDict) -> dict[str, Any]:
    # Fields with default values are left out, so that new fields do not change the hash.
    defaults = flat(default_config())
    return {key: x for key, x in flat(config).items() if key not in NOT_THE_RECIPE and x != defaults[key]}


def to_json(row: Row) -> dict[str, Any]:
    """Return a row as a JSON object, as in comparison.json."""
    kept = [{name: getattr(run, name) for name in KEPT} for run in row.results]
    curves = {
        name: [[round(value, 4) for value in getattr(curve, name)] for curve in row.curves]
        for name in COURSES
        if name == "val_accuracies" or any(getattr(curve, name) for curve in row.curves)
    }
    rest = {key: x for key in SOMETIMES if (x := getattr(row, key)) or (key == "settings" and x is not None)}
    rest |= {"published": dict(row.published), "notes": list(row.notes)}
    return {"title": row.title, **rest, "results": kept, **curves}


def _of_comparison(path: Path) -> Iterator[Row]:
    content = read_json(path).get("rows")
    if not isinstance(content, list):
        raise UserError(f"{path} is not a comparison.json: it has no list of rows")
    for number, row in enumerate(content, 1):
        where = f"{path}, row {number}"
        try:
            yield _of_json(row)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        except (AttributeError, KeyError, TypeError) as error:
            raise UserError(f"{where} cannot be read: {in_one_line(error)}") from error


def _of_json(row: dict[str, Any]) -> Row:
    """Return the row of a JSON object, as `to_json` wrote it."""
    for field, kind in KINDS.items():
        if row.get(field) is not None and not isinstance(row[field], kind):
            raise UserError(f"{field} cannot be {json.dumps(row[field])}")
    missing = [
        field for field in ("title", "results", "published", "notes", "val_accuracies") if row.get(field) is None
    ]
    if not missing:
        names, length = [name for name in COURSES if name in row], len(row["val_accuracies"])
        missing = [name for run in row["results"] for name in KEPT if name not in run]
        missing += [f"a part of {name}" for name in names if len(row[name]) < length]
    if missing:
        raise UserError(f"{missing[0]} is missing")
    published = {which: row["published"][which] for which in EPOCHS if which in row["published"]}
    for which, accuracy in published.items():
        if not isinstance(accuracy, int | float) or not 0 <= accuracy <= 100:
            raise UserError(f"the published accuracy {which} is {json.dumps(accuracy)}: give it in percent")
    if row["published"] and not published:
        raise UserError("published has neither last nor best")
    rest = {key: row[key] for key in SOMETIMES if row.get(key) is not None}
    if not (row["results"] or published or length or rest.get("diverged")):
        raise UserError("there are no results")
    if isinstance(rest.get("diverged"), int):  # an older release kept only their number
        rest["diverged"] = [None] * rest["diverged"]
    curves = [Curve(**{name: row[name][i] for name in names}) for i in range(length)]
    results = list(map(Results.from_json, row["results"]))
    return Row(row["title"], results, curves, published, tuple(row["notes"]), **rest)
