"""The augmentation policy of a config as torchvision transforms of PIL images, which PyTorch projects run on the host.

The operations, their order and their probabilities are those of `mixer_jax.augment`, with two exceptions: the
alternating flip, which torchvision lacks, becomes a random flip; and batches are mixed throughout, whatever
`mixing.until` is.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from ml_collections import ConfigDict
from PIL import Image
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision import transforms
from torchvision.transforms import v2

from mixer_jax.errors import UserError


def example_transform(
    config: ConfigDict,
    *,
    box: tuple[int, int, int, int],
    size: tuple[int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Callable[[Image.Image], torch.Tensor]:
    """Return the transform of one image, from a PIL image to a normalised tensor (channels, *size).

    Args:
      config: the `augment` section.
      box: the part of an image that is scaled to `size` unless the crop is "inception": (top, left, height, width).
      size: (height, width) of the result.
      mean, std: of each channel, for pixels from 0 to 1.

    Raises:
      UserError: if torchvision has no counterpart of `erasing.fill`.
    """
    steps: list[Any] = []
    if config.crop == "inception":
        steps.append(transforms.RandomResizedCrop(size, config.inception.area, config.inception.aspect))
    else:
        if config.crop == "pad":
            steps.append(functools.partial(_pad_and_crop, padding=config.crop_padding))
        top, left, height, width = box
        steps.append(functools.partial(_resize, size=size, box=(left, top, left + width, top + height)))
    if config.flip != "none":
        steps.append(transforms.RandomHorizontalFlip())
    steps += {
        "none": [],
        "randaugment": [transforms.RandAugment(config.rand_augment.num_ops, config.rand_augment.magnitude)],
        "autoaugment_cifar10": [transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10)],
    }[config.automatic]
    steps += [transforms.ToTensor(), transforms.Normalize(mean, std)]
    if config.erasing.probability:
        fills = {"zero": 0, "noise": "random"}
        if config.erasing.fill not in fills:
            raise UserError(f"torchvision has no erasing with fill {config.erasing.fill!r}")
        bounds = config.erasing.area, config.erasing.aspect
        steps.append(transforms.RandomErasing(config.erasing.probability, *bounds, value=fills[config.erasing.fill]))
    return transforms.Compose(steps)


class Collate:
    """A collate function that stacks examples into a batch and applies the Mixup and CutMix of a `mixing` section."""

    def __init__(self, config: ConfigDict, num_classes: int):
        classes = {"mixup_alpha": v2.MixUp, "cutmix_alpha": v2.CutMix}
        kinds = [make(alpha=config[key], num_classes=num_classes) for key, make in classes.items() if config[key]]
        self._mix = v2.RandomApply([v2.RandomChoice(kinds)], p=config.probability) if kinds else None

    def __call__(self, examples: list[tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the images and labels of a batch; with mixing, the labels can be (batch, classes) probabilities."""
        batch = default_collate(examples)
        return self._mix(*batch) if self._mix else batch


class Augmented(Dataset):
    """A dataset of decoded images (n, height, width, channels) uint8, augmented on every access."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: Callable[[Image.Image], torch.Tensor]):
        self._images, self._labels, self._transform = images, labels, transform

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = self._images[index]
        pil = Image.fromarray(image if image.shape[-1] == 3 else image[..., 0])
        return self._transform(pil), int(self._labels[index])


def loader(dataset: Dataset, batch_size: int, collate: Collate, num_workers: int) -> DataLoader:
    """Return a loader of full batches; an incomplete last batch is dropped.

    Its `num_workers` processes prepare batches and persist over epochs; with 0, this process prepares them.
    """
    # Forked workers can inherit a lock that a thread of XLA holds.
    workers = {"multiprocessing_context": "spawn", "persistent_workers": True} if num_workers else {}
    return DataLoader(dataset, batch_size, collate_fn=collate, num_workers=num_workers, drop_last=True, **workers)


def _pad_and_crop(image: Image.Image, *, padding: int) -> Image.Image:
    """Return a random crop of the padded image, of the image's original size."""
    return transforms.RandomCrop(image.size[::-1], padding=padding)(image)


def _resize(image: Image.Image, *, size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    if image.size == size[::-1] and box == (0, 0, *image.size):
        return image
    return image.resize(size[::-1], Image.Resampling.BILINEAR, box)
