"""Opens datasets: from the `dataset` block of a config to checked splits."""

import dataclasses
from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict

from mixer_jax.data.cautions import cautions
from mixer_jax.data.dataset import Dataset, Split, StreamedSplit, decode, pixel_statistics
from mixer_jax.data.decoded_cache import DecodedCache
from mixer_jax.data.holdout import HOLD_OUTS, hold_out
from mixer_jax.data.memory import budget, decoded_size
from mixer_jax.data.sources import Digits, Source, Subset, image_folder
from mixer_jax.errors import UserError, one_of

NORMALIZATIONS = ("standard", "paper", "unit")
# Of a `dataset` block, what decides which pixels it has.
SOURCE_FIELDS = ("name", "data_dir", "train_split", "val_split", "test_split", "image_size")
STATISTICS_IMAGES = 10_000  # of a streamed set, that its mean and standard deviation are taken of


def load(config: ConfigDict) -> Dataset:
    """Opens the dataset of `config.dataset`: holds out the validation slice, measures the pixels, and decodes it all,
    or reads what an earlier start has decoded, unless it is larger than the memory budget; then its images are read as
    they are needed.

    Args:
      config: the `dataset` block; see `mixer_jax.config`.

    Raises:
      UserError: if anything about the data is not as the config says.
    """
    if config.normalization not in NORMALIZATIONS:
        raise one_of("config.dataset.normalization", config.normalization, NORMALIZATIONS)
    if config.hold_out not in HOLD_OUTS:
        raise one_of("config.dataset.hold_out", config.hold_out, HOLD_OUTS)
    source = _opener(config)
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
        splits |= {name: _streamed(source, f"{name} images") for name, source in sources.items()}
    splits.setdefault("validation", splits["test"])
    shape = splits["train"].image_shape
    for name, split in splits.items():
        if split.image_shape != shape:
            raise UserError(
                f"the {name} images are {split.image_shape}, the train images {shape}: "
                "give the size to fit them to with --config.dataset.image_size=HEIGHT,WIDTH"
            )
    mean, std = _normalization(config.normalization, splits["train"])
    dataset = Dataset(config.name, label_names, splits["train"], splits["validation"], splits["test"], mean, std)
    return dataclasses.replace(dataset, cautions=cautions(dataset, config.train_split == config.test_split))


def open_split(config: ConfigDict, name: str) -> tuple[StreamedSplit, tuple[str, ...]]:
    """Opens one split of a dataset, for which the others need not be there; its images are read as they are needed.

    Args:
      config: the `dataset` block; see `mixer_jax.config`.
      name: "train" (without what is held out of it), "validation" or "test".

    Returns:
      The split, and the names of the classes.

    Raises:
      UserError: as `load`.
    """
    source = _source(config, _opener(config), name)
    return _streamed(source, f"{name} images"), source.label_names


def selected_on(config: ConfigDict) -> str:
    """What the best epoch is chosen on by a `dataset` block: "test", or a "validation" that is none of it."""
    return "test" if config.val_split == config.test_split else "validation"


def _source(config: ConfigDict, source: Callable[[str], Source], name: str) -> Source:
    if name == "test":
        return source(config.test_split)
    if config.val_split:
        return source(config.train_split if name == "train" else config.val_split)
    return _held_out(config, source(config.train_split))[0 if name == "train" else 1]


def _held_out(config: ConfigDict, train: Source) -> tuple[Subset, Subset]:
    rest, held = hold_out(config, len(train), train.labels)
    return Subset(train, rest), Subset(train, held)


def _resident(config: ConfigDict, sources: dict[str, Source]) -> dict[str, Split] | None:
    """The splits, decoded, if the memory budget allows."""
    most = budget(config.memory_budget_gib)
    kept = DecodedCache(repr([config[field] for field in SOURCE_FIELDS]), sources)
    if splits := kept.read(most):
        return splits
    if sum(map(decoded_size, sources.values())) > most:
        return None
    key = kept.key()
    splits = {name: decode(source, f"{name} images") for name, source in sources.items()}
    kept.write(splits, key)
    return splits


def _streamed(source: Source, title: str) -> StreamedSplit:
    first = decode(Subset(source, np.arange(min(1, len(source)))), title)
    return StreamedSplit(source, first.image_shape, len(source.label_names))


def _opener(config: ConfigDict) -> Callable[[str], Source]:
    """Returns the function that opens a split by name."""
    size = tuple(config.image_size)
    if len(size) == 1:
        size *= 2
    if len(size) > 2 or any(not isinstance(side, int) or side < 1 for side in size):
        raise UserError(f"config.dataset.image_size={config.image_size}: give HEIGHT,WIDTH in pixels, or one number")
    if config.name == "folder":
        if not config.data_dir:
            raise UserError("config.dataset.data_dir is not set: give the folder that holds train/ and test/")
        return lambda split: image_folder(config.data_dir, split, size)
    if config.name == "digits":
        if size:
            raise UserError("config.dataset.image_size: digits are 8x8 and stay so")
        return Digits
    # Imported only here: TFDS takes a second to import, and the other sources do without it.
    from mixer_jax.data.prepare import prepared_builder
    from mixer_jax.data.tfds_source import TfdsSource

    builder = prepared_builder(config.name, config.data_dir)
    return lambda split: TfdsSource(builder, split, size)


def _normalization(name: str, train: Split | StreamedSplit) -> tuple[tuple[float, ...], tuple[float, ...]]:
    channels = train.image_shape[-1]
    if name != "standard":
        return ((0.5,) * channels, (0.5,) * channels) if name == "paper" else ((0.0,) * channels, (1.0,) * channels)
    if isinstance(train, StreamedSplit):
        some = np.linspace(0, len(train) - 1, min(len(train), STATISTICS_IMAGES)).astype(int)
        train = decode(Subset(train.source, some), "images to normalise by")
    mean, std = pixel_statistics(train.images)
    return mean, tuple(s or 1.0 for s in std)  # a constant channel stays finite
