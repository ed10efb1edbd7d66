"""Loading trained models from run directories, files and URLs."""

import dataclasses
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import unflatten_dict
from ml_collections import ConfigDict

from mixer_jax.checkpoints import Checkpoint, Checkpoints, Damaged, not_finite
from mixer_jax.config import check, default_config
from mixer_jax.errors import Unreadable, UserError, printable
from mixer_jax.inference.classifier import FORMAT, MODEL_FILE, Classifier
from mixer_jax.inference.preprocessing import Origin, Preprocessing
from mixer_jax.inference.timm_config import CONFIG_FILE, TimmConfig, read_config
from mixer_jax.messages import warn
from mixer_jax.run_directory import RunDirectory
from mixer_jax.weights import (
    IN_FOLDER,
    INDEX,
    LARGEST_FILE,
    READERS,
    SHIPPED,
    Published,
    downloaded,
    from_layout,
    of_file,
    published,
    read_description,
    read_file,
    unknown,
)

ON_HUB = (MODEL_FILE, "pytorch_model.bin")  # the files that are looked for there
LARGEST_CONFIG = 2**24  # bytes of a config.json, which may name thousands of classes


@dataclasses.dataclass(frozen=True)
class Known:
    """Properties that the caller knows and the file does not record.

    Attributes:
      image_size: (height, width) of the model's input; if () or inconsistent with the number of patches, the image is
        assumed square.
      patch_size, channels: of the images; None if not known.
    """

    image_size: Sequence[int] = ()
    patch_size: int | None = None
    channels: int | None = None


def load(source: str | Path, checkpoint: str = "best", known: Known = Known()) -> Classifier:
    """Load a trained model.

    Args:
      source: a run directory; a file written by `Classifier.save`, or its folder; a Mixer from the paper (.npz),
        timm or lucidrains (.safetensors, .pth and others), or its folder, as on the Hugging Face Hub; the https:// or
        gs:// URL of such a file; the name of a model that comes with the package, such as "cifar10", or of a published
        Mixer, a key of `mixer_jax.weights.PUBLISHED`; or "hf-hub:OWNER/NAME". What is downloaded stays in the user's
        cache folder. For the URL of a .npz file, the description that `Classifier.save` wrote beside the file is not
        downloaded.
      checkpoint: for a run directory: "best" for the parameters of the best epoch, "latest", or a step. For a file with
        several sets of weights: the name of one; "best" for the averaged ones (EMA).
      known: properties of the model, in case the file does not record them.

    Raises:
      UserError: if the source cannot be read, is not a model, or has parameters that are NaN or infinite.
    """
    path, entry = Path(os.path.expanduser(source)), "" if checkpoint in ("best", "latest") else checkpoint
    run = RunDirectory(path)
    if weights := weights_in(run.path):
        classifier = _load_file(weights, str(weights), entry, known)
    elif run.exists and (run.checkpoints.exists() or not read_config(run.config_file)):
        classifier = load_run(run, checkpoint)
    elif os.path.isfile(path):
        classifier = _load_file(path, str(source), entry, known)
    elif str(source) in SHIPPED:
        classifier = _load_file(SHIPPED[str(source)], str(source), entry, known)
    elif os.path.isdir(path) and not published(str(source)):
        others = sorted(
            file.name for file in path.glob("[!.]*") if file.suffix.lower() in READERS and file != run.predictions_file
        )
        instead = f": give {path / others[0]}" if others else ""
        config = "the config.json of timm and no" if run.exists else "no config.json, nor a"
        raise UserError(f"{path} is not a run directory: it has {config} {MODEL_FILE}{instead}")
    else:
        classifier = _load_remote(str(source), entry, known)
    if name := next(not_finite(classifier.params), ""):
        raise UserError(f"{source}: {name} holds NaN or infinity, so the logits would be meaningless")
    return classifier


def weights_in(folder: Path) -> Path | None:
    """Return the weights file in a folder of the Hugging Face layout; None if there is none, or the folder is a run's.

    Both such a folder and a run have a config.json, but only a run has checkpoints.
    """
    if os.path.isdir(RunDirectory(folder).checkpoints):
        return None
    return next((folder / name for name in IN_FOLDER if os.path.exists(folder / name)), None)


def load_run(run: RunDirectory, checkpoint: str = "best") -> Classifier:
    """Load the model of a run from its newest intact checkpoint, or from a given one.

    Args:
      run: a directory of a single run.
      checkpoint: as in `load`.

    Raises:
      UserError: if the directory is not that of a single run, or cannot be read.
    """
    if not run.exists:
        raise UserError(f"{run.path} is not a run directory: it has no {run.config_file.name}")
    config = run.config()
    if config.num_seeds > 1:
        raise UserError(f"{run.path} holds {config.num_seeds} runs: give one, such as {run.path}/seed_{config.seed}")
    info = run.dataset_info()
    try:
        label_names = tuple(map(str, info["label_names"]))
        preprocessing, num_test = Preprocessing.of(config, info), int(info.get("num_images", {}).get("test", 0))
        if not label_names:
            raise ValueError("there is no class")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"cannot read {run.config_file}: its description of the dataset is invalid") from error
    found, params = _read(run.checkpoints, checkpoint)
    history = found.progress.get("history", (found.progress.get("histories") or [None])[0])
    unfinished = ""
    if history is not None and not run.results_file.exists():
        unfinished = f"epoch {len(history)} of {math.ceil(config.epochs)}, not finished"
    origin = Origin(
        f"checkpoint {run.checkpoints / str(found.step)}",
        dataset=config.dataset,
        step=found.step,
        num_test=num_test,
        unfinished=unfinished,
        ran_on=found.progress.get("ran_on", {}),
    )
    described = f"run directory, {config.model.variant}, {origin.parameters(checkpoint)}"
    origin = dataclasses.replace(origin, found=described)
    return Classifier(config.model, params, preprocessing, label_names, origin)


def _read(directory: Path, which: str) -> tuple[Checkpoint, Any]:
    """Return a checkpoint and its parameters for evaluation."""
    checkpoints = Checkpoints(directory)
    steps = checkpoints.saved_steps()
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
        warn(f"{problem}; using the previous checkpoint")
    if which == "best":
        if not jax.tree.leaves(found.best):
            raise UserError(
                f"{directory / str(found.step)} was saved before the first epoch ended, so it has no best parameters: "
                "train on, or give the checkpoint latest"
            )
        return found, found.best
    try:
        return found, found.state["ema_params"] or found.state["params"]
    except (KeyError, TypeError) as error:
        raise UserError(f"checkpoint {directory / str(found.step)} holds no parameters") from error


def _load_remote(source: str, entry: str, known: Known) -> Classifier:
    """Return the model of a URL or a name."""
    given = published(source)
    address = given.source if given else source
    if not given and "://" not in source and not re.fullmatch(r"hf-hub:[\w.-]+/[\w.@-]+", source):
        raise unknown(source)
    config = None
    if not address.startswith("hf-hub:"):
        file = downloaded(address, LARGEST_FILE, given.sha256 if given else "")
        if on_hub := re.fullmatch(rf"(.*/resolve/[^/]+)/({'|'.join(map(re.escape, ON_HUB))})(\?.*)?", address):
            try:
                config = downloaded(f"{on_hub[1]}/{CONFIG_FILE}", LARGEST_CONFIG, optional=True)
            except UserError as error:
                warn(f"without its {CONFIG_FILE}: {error}")
    else:
        found = (downloaded(f"{address}/{name}", LARGEST_FILE, optional=True) for name in ON_HUB)
        file = next(filter(None, found), None)
        config = downloaded(f"{address}/{CONFIG_FILE}", LARGEST_CONFIG, optional=True)
    if file is None:
        raise UserError(f"{source} has neither {' nor '.join(ON_HUB)}")
    try:
        return _load_file(file, source, entry, known, given, config)
    except Unreadable as error:  # such as the page of a network that asks for a login
        bad = config if config and str(config) in str(error) else file
        aside = bad.replace(bad.with_name(f"{bad.name}.damaged"))
        raise UserError(f"{error}; the file is now {aside}: run the same command to download it again") from error


def _load_file(
    file: Path, source: str, entry: str, known: Known, given: Published | None = None, config: Path | None = None
) -> Classifier:
    """Return the model of a file.

    Args:
      file: the file.
      source: where it comes from, for messages.
      entry: as in `from_layout`.
      known: as in `load`.
      given: the entry in `PUBLISHED`, if the file is that of a published Mixer.
      config: timm's config.json; None for the one beside the file, if any.
    """
    if (part := re.search(r"-\d{5}-of-(\d{5})", file.name)) and int(part[1]) > 1:
        index = source.replace(part[0], "") + INDEX
        raise UserError(f"{source} is one of the {int(part[1])} files of a model: give {index}")
    arrays, description = read_file(file), read_description(file)
    if description:
        if entry:
            raise UserError(f"{source} holds one set of weights: leave checkpoint out")
        return _described(arrays, description, source)
    beside = file.with_name(CONFIG_FILE)
    if config is None and beside.is_file():
        if file.name in IN_FOLDER:
            config = beside
        else:
            warn(f"{beside} is not used, as it may belong to another file: to use it, name the weights {MODEL_FILE}")
    timm = read_config(config) if config else None
    if timm is None and (given := given or of_file(file.name)):
        timm = TimmConfig((224, 224), 3, (given.mean,), (given.std,), f"{given.resize}/0.875")
    return _foreign(arrays, source, entry, known, timm)


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
        input_shape = preprocessing.augment(len(names)).input_shape
        params = unflatten_dict(arrays, sep="/")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        detail = printable(str(error))[:200]
        raise UserError(f"{source}: the description of the model cannot be read: {detail}") from error
    if layout != "paper":
        height, width, channels = input_shape
        known = {"image_size": (height, width), "patch_size": config.patch_size, "channels": channels}
        params, *_ = from_layout(arrays, source, **known)
    found = f"{config.variant or 'a Mixer'}, {sum(x.size for x in arrays.values()):,} parameters, {len(names)} classes"
    return Classifier(config, params, preprocessing, names, Origin(source, found))


def _foreign(
    arrays: dict[str, np.ndarray], source: str, entry: str, known: Known, timm: TimmConfig | None
) -> Classifier:
    """Return the model of another project's file; its preprocessing comes from `timm`, if that is not None."""
    params, fields, layout = from_layout(
        arrays,
        source,
        entry=entry,
        image_size=timm.image_size if timm else (),
        perhaps=known.image_size,
        patch_size=known.patch_size,
        channels=timm.channels if timm else known.channels,
    )
    shape = fields.pop("image_shape")
    num_classes, config = fields.pop("num_classes"), default_config().model
    config.update(fields)
    count = sum(x.size for x in jax.tree.leaves(params))
    described = config.variant or f"{config.num_blocks} blocks of {config.hidden_dim}"
    classes = f"{num_classes} classes" if num_classes else "no head"
    found = f"{layout}, {described}, {count:,} parameters, {'x'.join(map(str, shape))}, {classes}"
    names = tuple(f"class {i}" for i in range(num_classes))
    half = (0.5,) * shape[2]  # the Mixers of the paper and timm take pixels from -1 to 1
    preprocessing = Preprocessing(shape, half, half)
    if timm:
        if timm.channels != shape[2]:
            raise UserError(f"{source} is for {shape[2]} channels, its {CONFIG_FILE} for {timm.channels}")
        mean, std = (x[:1] * shape[2] if len(set(x)) == 1 else x for x in (timm.mean, timm.std))
        try:
            preprocessing = Preprocessing(shape, mean, std, resize=timm.resize)
        except ValueError as error:
            raise UserError(f"{source}: its {CONFIG_FILE} cannot be used: {error}") from error
        names = timm.label_names if len(timm.label_names) == num_classes else names
    return Classifier(config, params, preprocessing, names, Origin(source, found, shape_assumed=timm is None))
