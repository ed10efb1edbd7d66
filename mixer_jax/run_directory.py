"""The run directory: the files of a run."""

import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from mixer_jax import lock
from mixer_jax.config import check
from mixer_jax.errors import UserError, unreadable
from mixer_jax.records import Epoch, Results, StepMetrics
from mixer_jax.storage import delete, free_name, read_json, write_json, write_text, writing

# Fields that older releases lacked, with the values that match what those releases did.
BEFORE = {"dataset.hold_out": "random", "dataset.layout": "splits", "dataset.draft": False, "dataset.bits": 16}
_Line = TypeVar("_Line", Epoch, StepMetrics)
TO_THE_END = ("cosine", "linear")  # schedules that depend on the number of epochs


class RunDirectory:
    """The directory of a run, which names, reads and writes the run's files.

    config.json      the config, and a description of the dataset
    metrics.jsonl    one line per epoch
    steps.jsonl      the metrics of about a thousand single steps, evenly spaced
    results.json     the results; written last, so that only finished runs have it; earlier ones: results.old1.json, ...
    diverged.json    why the run diverged; written by a study, which does not train the run again while this file exists
    checkpoints/     the two newest, each with the best epoch's parameters; see `mixer_jax.checkpoints.checkpoints`
    tensorboard/     the metrics for TensorBoard, with pictures and histograms of the parameters
    curves.png       the metrics as a plot; confusion.png is the confusion matrix
    predictions.csv  every test image with its class and the predicted one
    predictions.npz  logits and labels of the test set, and the images that the report shows; see `reporting.evidence`
    report.html      the report; README.md is the model card
    .lock            held by the process that trains here

    With several seeds, the directory holds a run directory for each seed, such as `seed_0`, with the same files as the
    directory of a single run. The results.json and curves.png of the parent directory then describe all seeds. Older
    releases wrote a single checkpoints/ for all seeds into the parent directory; it is deleted once each seed has
    checkpoints of its own.
    """

    def __init__(self, path: str | Path):
        self.path = Path(os.path.expanduser(path))
        self.config_file = self.path / "config.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.steps_file = self.path / "steps.jsonl"
        self.results_file = self.path / "results.json"
        self.diverged_file = self.path / "diverged.json"
        self.curves_file = self.path / "curves.png"
        self.predictions_file = self.path / "predictions.npz"
        self.predictions_table = self.path / "predictions.csv"
        self.report_file = self.path / "report.html"
        self.card_file = self.path / "README.md"
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"
        self.lock_file = self.path / ".lock"

    def runs(self, config: ConfigDict) -> list[tuple["RunDirectory", ConfigDict]]:
        """Return the directory and the config of each run: this directory for a single seed, or one for each seed."""
        return [(self, config)] if config.num_seeds == 1 else self.seeds(config)

    def seeds(self, config: ConfigDict) -> list[tuple["RunDirectory", ConfigDict]]:
        """Return the subdirectory and the single-seed config of each seed."""
        runs = []
        for seed in range(config.seed, config.seed + config.num_seeds):
            alone = config.copy_and_resolve_references()
            alone.seed, alone.num_seeds = seed, 1
            runs.append((RunDirectory(self.path / f"seed_{seed}"), alone))
        return runs

    def locked(self) -> AbstractContextManager[None]:
        """Create the directory if it does not exist, and lock it; see `lock.locked`."""
        return lock.locked(self.lock_file)

    @property
    def exists(self) -> bool:
        """Whether config.json is there; False if the directory cannot be read."""
        return os.path.exists(self.config_file)

    @property
    def steps_done(self) -> int | None:
        """The number of training steps that the run has done, by its checkpoints and metrics; None without either."""
        saved = [int(path.name) for path in self.checkpoints.glob("*") if path.name.isdecimal()]
        return max([*saved, *(epoch.step for epoch in self.read_metrics())], default=None)

    @property
    def begun(self) -> bool:
        """Whether the run, or one of its seeds, has saved any training; before that, its config may be replaced."""
        each = (self, *map(RunDirectory, self.path.glob("seed_*")))
        return any(
            run.results_file.exists() or run.diverged_file.exists() or run.steps_done is not None for run in each
        )

    def require_free(self, seeds: bool = False) -> None:
        """Raise `UserError` if another process trains in this directory or, with `seeds`, in that of a seed."""
        for file in (self.lock_file, *(self._locks_of_seeds() if seeds else ())):
            lock.require_free(file)

    def _locks_of_seeds(self) -> list[Path]:
        return sorted(self.path.glob(f"seed_*/{self.lock_file.name}"))

    def set_aside(self) -> Path | None:
        """Move the directory of a run to a free name next to it, such as `digits.old1`.

        Returns:
          The new path, or None if there is no run here.

        Raises:
          UserError: if another process trains in it, or if it cannot be moved.
        """
        if not self.exists:
            return None
        path = self.path.absolute()
        aside = free_name(path.parent, f"{path.name}.old")
        with contextlib.ExitStack() as stack:
            for file in (self.lock_file, *self._locks_of_seeds()):
                stack.enter_context(lock.locked(file))
            try:
                path.rename(aside)
            except OSError as error:
                raise UserError(f"cannot move {path} to {aside}: {error.strerror}") from error
        return aside

    @property
    def extended(self) -> list[dict[str, Any]]:
        """The earlier values of `epochs`, each with the `step` at which it was changed.

        Empty if neither the learning-rate schedule nor the augmentation depends on the number of epochs: the run then
        equals one that was started with the present value of `epochs`.
        """
        if not self.exists:
            return []
        extended = read_json(self.config_file).get("extended")
        if extended is None and self.config().schedule.name in TO_THE_END:  # older releases kept only the results
            earlier = [read_json(file) for file in sorted(self.path.glob("results.old*.json"))]
            extended = [{"step": before.get("steps"), "epochs": before.get("epochs")} for before in earlier]
        return extended or []

    def adopted(self, config: ConfigDict) -> ConfigDict:
        """Return a copy of the config with the fields and values of `newer_fields`."""
        config = config.copy_and_resolve_references()
        config.update_from_flattened_dict(self.newer_fields())
        return config

    def newer_fields(self) -> dict[str, Any]:
        """Return the fields that config.json lacks because an older release wrote it.

        Their values reproduce the behaviour of that release. Empty if there is no run here.
        """
        if not self.exists:
            return {}
        known = read_json(self.config_file).get("config")
        known = flatten_dict(known, sep=".") if isinstance(known, dict) else {}
        return {field: value for field, value in BEFORE.items() if field not in known}

    def config(self) -> ConfigDict:
        """Return the checked config of the run.

        Fields that config.json lacks are taken from `newer_fields` or, if they are not there either, from the defaults.

        Raises:
          UserError: if config.json cannot be read or holds no valid config.
        """
        content = read_json(self.config_file)
        if "config" not in content:
            raise unreadable(self.config_file, "it has no config of a run")
        try:
            return self.adopted(check(ConfigDict(content["config"])))
        except (UserError, TypeError, KeyError, ValueError, AttributeError) as error:
            raise unreadable(self.config_file, error) from error

    def dataset_info(self) -> dict[str, Any]:
        """Return `Dataset.info` of the run's dataset.

        Raises:
          UserError: if config.json cannot be read, or does not describe the dataset.
        """
        info = read_json(self.config_file).get("dataset")
        if not isinstance(info, dict):
            raise unreadable(self.config_file, "it has no dataset")
        return info

    def read_results(self) -> Results | None:
        """Return the results, or None if the run is not finished.

        Raises:
          UserError: if results.json cannot be read or lacks a required field.
        """
        if not self.results_file.exists():
            return None
        content = read_json(self.results_file)
        try:
            return Results.from_json(content)
        except KeyError as error:
            raise unreadable(self.results_file, f"{error.args[0]} is missing") from error

    def write_results(self, results: Results) -> None:
        """Write results.json."""
        write_json(self.results_file, results.to_json())

    @property
    def diverged(self) -> bool:
        """Whether the run diverged in a study, and has no results."""
        return self.diverged_file.exists() and not self.results_file.exists()

    def drop_checkpoints(self) -> None:
        """Delete the joint checkpoints written by older releases; each seed now has its own."""
        with contextlib.suppress(OSError):
            delete(self.checkpoints)

    def append_metrics(self, epoch: Epoch) -> None:
        """Append an epoch's line to metrics.jsonl."""
        with writing(self.metrics_file), self.metrics_file.open("a") as file:
            file.write(_text([epoch]))

    def read_metrics(self) -> list[Epoch]:
        """Return the epochs so far, up to the first damaged line: a crash can leave the last line unfinished."""
        return _lines(self.metrics_file, Epoch)

    def write_metrics(self, epochs: list[Epoch]) -> None:
        """Rewrite metrics.jsonl with these epochs; later epochs are dropped, because they will be trained again."""
        write_text(self.metrics_file, _text(epochs))

    def append_steps(self, steps: Sequence[StepMetrics]) -> None:
        """Append lines to steps.jsonl."""
        with writing(self.steps_file), self.steps_file.open("a") as file:
            file.write(_text(steps))

    def read_steps(self) -> list[StepMetrics]:
        """Return the logged steps, up to the first damaged line; empty for a run of an older release."""
        return _lines(self.steps_file, StepMetrics)

    def drop_steps_after(self, step: int) -> None:
        """Rewrite steps.jsonl without the steps after `step`, because they will be trained again."""
        write_text(self.steps_file, _text(one for one in self.read_steps() if one.step <= step))


def _text(records: Iterable[Epoch | StepMetrics]) -> str:
    return "".join(json.dumps(record.to_json()) + "\n" for record in records)


def _lines(path: Path, kind: type[_Line]) -> list[_Line]:
    """Return the records in a file of JSON lines, up to the first damaged line."""
    records = []
    try:
        lines = path.read_bytes().splitlines() if path.exists() else []
    except OSError as error:
        raise unreadable(path, str(error.strerror)) from error
    for line in lines:
        try:
            records.append(kind.from_json(json.loads(line)))
        except (ValueError, TypeError, KeyError):
            break
    return records
