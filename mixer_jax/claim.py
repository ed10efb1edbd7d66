"""Claiming a run directory, by a new run or by a resumed one, whose config may differ only in certain fields."""

import json
import os
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mixer_jax.config import flat
from mixer_jax.errors import UserError
from mixer_jax.run_directory import TO_THE_END, RunDirectory
from mixer_jax.storage import free_name, write_json

# The fields that may change when a run resumes. ENDING decides when the run ends; the others do not affect its results.
ENDING = ("epochs", "early_stopping_patience")
MAY_CHANGE = (
    *ENDING, "checkpoint_minutes", "checkpoint_steps",
    "dataset.data_dir", "dataset.memory_budget_gib", "dataset.reader_threads",
)  # fmt: skip
LATER = ("bits", "num_images")  # of `Dataset.info`: older releases did not keep them


def require_usable(run: RunDirectory, config: ConfigDict, overwrite: bool = False) -> dict[str, str]:
    """Check that a run with a config can be trained here; write nothing.

    Args:
      run: the directory.
      config: the config, as `RunDirectory.adopted` returns it.
      overwrite: whether an existing run will be set aside, so that its config does not matter.

    Returns:
      The differences from the existing run, as descriptions by field name; only fields in MAY_CHANGE can differ.

    Raises:
      UserError: if the run directory holds files but no run; if another process trains in it; if it cannot be written
        to and its run is not finished. Without `overwrite`, also if the config of the existing run cannot be read, or
        if that run has begun and its config differs from `config` in fields outside MAY_CHANGE. With `overwrite`, also
        if the current directory is in the run directory, which then cannot be moved aside.
    """
    try:
        # A run that was killed before it wrote its config leaves only hidden files.
        held = sorted(p.name for p in run.path.iterdir() if p.name[0] != ".") if run.path.exists() else []
    except OSError as error:
        raise UserError(f"cannot use workdir {run.path}: {error.strerror}") from error
    if held and not run.exists:
        raise UserError(f"workdir {run.path} holds other files ({held[0]}, ...): choose another workdir")
    run.require_free(seeds=overwrite)
    if held and overwrite and Path.cwd().is_relative_to(run.path.resolve()):
        raise UserError(
            f"workdir {run.path} holds the current directory, and cannot be moved aside: go to another directory"
        )
    changes = _changes(run, config) if held and not overwrite else {}
    finished = bool(held) and not overwrite and run.results_file.exists() and changes.keys().isdisjoint(ENDING)
    existing = next(p for p in (run.path, *run.path.absolute().parents) if p.exists())
    if not finished and not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        raise UserError(f"workdir {run.path} is not writable: choose another workdir")
    return changes


def claim(run: RunDirectory, config: ConfigDict, dataset: dict[str, Any]) -> None:
    """Write config.json.

    If a finished run continues because a field in ENDING has changed, its results.json and model card are kept under
    other names.

    Args:
      run: the directory.
      config: the config, as for `require_usable`.
      dataset: `Dataset.info` of the run's dataset.

    Raises:
      UserError: if a run that has begun used different data or a different config, or if the file cannot be written.
    """
    changes = _changes(run, config) if run.exists else {}  # again: others may have trained here since `require_usable`
    extended = run.extended
    if run.begun:
        require_same_data(run, config, dataset)
        before, mixing = run.config().epochs, config.augment.mixing
        # If the warmup is not shorter than the run, it is a tenth of the run.
        shorter_warmup = config.schedule.warmup_epochs >= min(before, config.epochs)
        depends = config.schedule.name in TO_THE_END or shorter_warmup or mixing.until < 1
        if "epochs" in changes and depends and (step := run.steps_done):
            extended = [*extended, {"step": step, "epochs": before}]
    # Renamed first: next to the new config, the old results would look like its own.
    if not changes.keys().isdisjoint(ENDING) and run.results_file.exists():
        if run.card_file.exists():
            run.card_file.rename(free_name(run.path, "README.old", ".md"))
        run.results_file.rename(free_name(run.path, "results.old", ".json"))
    write_json(run.config_file, {"config": config.to_dict(), "dataset": dataset, "extended": extended})


def require_same_data(run: RunDirectory, config: ConfigDict, dataset: dict[str, Any], finished: bool = False) -> None:
    """Raise `UserError` if the existing run used different data, or if only one of the two datasets is streamed.

    Args:
      run: the directory.
      config: the config, from which the error takes the name of the dataset and its folder.
      dataset: `Dataset.info` of the dataset.
      finished: whether the run is finished. For a finished run, one dataset may be streamed and the other not; if so,
        only the class names, the image shape and the numbers of images are compared.
    """
    there, here = run.dataset_info(), json.loads(json.dumps(dataset))
    if finished and there.get("streamed") != here["streamed"]:
        here = {key: here[key] for key in ("label_names", "image_shape", "num_images")}
    differing = [key for key in here if there.get(key) != here[key] and (key in there or key not in LATER)]
    if "streamed" in differing:
        how, what = ("was", "a smaller") if there.get("streamed") else ("was not", "a larger")
        raise UserError(
            f"the dataset of the run in {run.path} {how} streamed: to resume it here, give {what} "
            "config.dataset.memory_budget_gib"
        )
    if differing:
        before, now = run.config().dataset.data_dir, config.dataset.data_dir
        folders = f"; data_dir: was {before}, now {now}" if before != now else f"; data_dir: {now}" if now else ""
        differ = f"{', '.join(differing)} {'differs' if len(differing) == 1 else 'differ'}"
        raise UserError(
            f"the run in {run.path} was trained on other data ({config.dataset.name}: {differ}{folders}): "
            "choose another workdir, or set overwrite to start over"
        )


def _changes(run: RunDirectory, config: ConfigDict) -> dict[str, str]:
    """Return, by field name, a description of each difference between a config and the run's.

    Empty for a run that has not begun, whose config may be replaced.
    """
    before, now = flat(run.config()), flat(config)
    if not run.begun:
        return {}
    changes = {
        key: f"{key}: {before[key]} in the run, {now[key]} now" for key in sorted(before) if before[key] != now[key]
    }
    if others := [change for field, change in changes.items() if field not in MAY_CHANGE]:
        raise UserError(
            f"workdir {run.path} holds a run with another config ({'; '.join(others[:4])}): "
            "choose another workdir, or set overwrite to start over"
        )
    return changes
