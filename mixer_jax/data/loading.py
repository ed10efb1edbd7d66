"""Open the dataset that the `dataset` section of a config describes."""

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from mixer_jax.data.cautions import cautions
from mixer_jax.data.dataset import (
    Dataset,
    Split,
    StreamedSplit,
    count_levels,
    decode,
    pixel_statistics,
    read_in_parts,
    stream,
)
from mixer_jax.data.decoded_cache import DecodedCache
from mixer_jax.data.folders import ImageFolder
from mixer_jax.data.holdout import hold_out
from mixer_jax.data.images import RESIZES, Fit
from mixer_jax.data.memory import budget, resident_size
from mixer_jax.data.size import CHOSEN, choose_size, given_size
from mixer_jax.data.sources import Digits, FolderSource, Source, Subset, image_folder
from mixer_jax.errors import UserError, one_of
from mixer_jax.messages import say

FIXED = {"paper": (0.5, 0.5), "unit": (0.0, 1.0)}  # the normalizations by the same mean and std for every dataset
CHOICES = {
    "layout": ("auto", "splits"),
    "on_error": ("stop", "skip"),
    "hold_out": ("by_class", "random"),
    "normalization": ("standard", *FIXED),
}
SIZES_OF = 500  # images of TFDS, to choose a size for all
PREPARED = "features.json"  # in a folder that TFDS has prepared
# The fields of a `dataset` section that determine its pixels.
SOURCE_FIELDS = (
    "name", "data_dir", "layout", "class_pattern", "test_fraction", "on_error",
    "train_split", "val_split", "test_split", "image_size", "resize", "draft", "bits",
)  # fmt: skip
# Images that the mean and standard deviation of a streamed dataset are computed from; files can be large photographs.
STATISTICS_IMAGES, STATISTICS_FILES = 10_000, 2_000


def load(config: ConfigDict) -> Dataset:
    """Open the dataset of a `dataset` section.

    If the section names no validation split, validation images are held out of the training split. A dataset within the
    memory budget is decoded into memory, or read from the cache of decoded datasets. The images of a larger dataset are
    decoded on demand.

    Args:
      config: the `dataset` section; see `mixer_jax.config`.

    Returns:
      The dataset, with its pixel statistics and cautions.

    Raises:
      UserError: if the section is invalid, or the data does not match it.
    """
    config, source, folder = _opened(config)
    if folder:
        for line in folder.lines():
            say(line)
    sources = {"train": source(config.train_split), "test": source(config.test_split)}
    if config.val_split not in ("", config.test_split):
        sources["validation"] = source(config.val_split)
    label_names = sources["train"].label_names
    for name, other in sources.items():
        if other.label_names != label_names:
            odd = sorted(set(other.label_names) ^ set(label_names))
            raise UserError(f"the classes of the {name} and the train split differ: {', '.join(odd[:5])}")
    splits: dict[str, Split | StreamedSplit] = {}
    if resident := _resident(config, sources):
        splits |= resident
        if not config.val_split:
            whole = resident["train"]
            kept, held_out = hold_out(config, len(whole), lambda: whole.labels)
            splits["train"], splits["validation"] = whole.subset(kept), whole.subset(held_out)
    else:
        if not config.val_split:
            sources["train"], sources["validation"] = _held_out(config, sources["train"])
        splits |= {name: stream(source, f"{name} images") for name, source in sources.items()}
    splits.setdefault("validation", splits["test"])
    shape = splits["train"].image_shape
    for name, split in splits.items():
        if split.image_shape != shape:
            raise UserError(
                f"the {name} images are {split.image_shape}, the train images {shape}: "
                "give the size to fit them to with config.dataset.image_size=HEIGHT,WIDTH"
            )
    mean, std = _normalization(config.normalization, splits["train"], STATISTICS_FILES if folder else STATISTICS_IMAGES)
    bits = folder.bits if folder else config.bits or 16
    train, val, test = splits["train"], splits["validation"], splits["test"]
    dataset = Dataset(config.name, label_names, train, val, test, mean, std, bits=bits)
    found = cautions(dataset, config.train_split == config.test_split)
    return dataclasses.replace(dataset, cautions=(*found, *(folder.cautions() if folder else ())))


def checked_fit(config: ConfigDict) -> Fit:
    """Return how the images of a `dataset` section are fitted; no data is read.

    Raises:
      UserError: if a name in the section does not exist, or its image size is invalid.
    """
    for field, valid in CHOICES.items():
        if config[field] not in valid:
            raise one_of(f"config.dataset.{field}", config[field], valid)
    for field in ("train_split", "test_split"):
        if not config[field]:
            raise UserError(f"config.dataset.{field} is empty: name a split")
    try:
        return Fit(given_size(config.image_size) or (), config.resize, config.draft, config.bits or 16)
    except ValueError as error:
        raise one_of("config.dataset.resize", config.resize, RESIZES) from error


def open_split(config: ConfigDict, name: str, channels: int = 3) -> StreamedSplit:
    """Open one split of a dataset; its images are decoded on demand.

    The other splits need not exist.

    Args:
      config: the `dataset` section; see `mixer_jax.config`.
      name: "train" (without the images that are held out of it), "validation" or "test".
      channels: the channels to read from image files, 1 for grey or 3 for RGB.

    Raises:
      UserError: as in `load`.
    """
    config, opener, _ = _opened(config)

    def opened(split: str) -> Source:
        source = opener(split)
        return dataclasses.replace(source, channels=channels) if isinstance(source, FolderSource) else source

    if name == "test" or config.val_split:
        names = {"train": config.train_split, "validation": config.val_split, "test": config.test_split}
        return stream(opened(names[name]), f"{name} images")
    rest, held_out = _held_out(config, opened(config.train_split))
    return stream(rest if name == "train" else held_out, f"{name} images")


def selected_on(config: ConfigDict) -> str:
    """Return the split that chooses the best epoch: "test" if it is also the validation split, else "validation"."""
    return "test" if config.val_split == config.test_split else "validation"


def _held_out(config: ConfigDict, train: Source) -> tuple[Subset, Subset]:
    rest, held = hold_out(config, len(train), train.labels)
    return Subset(train, rest), Subset(train, held)


def _resident(config: ConfigDict, sources: dict[str, Source]) -> dict[str, Split] | None:
    """Return the decoded splits, or None if they exceed the memory budget."""
    most = budget(config.memory_budget_gib)
    fields = {field: config[field] for field in SOURCE_FIELDS}
    if config.data_dir:  # the whole path, because folders of different projects may have the same relative path
        fields["data_dir"] = os.path.abspath(os.path.expanduser(config.data_dir))
    kept = DecodedCache(repr(list(fields.values())), sources)
    if splits := kept.read(most):
        return splits
    if sum(resident_size(stream(source, f"{name} images")) for name, source in sources.items()) > most:
        return None
    key = kept.key()
    splits = {name: decode(source, f"{name} images") for name, source in sources.items()}
    kept.write(splits, key)
    return splits


def _opened(config: ConfigDict) -> tuple[ConfigDict, Callable[[str], Source], ImageFolder | None]:
    """Return the section (with the source's split names), a function that opens a split, and any image folder."""
    fit, size = checked_fit(config), given_size(config.image_size)
    prepared = config.name == "folder" and os.path.isfile(Path(os.path.expanduser(config.data_dir)) / PREPARED)
    if config.name == "folder" and not prepared:
        if not config.data_dir:
            raise UserError("config.dataset.data_dir is not set: give the folder of the images")
        if config.layout == "splits":
            if size is None:
                raise UserError(
                    f"config.dataset.image_size={CHOSEN[0]} cannot be combined with config.dataset.layout=splits"
                )
            return config, lambda split: image_folder(config.data_dir, split, fit), None
        found = Path(os.path.expanduser(config.data_dir)).glob(f"*/{PREPARED}")
        if versions := [file.parent for file in found if (file.parent / "dataset_info.json").exists()]:
            newest = max(versions, key=lambda folder: list(map(int, re.findall(r"\d+", folder.name))))
            raise UserError(
                f"{config.data_dir} holds a prepared dataset: give its version with config.dataset.data_dir={newest}"
            )
        folder = ImageFolder(config)
        fit = dataclasses.replace(fit, size=folder.image_size, bits=folder.bits)
        return folder.named(config), lambda split: folder.source(split, fit), folder
    if config.name == "digits":
        if size != ():
            raise UserError("config.dataset.image_size: digits are 8x8; to scale them, use config.augment.input_size")
        return config, Digits, None
    # Imported here, because TFDS takes a second to import and the other sources do not need it.
    from mixer_jax.data.prepare import builder_in, prepared_builder
    from mixer_jax.data.tfds_source import TfdsSource

    builder = builder_in(config.data_dir) if prepared else prepared_builder(config.name, config.data_dir)
    if size is None:
        size = choose_size(_sizes(TfdsSource(builder, config.train_split)))
    fit = dataclasses.replace(fit, size=size, draft=False)  # TFDS decodes images in full
    return config, lambda split: TfdsSource(builder, split, fit), None


def _sizes(source: Source) -> list[tuple[int, int]]:
    """Return the sizes (height, width) of some images, evenly spread."""
    some = np.linspace(0, len(source) - 1, min(len(source), SIZES_OF)).astype(int)
    return [image.shape[:2] for image, _ in source.__getitems__(some.tolist())]


def _normalization(name: str, train: Split | StreamedSplit, most: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    channels = train.image_shape[-1]
    if name in FIXED:
        centre, scale = FIXED[name]
        return (centre,) * channels, (scale,) * channels
    if isinstance(train, StreamedSplit):
        some = np.linspace(0, len(train) - 1, min(len(train), most)).astype(int)
        chosen = stream(Subset(train.source, some), title := "images to normalise by")
        counts = np.sum([count_levels(images) for _, images, _ in read_in_parts(chosen, title)], axis=0)
    else:
        counts = count_levels(train.images)
    mean, std = pixel_statistics(counts)
    return mean, tuple(s or 1.0 for s in std)  # a constant channel must not be divided by zero
