"""Loading trained models from run directories, files and URLs."""

import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import unflatten_dict
from ml_collections import ConfigDict

from mixer_jax.checkpoints import Checkpoint, Checkpoints, Damaged
from mixer_jax.config import check, default_config
from mixer_jax.errors import UserError
from mixer_jax.inference.classifier import FORMAT, MODEL_FILE, Classifier
from mixer_jax.inference.preprocessing import Origin, Preprocessing
from mixer_jax.messages import warn
from mixer_jax.models import MlpMixer
from mixer_jax.run_directory import RunDirectory
from mixer_jax.weights import LARGEST_FILE, from_layout, local, read_description, read_file


def load(source: str | Path, checkpoint: str = "best") -> Classifier:
    """Load a trained model.

    Args:
      source: a run directory; a file written by `Classifier.save`, or its folder; a Mixer from the paper (.npz),
        timm or lucidrains (.safetensors, .pth); or the https:// or gs:// URL of such a file.
      checkpoint: for a run directory: "best" for the parameters of the best epoch, "latest", or a step.

    Raises:
      UserError: if the source cannot be read, is not a model, or has parameters that are NaN or infinite.
    """
    path = Path(source)
    if path.is_dir() and RunDirectory(path).config_file.exists():
        classifier = load_run(RunDirectory(path), checkpoint)
    elif path.is_dir() and (path / MODEL_FILE).exists():
        classifier = _load_file(str(path / MODEL_FILE))
    elif path.is_dir():
        raise UserError(f"{path} is no run directory: it has no {RunDirectory(path).config_file.name}")
    elif "://" not in str(source) and not path.exists():
        raise UserError(f"there is no run directory or file {path}")
    else:
        classifier = _load_file(str(source))
    for key, x in jax.tree_util.tree_leaves_with_path(classifier.params):
        if not np.isfinite(x).all():
            name = jax.tree_util.keystr(key, simple=True, separator="/")
            raise UserError(f"{source}: {name} holds NaN or infinity, and gives no logits that mean anything")
    return classifier


def load_run(run: RunDirectory, checkpoint: str = "best") -> Classifier:
    """Load the model of a run from its newest intact checkpoint, or from a given one.

    Args:
      run: a directory of a single run.
      checkpoint: as in `load`.

    Raises:
      UserError: if the directory is not that of a single run, or cannot be read.
    """
    if not run.config_file.exists():
        raise UserError(f"{run.path} is no run directory: it has no {run.config_file.name}")
    config = run.config()
    if config.num_seeds > 1:
        raise UserError(f"{run.path} holds {config.num_seeds} runs: give one, such as {run.path}/seed_{config.seed}")
    info = run.dataset_info()
    try:
        label_names = tuple(map(str, info["label_names"]))
        preprocessing = Preprocessing.of(config.augment, *(info[key] for key in ("image_shape", "mean", "std")))
        if not label_names:
            raise ValueError("there is no class")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"cannot read {run.config_file}: its dataset is not described as it should be") from error
    params, origin = run_params(run, checkpoint)
    return Classifier(config.model, params, preprocessing, label_names, origin)


def run_params(run: RunDirectory, checkpoint: str = "best") -> tuple[Any, Origin]:
    """Return the parameters of a run's checkpoint, as host arrays, and their origin.

    Args:
      run: a directory of a single run.
      checkpoint: as in `load`.

    Raises:
      UserError: if the checkpoint does not exist or cannot be read.
    """
    found, params = _read(run.checkpoints, checkpoint)
    config, progress = run.config(), found.progress
    history = progress.get("history") or (progress.get("histories") or [None])[0]
    unfinished = ""
    if history is not None and not run.results_file.exists():
        unfinished = f"epoch {len(history)} of {math.ceil(config.epochs)}, not finished"
    described = f"run directory, {config.model.variant}, {checkpoint} of step {found.step}"
    name = f"checkpoint {run.checkpoints / str(found.step)}"
    return params, Origin(name, described, config.dataset, found.step, unfinished, progress.get("ran_on", {}))


def _read(directory: Path, which: str) -> tuple[Checkpoint, Any]:
    """Return a checkpoint and its parameters for evaluation."""
    checkpoints = Checkpoints(directory)
    steps = checkpoints.steps()
    if not steps:
        raise UserError(f"there is no checkpoint in {directory}")
    newest = which in ("best", "latest")
    if not newest and not (which.isdecimal() and int(which) in steps):
        there = ", ".join(map(str, steps))
        raise UserError(f"no checkpoint {which!r} in {directory}; valid: best, latest, {there}")
    problems: list[str] = []
    try:
        if newest:
            newest_one, problems = checkpoints.newest(set_aside=False, best_alone=which == "best")
            found = newest_one or checkpoints.read(steps[-1])
        else:
            found = checkpoints.read(int(which))
    except Damaged as error:
        raise UserError(str(error)) from error
    for problem in problems:
        warn(f"{problem}; taking the one before")
    if which == "best":
        if not jax.tree.leaves(found.best):
            raise UserError(f"no epoch was over at {directory / str(found.step)}: there is no best one; take latest")
        return found, found.best
    try:
        return found, found.state["ema_params"] or found.state["params"]
    except (KeyError, TypeError) as error:
        raise UserError(f"checkpoint {directory / str(found.step)} holds no parameters") from error


def _load_file(source: str) -> Classifier:
    with local(source, LARGEST_FILE) as path:
        arrays, description = read_file(path), read_description(path)
    return _described(arrays, description, source) if description else _foreign(arrays, source)


def _described(arrays: dict[str, np.ndarray], description: dict[str, Any], source: str) -> Classifier:
    """Return the model of a file that `Classifier.save` wrote."""
    try:
        if description["format"] > FORMAT:
            raise UserError(f"{source} was written by a newer release: install that")
        given = description["preprocessing"].items()
        fields: dict[str, Any] = {key: tuple(x) if isinstance(x, list) else x for key, x in given}
        preprocessing = Preprocessing(**fields)
        config = check(ConfigDict({"model": description["model"]})).model
        names, layout = tuple(map(str, description["label_names"])), description["layout"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{source}: the description of the model cannot be read: {error}") from error
    params = (
        unflatten_dict(arrays, sep="/")
        if layout == "paper"
        else from_layout(arrays, source, preprocessing.augment(len(names)).input_shape)[0]
    )
    found = f"{config.variant or 'a Mixer'}, {sum(x.size for x in arrays.values()):,} parameters, {len(names)} classes"
    return Classifier(config, params, preprocessing, names, Origin(source, found))


def _foreign(arrays: dict[str, np.ndarray], source: str) -> Classifier:
    """Return the model of another project's file, which contains neither class names nor preprocessing."""
    params, fields, layout = from_layout(arrays, source)
    height, width, channels = shape = fields.pop("image_shape")
    num_classes, config = fields.pop("num_classes"), default_config().model
    config.update(fields)
    count = sum(x.size for x in jax.tree.leaves(params))
    described = config.variant or f"{config.num_blocks} blocks of {config.hidden_dim}"
    found = f"{layout}, {described}, {count:,} parameters, {height}x{width}x{channels}, {num_classes} classes"
    names = tuple(f"class {i}" for i in range(num_classes))
    half = (0.5,) * channels  # the Mixers of the paper and timm take pixels from -1 to 1
    return Classifier(config, params, Preprocessing(shape, half, half), names, Origin(source, found))


def require_mixer(classifier: Classifier) -> MlpMixer:
    """Return the classifier's model, or raise `UserError` if the model is not a Mixer."""
    if not isinstance(classifier.model, MlpMixer):
        raise UserError(f"{classifier.origin.name} holds a {classifier.config.variant}, not a Mixer")
    return classifier.model
