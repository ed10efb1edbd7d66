"""A model as an ONNX file, written by PyTorch's own exporter from the model's PyTorch twin."""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn

from mixer_jax import models
from mixer_jax.interop.torch_baselines import twin
from mixer_jax.interop.torch_mixer import to_torch


class FromPixels(nn.Module):
    """A model with what comes before it: pixels are scaled to its input, and their mean and deviation taken off."""

    def __init__(
        self,
        model: models.Model,
        params: Mapping[str, Any],
        scaling: tuple[np.ndarray, np.ndarray],
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ):
        """Takes a Flax model with its parameters, and the rest as a `Classifier` has it."""
        super().__init__()
        rows, columns = scaling
        self.network = twin(model, (len(rows), len(columns), len(mean)))
        self.network.load_state_dict(to_torch(params))
        self.scaled = not all(np.array_equal(matrix, np.eye(*matrix.shape)) for matrix in scaling)
        self.register_buffer("rows", torch.tensor(rows))
        self.register_buffer("columns", torch.tensor(columns))
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps (batch, height, width, channels) uint8 to logits (batch, num_classes)."""
        x = images.permute(0, 3, 1, 2).float()
        if self.scaled:
            # Each the first factor, which 8 bits leave alone: they are for weights.
            x = torch.round((self.columns @ (self.rows @ x).mT).mT)
        return self.network((x / 255.0 - self.mean) / self.std)


def write_onnx(network: FromPixels, image_shape: tuple[int, int, int], path: Path, int8: bool = False) -> None:
    """Writes an ONNX file from `images` (batch, *image_shape) uint8, any number of them, to `logits`.

    With `int8` the weights of the products are integers of 8 bits, and so are, each time anew, the numbers that they
    are multiplied with (onnxruntime's `quantize_dynamic`).
    """
    images = torch.zeros((2, *image_shape), dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what PyTorch's exporter says of PyTorch
        program = torch.onnx.export(
            network,
            (images,),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    proto = program.model_proto
    if not int8:
        onnx.save(proto, path)
        return
    del proto.graph.value_info[:]  # shapes that no longer hold when weights lie the other way round
    logging.disable(logging.WARNING)  # advice to simplify the graph first, which PyTorch's exporter has done
    try:  # unsigned, as sums of signed weights overflow on processors without VNNI
        quantize_dynamic(proto, path, weight_type=QuantType.QUInt8, per_channel=True)
    finally:
        logging.disable(logging.NOTSET)
