"""PyTorch counterparts of the MNIST study's MLP and CNN, with the Flax module names, and `twin` for any model."""

import torch
from torch import nn

from mixer_jax import models
from mixer_jax.interop.torch_mixer import TorchMixer


def twin(model: models.Model, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return the PyTorch counterpart of a Flax model, with PyTorch's default initialisation.

    Args:
      model: the Flax module.
      image_shape: (height, width, channels) of its images.

    Returns:
      A module that maps images (batch, channels, height, width) to logits (batch, num_classes).
    """
    kinds = {models.MlpMixer: TorchMixer, models.Mlp: TorchMlp, models.Cnn: TorchCnn}
    return kinds[type(model)](model, image_shape)


class TorchMlp(nn.Module):
    """The PyTorch counterpart of `models.Mlp`."""

    def __init__(self, model: models.Mlp, image_shape: tuple[int, int, int]):
        super().__init__()
        height, width, channels = image_shape
        self.Dense_0 = nn.Linear(height * width * channels, 256)
        self.head = nn.Linear(256, model.num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits (batch, num_classes) of images (batch, channels, height, width)."""
        return self.head(torch.relu(self.Dense_0(images.permute(0, 2, 3, 1).flatten(1))))


class TorchCnn(nn.Module):
    """The PyTorch counterpart of `models.Cnn`."""

    def __init__(self, model: models.Cnn, image_shape: tuple[int, int, int]):
        super().__init__()
        height, width, channels = image_shape
        self.Conv_0 = nn.Conv2d(channels, 32, 3, padding=1)
        self.Conv_1 = nn.Conv2d(32, 64, 3, padding=1)
        self.dropout_0, self.dropout_1 = nn.Dropout2d(0.25), nn.Dropout(0.5)
        self.Dense_0 = nn.Linear(64 * (height // 2) * (width // 2), 128)
        self.head = nn.Linear(128, model.num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits (batch, num_classes) of images (batch, channels, height, width)."""
        x = torch.relu(self.Conv_1(torch.relu(self.Conv_0(images))))
        x = self.dropout_0(nn.functional.max_pool2d(x, 2))
        # Flattened with the channels last, as in Flax, so that the weights are the same.
        x = torch.relu(self.Dense_0(x.permute(0, 2, 3, 1).flatten(1)))
        return self.head(self.dropout_1(x))
