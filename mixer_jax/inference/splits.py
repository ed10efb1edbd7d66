"""Evaluation of trained models on the splits of datasets."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from mixer_jax import data
from mixer_jax.cache import cores
from mixer_jax.config import default_config
from mixer_jax.data import StreamedSplit, given_size
from mixer_jax.data.sources import FolderSource, Subset
from mixer_jax.errors import UserError, printable
from mixer_jax.inference.classifier import Classifier
from mixer_jax.messages import say, warn


def dataset_of(
    classifier: Classifier, name: str | None = None, data_dir: str | None = None, on_error: str | None = None
) -> ConfigDict:
    """Return the `dataset` section of a config for the data to evaluate a model on.

    Args:
      classifier: the model.
      name: the name of the dataset; None for the dataset of the model's run. Any other dataset must have the splits
        "train" and "test". Its images are scaled to the size of the model's images, except those of "digits".
      data_dir, on_error: fields of the section. None stands for the run's values if the dataset is the run's, and for
        the defaults otherwise.

    Raises:
      UserError: if `name` is None and the model does not come from a run.
    """
    own = classifier.origin.dataset
    if name is None and own is None:
        raise UserError(f"{classifier.origin.name} does not come from a run, so its dataset is unknown: give a dataset")
    if own is None or name not in (None, own.name):
        config = default_config().dataset
        config.name, config.image_size = name, () if name == "digits" else classifier.image_shape[:2]
        config.resize, config.draft = classifier.preprocessing.resize, classifier.preprocessing.draft
    else:
        config = own.copy_and_resolve_references()
        if given_size(config.image_size) is None:  # it was chosen from the run's training images
            config.image_size = classifier.image_shape[:2]
    config.bits = classifier.preprocessing.bits
    config.update({key: x for key, x in (("data_dir", data_dir), ("on_error", on_error)) if x is not None})
    return config


def open_split(classifier: Classifier, dataset: ConfigDict, split: str) -> StreamedSplit:
    """Open a split, "train", "validation" or "test", of the data that a `dataset` section describes.

    Its image shape and classes must be the model's. Warns if the run had a different number of test images.

    Raises:
      UserError: if the split cannot be read, or its classes or image shape are not the model's.
    """
    images = data.open_split(dataset, split, classifier.image_shape[2])
    say_layout(images)
    label_names = images.source.label_names
    unnamed = tuple(f"class {i}" for i in range(len(label_names)))  # other projects' files hold no names
    if classifier.label_names not in (label_names, unnamed):
        odd = sorted(set(label_names) ^ set(classifier.label_names))
        raise UserError(f"the classes of the {split} split are not those of the model: {', '.join(odd[:5])}")
    if images.image_shape != classifier.image_shape:
        raise UserError(f"the {split} images are {images.image_shape}, those of the model {classifier.image_shape}")
    own, expected = classifier.origin.dataset, classifier.origin.num_test
    if split == "test" and own is not None and own.name == dataset.name and expected not in (0, len(images)):
        warn(f"the run had {expected:,} test images, but {dataset.data_dir or dataset.name} has {len(images):,} now")
    return images


def say_layout(split: StreamedSplit) -> None:
    """Say how the images of a folder were found, and which of them are for testing."""
    source = split.source.source if isinstance(split.source, Subset) else split.source
    if isinstance(source, FolderSource) and source.layout:
        say(f"Images in {printable(source.root)}: {source.layout}")


def over_split(
    apply: Callable[[np.ndarray, int], np.ndarray], split: StreamedSplit, batch_size: int, title: str
) -> tuple[np.ndarray, np.ndarray]:
    """Apply a method of a `Classifier` to all images of a split.

    Args:
      apply: `Classifier.logits` or `Classifier.features`.
      split: what `open_split` returns.
      batch_size: images per call.
      title: the title of the progress bar.

    Returns:
      The method's outputs for all images, concatenated, and the labels (n,) int32.
    """
    batch_size, outputs, labels = min(batch_size, len(split)), [], []
    with ThreadPoolExecutor(cores()) as pool:
        for start in tqdm(range(0, len(split), batch_size), title, unit="batches", leave=False, disable=None):
            batch = np.arange(start, min(start + batch_size, len(split)))
            parts = list(pool.map(split.read, np.array_split(batch, min(cores(), len(batch)))))
            outputs.append(apply(np.concatenate([images for images, _ in parts]), batch_size))
            labels += [of_part for _, of_part in parts]
    return np.concatenate(outputs), np.concatenate(labels)
