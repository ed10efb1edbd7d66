"""Find properties of a dataset that make an accuracy less meaningful than it looks."""

from collections.abc import Iterator, Sequence

import numpy as np

from mixer_jax.data.dataset import Dataset, Split
from mixer_jax.data.listing import some

CLASSES = 5  # the maximum number of classes that one warning names
FEW = 10  # training images; a warning names the classes that have fewer
UNEQUAL = 10  # the ratio of largest to smallest class at which a warning is given


def cautions(dataset: Dataset, same_split: bool) -> Iterator[str]:
    """Yield a warning for each property of the dataset that a reader of the accuracy should know.

    The properties are: a single class, classes without an image in a split or with few training images, classes of very
    different size, and test or validation images that are also training images. With `same_split`, the config names one
    split for training and testing, so all test images are training images. Otherwise, images with the same pixels as a
    training image are counted, but only if all splits are in memory.
    """
    if dataset.num_classes == 1:
        yield f"there is only one class, {dataset.label_names[0]}: any model gets 100%"
    for name, split in {"training": dataset.train, "validation": dataset.val, "test": dataset.test}.items():
        labels = split.known_labels()
        if labels is not None and dataset.num_classes > 1:
            missing = np.flatnonzero(np.bincount(labels, minlength=dataset.num_classes) == 0)
            if len(missing):
                names = some([dataset.label_names[i] for i in missing], CLASSES)
                yield f"{_classes(len(missing))} no {name} image: {names}"
    labels = dataset.train.known_labels()
    if labels is not None and dataset.num_classes > 1:
        yield from _sizes(np.bincount(labels, minlength=dataset.num_classes), dataset.label_names)
    if same_split:
        yield (
            "the test images are the training images: the accuracy says nothing about images that the model has not "
            "seen"
        )
    elif isinstance(dataset.train, Split):
        known = {hash(image.tobytes()) for image in dataset.train.images}
        for name, split in {"test": dataset.test, "validation": dataset.val}.items():
            if isinstance(split, Split) and (name == "test" or split is not dataset.test):
                seen = sum(hash(image.tobytes()) in known for image in split.images)
                which = "is a training image" if seen == 1 else "are training images"
                if seen:
                    yield f"{seen:,} of {len(split):,} {name} images {which} too, pixel for pixel"


def _sizes(counts: np.ndarray, label_names: Sequence[str]) -> Iterator[str]:
    """Yield warnings about classes with few training images, and about classes of very different size."""
    if len(few := np.flatnonzero((counts > 0) & (counts < FEW))):
        names = some([f"{label_names[i]} {counts[i]}" for i in few.tolist()], CLASSES)
        yield f"{_classes(len(few))} fewer than {FEW} training images: {names}"
    least, most = int(np.where(counts, counts, counts.max()).argmin()), int(counts.argmax())
    if counts[most] >= UNEQUAL * counts[least]:
        yield (
            f"the classes differ in size, from {counts[least]:,} training images ({label_names[least]}) to "
            f"{counts[most]:,} ({label_names[most]}): the balanced accuracy gives every class the same weight"
        )


def _classes(number: int) -> str:
    return "a class has" if number == 1 else f"{number} classes have"
