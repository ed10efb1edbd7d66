"""Image-classification datasets of TensorFlow Datasets, read through `tfds.data_source`, without TensorFlow."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.read_only_builder import ReadOnlyBuilder
from tqdm import tqdm

from mixer_jax.data.images import UNCHANGED, Fit
from mixer_jax.data.prepare import supervised_keys
from mixer_jax.data.sources import Example
from mixer_jax.errors import UserError, in_one_line, one_of

LABELS = 200_000  # the most examples that are read only for their labels


class TfdsSource:
    """One split of a prepared dataset, read through `tfds.data_source`; see `Source`."""

    labels_at_hand = False

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str, fit: Fit = UNCHANGED):
        """Open the split of a prepared dataset.

        Raises:
          UserError: if the dataset is not for image classification, the split is unknown, or only TensorFlow can read
            the format that the dataset is prepared in.
        """
        self._builder = builder
        self._split, self._title = split, f"{builder.name} {split}"
        self.fit = fit
        image_key, label_key = supervised_keys(builder)
        self.label_names = tuple(builder.info.features[label_key].names)
        self._keys = image_key, label_key
        try:
            self._data = builder.as_data_source(split=split)
        except NotImplementedError as error:
            raise UserError(
                f"{builder.name} in {builder.data_path} is prepared as {builder.info.file_format.value}, which only "
                "TensorFlow reads: give another folder with config.dataset.data_dir to prepare it as array_record"
            ) from error
        except ValueError as error:
            raise one_of(f"split of {builder.name}", split, builder.info.splits) from error

    def __len__(self) -> int:
        return len(self._data)

    def __getitems__(self, indices: Sequence[int]) -> list[Example]:
        image_key, label_key = self._keys
        return [(self._fit(x[image_key]), int(x[label_key])) for x in self._read(self._data, indices)]

    def labels(self) -> np.ndarray | None:
        if len(self) > LABELS:
            return None
        image_key, label_key = self._keys
        undecoded = {image_key: tfds.decode.SkipDecoding()}
        examples, labels = self._builder.as_data_source(split=self._split, decoders=undecoded), []
        for start in tqdm(range(0, len(self), 1000), f"labels of {self._title}", unit="k", leave=False, disable=None):
            chunk = self._read(examples, range(start, min(start + 1000, len(self))))
            labels += [int(example[label_key]) for example in chunk]
        return np.array(labels)

    def describe(self, index: int) -> str:
        return f"image {index} of {self._title}"

    def name(self, index: int) -> str:
        return str(index)

    def identity(self) -> Iterable[bytes]:
        yield f"{self._builder.info.full_name} {self._title} {self.fit} {len(self)}".encode()
        yield repr({name: split.num_bytes for name, split in self._builder.info.splits.items()}).encode()

    def files(self) -> Iterable[Path]:
        return Path(self._builder.data_dir).glob("*")  # empty if the folder is an address, such as gs://...

    def _read(self, data, indices: Sequence[int]) -> list[dict]:
        try:
            return data.__getitems__(list(indices))
        except (OSError, RuntimeError, ValueError) as error:
            ours = not isinstance(self._builder, ReadOnlyBuilder)  # else TFDS cannot prepare it again
            remedy = "delete that folder, and the dataset will be prepared again" if ours else "copy it there again"
            raise UserError(
                f"cannot read {self._title} in {self._builder.data_path}: {in_one_line(error)[:200]}; {remedy}"
            ) from error

    def _fit(self, image: np.ndarray) -> np.ndarray:
        if not self.fit.size:
            return image
        grey = image.shape[-1] == 1
        fitted = np.asarray(self.fit(Image.fromarray(image[..., 0] if grey else image)))
        return fitted[..., None] if grey else fitted
