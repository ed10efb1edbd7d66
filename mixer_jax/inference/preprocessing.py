"""The preprocessing of a trained model's images, and the origin of the model."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mixer_jax.augment import Augment
from mixer_jax.config import default_config
from mixer_jax.data import Fit


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """The preprocessing that turns an image into the model's input.

    Attributes:
      image_shape: (height, width, channels) of the uint8 images.
      mean, std: of each channel, for pixels in [0, 1]; the mean is subtracted, then the result is divided by the std.
      input_size: (height, width) to which images are scaled on the device; () keeps their size.
      eval_crop: the size of the central crop, as a fraction of each side of the largest box that fits into the image
        and has the aspect ratio of the model's input; as in `config.augment`.
      resize, draft, bits: how image files are decoded and brought to `image_shape`; as in `Fit`.
    """

    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: tuple[int, ...] = ()
    eval_crop: float = 1.0
    resize: str = "fit"
    draft: bool = False
    bits: int = 16

    def __post_init__(self):
        """Raise `ValueError` if the sizes do not fit together or `resize` is not valid."""
        shape, size = tuple(self.image_shape), tuple(self.input_size)
        if len(shape) != 3 or not all(isinstance(side, int) and side > 0 for side in (*shape, *size)):
            raise ValueError(f"image_shape {shape}, input_size {size}")
        numbers = all(isinstance(x, int | float) and math.isfinite(x) for x in (*self.mean, *self.std))
        if not numbers or not len(self.mean) == len(self.std) == shape[2] or not min(self.std) > 0:
            raise ValueError(f"mean {self.mean} and std {self.std} are not those of {shape[2]} channels")
        if not 0 < self.eval_crop <= 1:
            raise ValueError(f"eval_crop {self.eval_crop}")
        if not isinstance(self.draft, bool):
            raise ValueError(f"draft {self.draft}")
        Fit(shape[:2], self.resize, self.draft, self.bits)

    @classmethod
    def of(cls, config: ConfigDict, info: Mapping[str, Any]) -> "Preprocessing":
        """Return the preprocessing of a run.

        Args:
          config: the run's config.
          info: `Dataset.info` of the run's dataset; older releases had no "bits".

        Raises:
          KeyError, TypeError, ValueError: if `info` lacks a field, or the sizes do not fit together.
        """
        height, width, channels = map(int, info["image_shape"])
        mean, std = tuple(map(float, info["mean"])), tuple(map(float, info["std"]))
        augment, dataset, bits = config.augment, config.dataset, int(info.get("bits", 16))
        size, crop = tuple(augment.input_size), augment.eval_crop
        return cls((height, width, channels), mean, std, size, crop, dataset.resize, dataset.draft, bits)

    @property
    def fit(self) -> Fit:
        """How image files are brought to `image_shape`."""
        return Fit(self.image_shape[:2], self.resize, self.draft, self.bits)

    def augment(self, num_classes: int) -> Augment:
        """Return the preprocessing as an `Augment`, whose methods process images."""
        config = default_config().augment
        config.update(input_size=self.input_size, eval_crop=self.eval_crop)
        return Augment(config, self, num_classes)


@dataclasses.dataclass(frozen=True)
class Origin:
    """The origin of a model.

    Attributes:
      name: the checkpoint, file or URL, for messages.
      found: a description of the model in one line.
      dataset: the `dataset` section of the run's config; None for a file.
      step: the step of the run's checkpoint; 0 for a file.
      num_test: the number of test images of the run; 0 for a file, or if a run of an older release did not record it.
      unfinished: the progress of an unfinished run, such as "epoch 12 of 100, not finished"; "" for a finished run.
      ran_on: the devices, dtype and versions of the run, as in results.json; empty for a file.
      shape_assumed: whether the height and width of the model's input are assumed, because the file does not record
        them.
    """

    name: str = ""
    found: str = ""
    dataset: ConfigDict | None = None
    step: int = 0
    num_test: int = 0
    unfinished: str = ""
    ran_on: dict[str, Any] = dataclasses.field(default_factory=dict)
    shape_assumed: bool = False

    def parameters(self, checkpoint: str) -> str:
        """Describe the parameters that were loaded for `checkpoint`: "best", "latest" or the number of a step."""
        which = f"{checkpoint} parameters in the " if checkpoint in ("best", "latest") else ""
        return self.name if self.dataset is None else f"{which}checkpoint of step {self.step}"
