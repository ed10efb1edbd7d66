"""The run directory: all that is known of a run, on disk."""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mixer_jax.config import flat
from mixer_jax.errors import UserError


class RunDirectory:
    """Names, reads and writes the files of a run.

    config.json      what the run is: the config, and what the dataset turned out to be
    metrics.jsonl    a line an epoch, each epoch once
    results.json     the outcome; written last, so that it is there only when the run is finished
    checkpoints/     Orbax: the latest and the best
    tensorboard/     the metrics as TensorBoard scalars
    curves.png       the metrics as a picture

    Of several seeds at once it holds a run directory for each, `seed_0` and so on, as each would be alone; its own
    results.json and curves.png are then of all, and its checkpoints go when each of them has its own.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config_file = self.path / "config.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.results_file = self.path / "results.json"
        self.curves_file = self.path / "curves.png"
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"

    def runs(self, config: ConfigDict) -> list[tuple["RunDirectory", ConfigDict]]:
        """The directory and the config of each run: of a single one this directory, of several one for each seed."""
        if config.num_seeds == 1:
            return [(self, config)]
        runs = []
        for seed in range(config.seed, config.seed + config.num_seeds):
            alone = config.copy_and_resolve_references()
            alone.seed, alone.num_seeds = seed, 1
            runs.append((RunDirectory(self.path / f"seed_{seed}"), alone))
        return runs

    def check(self, config: ConfigDict, overwrite: bool = False) -> None:
        """Makes sure that this config may run here; writes nothing.

        Raises:
          UserError: if the directory holds someone else's files, or another config and not `overwrite`, or cannot be
            written.
        """
        try:
            held = sorted(p.name for p in self.path.iterdir()) if self.path.exists() else []
        except OSError as error:
            raise UserError(f"cannot use workdir {self.path}: {error.strerror}") from error
        if held and not self.config_file.exists():
            raise UserError(f"workdir {self.path} holds other files ({held[0]}, ...): choose another with --workdir")
        if held and not overwrite:
            differences = list(_differences(self.read_config()["config"], _plain(config)))
            if differences:
                raise UserError(
                    f"workdir {self.path} holds a run with another config ({'; '.join(differences[:4])}): "
                    "choose another with --workdir, or start over with --overwrite"
                )
        existing = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
        if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
            raise UserError(f"workdir {self.path} is not writable: choose another with --workdir")

    def set_aside(self) -> Path | None:
        """Moves a run that is here out of the way, losing nothing; returns where to, or None if there is none."""
        if not self.config_file.exists():
            return None
        path, number = self.path.absolute(), 1
        while (aside := path.with_name(f"{path.name}.old{number}")).exists():
            number += 1
        try:
            path.rename(aside)
        except OSError as error:
            raise UserError(f"cannot move {path} to {aside}: {error.strerror}") from error
        return aside

    def claim(self, config: ConfigDict, dataset: dict[str, Any]) -> None:
        """Creates the directory and writes config.json: the config, and what is known of the dataset.

        Raises:
          UserError: if a run is here already that saw other data, or the directory cannot be written.
        """
        if self.config_file.exists() and self.read_config()["dataset"] != json.loads(json.dumps(dataset)):
            raise UserError(
                f"workdir {self.path} holds a run on other data than {config.dataset.name} is now: "
                "choose another with --workdir, or start over with --overwrite"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            _write(self.config_file, {"config": _plain(config), "dataset": dataset})
        except OSError as error:
            raise UserError(
                f"workdir {self.path} is not writable ({error.strerror}): choose another with --workdir"
            ) from error

    def read_config(self) -> dict[str, Any]:
        """What `claim` wrote."""
        return self._read(self.config_file)

    def read_results(self) -> dict[str, Any] | None:
        """The outcome, or None if the run is not finished."""
        return self._read(self.results_file) if self.results_file.exists() else None

    def write_results(self, results: dict[str, Any]) -> None:
        _write(self.results_file, results)

    def drop_checkpoints(self) -> None:
        """Deletes what each of several runs has by now in its own directory."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Adds an epoch's line."""
        with self.metrics_file.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The epochs so far; a line that a crash left unfinished is not one."""
        records = []
        for line in self.metrics_file.read_text().splitlines() if self.metrics_file.exists() else []:
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return records

    def rewind_metrics(self, step: int) -> list[dict[str, Any]]:
        """Drops the epochs after `step`, which are about to be run again; returns those that stay."""
        records = [r for r in self.read_metrics() if r["step"] <= step]
        if self.path.exists():
            _replace(self.metrics_file, "".join(json.dumps(r) + "\n" for r in records))
        return records

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            return json.loads(path.read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise UserError(f"cannot read {path}: {error}") from error


def best_epoch(history: list[dict[str, Any]]) -> dict[str, Any]:
    """The line of metrics.jsonl with the highest validation accuracy; of equals the one with the lowest loss."""
    return max(history, key=lambda record: (record["val_accuracy"], -record["val_loss"]))


def _plain(config: ConfigDict) -> dict[str, Any]:
    """The config as JSON gives it back: tuples become lists."""
    return json.loads(config.to_json_best_effort())


def _differences(old: dict[str, Any], new: dict[str, Any]) -> Iterable[str]:
    """Says field by field how two configs differ."""
    old, new = dict(flat(ConfigDict(old))), dict(flat(ConfigDict(new)))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            yield f"{key}: {old.get(key)} there, {new.get(key)} here"


def _write(path: Path, value: Any) -> None:
    _replace(path, json.dumps(value, indent=2) + "\n")


def _replace(path: Path, text: str) -> None:
    """Writes a file so that at any moment it is either the old one or the new one, whole."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
