"""The data: from a config's `dataset` block to decoded, checked splits (`load`), a plan of batches, and a feed."""

from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict

from mixer_jax.data.dataset import Dataset, Split, StreamedSplit, decode, pixel_statistics
from mixer_jax.data.feeds import ResidentFeed, Share, StreamingFeed, take
from mixer_jax.data.images import as_pixels, read_image
from mixer_jax.data.kept import Kept
from mixer_jax.data.memory import budget, decoded_size, device_memory
from mixer_jax.data.plan import BatchPlan, EvaluationPlan, Plan
from mixer_jax.data.sources import Digits, Source, Subset, image_folder, shuffled
from mixer_jax.errors import UserError, one_of

__all__ = [
    "BatchPlan",
    "Dataset",
    "EvaluationPlan",
    "Plan",
    "ResidentFeed",
    "Share",
    "Split",
    "StreamedSplit",
    "StreamingFeed",
    "as_pixels",
    "device_memory",
    "load",
    "open_split",
    "read_image",
    "selected_on",
    "take",
]

# Fixed, so that runs with different seeds are compared on the same validation images.
HOLDOUT_SEED = 1
NORMALIZATIONS = ("standard", "paper", "unit")
# Of a `dataset` block, what decides which pixels it has.
SOURCE_FIELDS = ("name", "data_dir", "train_split", "val_split", "val_fraction", "test_split", "image_size")
STATISTICS_IMAGES = 10_000  # of a streamed set, that its mean and standard deviation are taken of


def load(config: ConfigDict, say: Callable[[str], None] = print) -> Dataset:
    """Opens the dataset of `config.dataset`: holds out the validation slice, measures the pixels, and decodes it all,
    or reads what an earlier start has decoded, unless it is larger than the memory budget; then its images are read as
    they are needed.

    Args:
      config: the `dataset` block; see `mixer_jax.config`.
      say: told in one line what takes long.

    Raises:
      UserError: if anything about the data is not as the config says.
    """
    if config.normalization not in NORMALIZATIONS:
        raise one_of("config.dataset.normalization", config.normalization, NORMALIZATIONS)
    source = _opener(config, say)
    train, test = _source(config, source, "train"), _source(config, source, "test")
    val = test if config.val_split == config.test_split else _source(config, source, "validation")
    for name, other in (("test", test), ("validation", val)):
        if other.label_names != train.label_names:
            odd = sorted(set(other.label_names) ^ set(train.label_names))
            raise UserError(f"the classes of the {name} and the train split differ: {', '.join(odd[:5])}")
    sources = {"train": train, "test": test} | ({} if val is test else {"validation": val})
    splits = _resident(config, sources) or {
        name: _streamed(source, f"{name} images") for name, source in sources.items()
    }
    splits.setdefault("validation", splits["test"])
    shape = splits["train"].image_shape
    for name, split in splits.items():
        if split.image_shape != shape:
            raise UserError(
                f"the {name} images are {split.image_shape}, the train images {shape}: "
                "give the size to fit them to with --config.dataset.image_size=HEIGHT,WIDTH"
            )
    mean, std = _normalization(config.normalization, splits["train"])
    return Dataset(config.name, train.label_names, splits["train"], splits["validation"], splits["test"], mean, std)


def open_split(
    config: ConfigDict, name: str, say: Callable[[str], None] = print
) -> tuple[StreamedSplit, tuple[str, ...]]:
    """Opens one split of a dataset, for which the others need not be there; its images are read as they are needed.

    Args:
      config: the `dataset` block; see `mixer_jax.config`.
      name: "train" (without what is held out of it), "validation" or "test".
      say: told in one line what takes long.

    Returns:
      The split, and the names of the classes.

    Raises:
      UserError: as `load`.
    """
    source = _source(config, _opener(config, say), name)
    return _streamed(source, f"{name} images"), source.label_names


def selected_on(config: ConfigDict) -> str:
    """What the best epoch is chosen on by a `dataset` block: "test", or a "validation" that is none of it."""
    return "test" if config.val_split == config.test_split else "validation"


def _source(config: ConfigDict, source: Callable[[str], Source], name: str) -> Source:
    if name == "test":
        return source(config.test_split)
    if config.val_split:
        return source(config.train_split if name == "train" else config.val_split)
    train, val = _hold_out(source(config.train_split), config.val_fraction)
    return train if name == "train" else val


def _resident(config: ConfigDict, sources: dict[str, Source]) -> dict[str, Split] | None:
    """The splits, decoded, if the memory budget allows."""
    most = budget(config.memory_budget_gib)
    kept = Kept(repr([config[field] for field in SOURCE_FIELDS]), sources)
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


def _opener(config: ConfigDict, say: Callable[[str], None]) -> Callable[[str], Source]:
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

    builder = prepared_builder(config.name, config.data_dir, say)
    return lambda split: TfdsSource(builder, split, size)


def _hold_out(train: Source, fraction: float) -> tuple[Subset, Subset]:
    """Splits a validation slice off, picked once and for all at random."""
    size = round(len(train) * fraction)
    if not 0 < size < len(train):
        raise UserError(
            f"config.dataset.val_fraction={fraction} of {len(train)} training examples leaves an empty split: "
            "give a fraction between 0 and 1, or name a split with config.dataset.val_split"
        )
    order = shuffled(len(train), HOLDOUT_SEED)
    return Subset(train, np.sort(order[size:])), Subset(train, np.sort(order[:size]))


def _normalization(name: str, train: Split | StreamedSplit) -> tuple[tuple[float, ...], tuple[float, ...]]:
    channels = train.image_shape[-1]
    if name != "standard":
        return ((0.5,) * channels, (0.5,) * channels) if name == "paper" else ((0.0,) * channels, (1.0,) * channels)
    if isinstance(train, StreamedSplit):
        some = np.linspace(0, len(train) - 1, min(len(train), STATISTICS_IMAGES)).astype(int)
        train = decode(Subset(train.source, some), "images to normalise by")
    mean, std = pixel_statistics(train.images)
    return mean, tuple(s or 1.0 for s in std)  # a constant channel stays finite
