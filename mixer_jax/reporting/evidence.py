"""The predictions and images that a finished run keeps for its report, in predictions.npz."""

import dataclasses
import math
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from ml_collections import ConfigDict

from mixer_jax.cache import cores
from mixer_jax.data import Dataset, Split, StreamedSplit
from mixer_jax.errors import UserError, in_one_line, printable
from mixer_jax.inference import Classifier
from mixer_jax.messages import warn
from mixer_jax.metrics import hardest_first, probabilities
from mixer_jax.models import MlpMixer
from mixer_jax.reporting.augmented import augmented_batches
from mixer_jax.storage import replacing

MISTAKES, OF_A_CLASS, WORST = 24, 6, 5  # mistakes to show in all, and of each of the WORST hardest classes
RIGHT = 12  # right answers to show, each of a different class
AUGMENTED = 12  # images of a batch to show
BATCH = 64  # images whose features are computed at a time
MAPS = 6  # images whose tokens' contributions are shown: half of them mistakes
# Limits of the search for the nearest training image, in images and pixel values: the model is applied to every image.
CANDIDATES, NUMBERS = 2000, 2**23
STREAMED = 200  # the most of a streamed dataset, whose images have to be decoded


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The predictions on the test set, with the images that a report shows.

    Attributes:
      logits: (n, classes) float32, of all test images.
      labels: (n,) int32.
      chosen: (k,) sorted indices of the test images to show.
      images, names: of these test images, (k, height, width, channels) uint8 and (k,) str.
      nearest_images, nearest_labels, nearest_names: the training image with the nearest features, for each chosen
        image; empty in a run of an older release.
      candidates: the number of training images, evenly spaced in the training split, among which the nearest were
        sought.
      candidates_right: how many of them the model classifies correctly, without augmentation; -1 if unknown.
      batch_images, batch_captions: images of the first training batch as the model saw them, and their classes.
      mapped: (m,) indices into `chosen` of the images that have maps.
      maps: (m, 2, rows, columns) float32, what each token adds to the logits of the predicted and of the true class,
        relative to the mean over the tokens.
    """

    logits: np.ndarray
    labels: np.ndarray
    chosen: np.ndarray
    images: np.ndarray
    names: np.ndarray
    nearest_images: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.uint8))
    nearest_labels: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))
    nearest_names: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, str))
    candidates: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((), np.int32))
    candidates_right: np.ndarray = dataclasses.field(default_factory=lambda: np.array(-1))
    batch_images: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.uint8))
    batch_captions: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, str))
    mapped: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))
    maps: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.float32))

    def save(self, file: Path) -> None:
        """Write predictions.npz."""
        with replacing(file) as partial:
            np.savez_compressed(partial, **vars(self))

    @classmethod
    def load(cls, file: Path) -> "Evidence":
        """Read predictions.npz.

        Raises:
          UserError: if the file is damaged.
        """
        try:
            with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
                known = {field.name: arrays[field.name] for field in dataclasses.fields(cls) if field.name in arrays}
            return cls(**{"names": known["chosen"].astype(str)} | known)  # older releases kept no names
        except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile, zlib.error) as error:
            raise UserError(f"{file} is damaged: delete it to get a report without the predictions") from error

    @property
    def wrong(self) -> np.ndarray:
        """Which of the test images are mistakes, (n,) bool."""
        return self.logits.argmax(1) != self.labels


def gather(
    classifier: Classifier, logits: np.ndarray, labels: np.ndarray, dataset: Dataset, config: ConfigDict
) -> Evidence:
    """Choose which test images to show, given all logits and labels, and compute what is shown with each."""
    mistakes, right = _mistakes(logits, labels), _right(logits, labels)
    chosen = np.union1d(mistakes, right).astype(int)
    images, _ = dataset.test.read(chosen)
    evidence = Evidence(logits, labels, chosen, images, _names(dataset.test, chosen))
    parts = {
        "the first batch": lambda: _first_batch(config, dataset),
        "the nearest training images": lambda: _nearest(classifier, images, dataset),
        "what each token adds": lambda: _maps(classifier, evidence),
    }
    found: dict[str, np.ndarray] = {}
    with ThreadPoolExecutor(len(parts)) as pool:  # most of the time goes into compiling, on one core each
        computed = {name: pool.submit(part) for name, part in parts.items()}
    for name, part in computed.items():
        try:
            found |= part.result()
        except Exception as error:  # such as too little memory on the device: the others are still worth having
            warn(f"the report lacks {name}: {in_one_line(error)[:200]}")
    return dataclasses.replace(evidence, **found)


def compile_parts(classifier: Classifier, dataset: Dataset, config: ConfigDict) -> None:
    """Compile the programs that `gather` runs; of the classifier's parameters, only shapes and dtypes are used."""
    _first_batch(config, dataset)
    for lowered in classifier.lower(BATCH):
        lowered.compile()


def _names(split: Split | StreamedSplit, indices: np.ndarray) -> np.ndarray:
    return np.array([printable(split.name(i)) for i in indices], str)


def _mistakes(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the sorted indices of the most confident mistakes, overall and within the hardest classes."""
    confidence, wrong = probabilities(logits).max(1), logits.argmax(1) != labels
    order = np.argsort(-confidence * wrong, kind="stable")[: wrong.sum()]
    counts, right = (np.bincount(labels[which], minlength=labels.max() + 1) for which in (slice(None), ~wrong))
    worst = hardest_first(right, counts)[:WORST]
    of_class = [order[labels[order] == label][:OF_A_CLASS] for label in worst]
    return np.unique(np.concatenate([order[:MISTAKES], *of_class]).astype(int))


def _right(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the index of the first correctly classified image of each class, for up to RIGHT of the classes."""
    answers = np.flatnonzero(logits.argmax(1) == labels)
    first = answers[np.unique(labels[answers], return_index=True)[1]]
    return first[np.linspace(0, len(first) - 1, min(RIGHT, len(first))).round().astype(int)] if len(first) else first


def _first_batch(config: ConfigDict, dataset: Dataset) -> dict[str, np.ndarray]:
    [(images, captions)] = augmented_batches(config, dataset, 1, AUGMENTED)
    return {"batch_images": images, "batch_captions": np.array(captions, str)}


def _nearest(classifier: Classifier, images: np.ndarray, dataset: Dataset) -> dict[str, np.ndarray]:
    """Return, for each image, the training image with the nearest features by cosine similarity.

    Also return how many of the training images were searched, and how many of these are classified correctly.
    """
    train = dataset.train
    fitting = max(NUMBERS // math.prod(dataset.image_shape), 1)
    most = min(STREAMED if dataset.streamed else CANDIDATES, fitting, len(train))
    among = np.unique(np.linspace(0, len(train) - 1, most).round().astype(int))
    with ThreadPoolExecutor(cores()) as pool:
        parts = list(pool.map(train.read, np.array_split(among, min(cores(), len(among)))))
    pixels, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    features = classifier.features(np.concatenate([images, pixels]), min(BATCH, len(images) + len(pixels)))
    head = classifier.params["head"]
    answers = (features[len(images) :] @ head["kernel"] + head["bias"]).argmax(1)
    features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    nearest = (features[: len(images)] @ features[len(images) :].T).argmax(1) if len(images) else np.zeros(0, int)
    return {
        "nearest_images": pixels[nearest],
        "nearest_labels": labels[nearest],
        "nearest_names": _names(train, among[nearest]),
        "candidates": np.array(len(among)),
        "candidates_right": np.array((answers == labels).sum()),
    }


def _maps(classifier: Classifier, evidence: Evidence) -> dict[str, np.ndarray]:
    """Return what each token adds to the logits, for a few of the most confident mistakes and right answers."""
    if not isinstance(classifier.model, MlpMixer):
        return {}
    logits, labels, chosen = evidence.logits, evidence.labels, evidence.chosen
    confidence, wrong = probabilities(logits)[chosen].max(1), evidence.wrong[chosen]
    order = np.argsort(-confidence, kind="stable")
    mistakes = order[wrong[order]][: MAPS // 2]
    mapped = np.concatenate([mistakes, order[~wrong[order]][: MAPS - len(mistakes)]])
    maps = []
    for i in mapped:
        contributions, _ = classifier.token_maps(evidence.images[i])
        of_two = contributions[..., [logits[chosen[i]].argmax(), labels[chosen[i]]]]
        maps.append(np.moveaxis(of_two - of_two.mean((0, 1)), -1, 0))
    return {"mapped": mapped, "maps": np.array(maps, np.float32)}


def captions(evidence: Evidence, label_names: Sequence[str], places: Sequence[int]) -> list[str]:
    """Return the captions of images, given by indices into `chosen`."""
    lines = []
    for place in places:
        i = evidence.chosen[place]
        true, predicted = evidence.labels[i], evidence.logits[i].argmax()
        answer = label_names[true] if true == predicted else f"{label_names[true]} \u2192 {label_names[predicted]}"
        confidence = 100 * probabilities(evidence.logits[i : i + 1]).max()
        lines.append(f"{answer} {confidence:.0f}%, {evidence.names[place]}")
    return lines
