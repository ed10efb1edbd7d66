"""The models in PyTorch, as a reference for speed and correctness: the same weights give the same logits.

Modules have the names of the Flax modules, so that weights convert by name.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from flax.traverse_util import flatten_dict
from torch import nn

from mixer_jax import models

GELUS = {"tanh": "tanh", "exact": "none"}


class StochasticDepth(nn.Module):
    """Stochastic depth, which drops a branch for individual examples (torchvision `StochasticDepth`, mode "row")."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (batch, ...) with the dropped examples zero and the others scaled by 1 / (1 - rate)."""
        if not self.training or self.rate == 0.0:
            return x
        keep = torch.rand((x.shape[0],) + (1,) * (x.ndim - 1), dtype=x.dtype, device=x.device) >= self.rate
        return x * keep / (1.0 - self.rate)


class MlpBlock(nn.Module):
    """Two linear layers with a GELU between them, over the last axis."""

    def __init__(self, features: int, mlp_dim: int, dropout_rate: float, gelu: str):
        super().__init__()
        self.Dense_0 = nn.Linear(features, mlp_dim)
        self.Dense_1 = nn.Linear(mlp_dim, features)
        self.gelu = nn.GELU(approximate=GELUS[gelu])
        self.dropout = nn.Dropout(dropout_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., features) to the same shape."""
        return self.dropout(self.Dense_1(self.dropout(self.gelu(self.Dense_0(x)))))


class MixerBlock(nn.Module):
    """Token mixing, then channel mixing; what the Flax model omits is omitted here, too."""

    def __init__(self, model: models.MlpMixer, num_tokens: int, stochastic_depth_rate: float):
        super().__init__()
        channels, rest = model.hidden_dim, (model.dropout_rate, model.gelu)
        self.token_mixing = self.channel_mixing = self.output_norm = None
        if model.token_mixing:
            self.LayerNorm_0 = nn.LayerNorm(channels, model.layer_norm_epsilon)
            self.token_mixing = MlpBlock(num_tokens, model.tokens_mlp_dim, *rest)
        if model.channel_mixing:
            self.LayerNorm_1 = nn.LayerNorm(channels, model.layer_norm_epsilon)
            self.channel_mixing = MlpBlock(channels, model.channels_mlp_dim, *rest)
        if model.ablated_norm and not (model.token_mixing and model.channel_mixing):
            self.output_norm = "LayerNorm_0" if model.channel_mixing else "LayerNorm_1"
            self.add_module(self.output_norm, nn.LayerNorm(channels, model.layer_norm_epsilon))
        self.stochastic_depth = StochasticDepth(stochastic_depth_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, tokens, channels) to the same shape."""
        if self.token_mixing is not None:
            y = self.token_mixing(self.LayerNorm_0(x).transpose(1, 2)).transpose(1, 2)
            x = x + self.stochastic_depth(y)
        if self.channel_mixing is not None:
            x = x + self.stochastic_depth(self.channel_mixing(self.LayerNorm_1(x)))
        return getattr(self, self.output_norm)(x) if self.output_norm else x


class TorchMixer(nn.Module):
    """The PyTorch counterpart of a Flax `MlpMixer`, with PyTorch's default initialisation."""

    def __init__(self, model: models.MlpMixer, image_shape: tuple[int, int, int]):
        """Create the counterpart of a Flax module for images of `image_shape` (height, width, channels)."""
        super().__init__()
        height, width, channels = image_shape
        patch, num_blocks = model.patch_size, model.num_blocks
        self.stem = nn.Conv2d(channels, model.hidden_dim, patch, stride=patch)
        rates = [model.stochastic_depth_rate * i / max(num_blocks - 1, 1) for i in range(num_blocks)]
        self.blocks = [MixerBlock(model, height * width // patch**2, rate) for rate in rates]
        for i, block in enumerate(self.blocks):
            self.add_module(f"MixerBlock_{i}", block)
        self.pre_head_layer_norm = (
            nn.LayerNorm(model.hidden_dim, model.layer_norm_epsilon) if model.pre_head_norm else nn.Identity()
        )
        self.head = nn.Linear(model.hidden_dim, model.num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits (batch, num_classes) of images (batch, channels, height, width)."""
        x = self.stem(images).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(self.pre_head_layer_norm(x).mean(1))


def twin(model: models.Model, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return the PyTorch counterpart of a Flax model for images of `image_shape` (height, width, channels).

    The counterpart maps images (batch, channels, height, width) to logits (batch, num_classes). Its parameters have
    PyTorch's initial values.
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


def to_torch(params: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the parameters (or gradients) of a Flax model as the `state_dict` of its PyTorch counterpart."""
    state = {}
    for path, value in flatten_dict(params, sep=".").items():
        module, _, name = path.rpartition(".")
        value = np.asarray(value)
        if name == "kernel":  # (..., in, out) in Flax, (out, in, ...) in PyTorch
            value = np.moveaxis(value, (-1, -2), (0, 1))
        state[f"{module}.{'bias' if name == 'bias' else 'weight'}"] = torch.from_numpy(value.copy())
    return state
