"""ONNX export, by PyTorch's exporter from the PyTorch counterpart of a model."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn

from mixer_jax import models
from mixer_jax.augment.geometry import TIE
from mixer_jax.interop.torch_mixer import to_torch, twin


class FromPixels(nn.Module):
    """A PyTorch model preceded by its preprocessing: scaling to the input size and normalisation."""

    def __init__(
        self,
        model: models.Model,
        params: Mapping[str, Any],
        scaling: tuple[np.ndarray, np.ndarray],
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ):
        """Convert a Flax model; `scaling` is `Classifier.scaling()`, `mean` and `std` are for pixels in [0, 1]."""
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
        """Return the logits (batch, num_classes) of images (batch, height, width, channels) uint8."""
        x = images.permute(0, 3, 1, 2).float()
        if self.scaled:
            # The scaling matrices are the first factors because int8 quantisation applies to the second, the weights.
            x = torch.round((self.columns @ (self.rows @ x).mT).mT + TIE)
        return self.network((x / 255.0 - self.mean) / self.std)


def write_onnx(network: FromPixels, image_shape: tuple[int, int, int], path: Path, int8: bool = False) -> None:
    """Write a model as an ONNX file.

    The file's input `images` is (batch, *image_shape) uint8 with any batch size. Its output `logits` is
    (batch, num_classes).

    Args:
      network: the model.
      image_shape: (height, width, channels) of the images.
      path: the file to write.
      int8: whether to store the weights of the matrix products as 8-bit integers and to quantise their activations to 8
        bits on every call (onnxruntime's `quantize_dynamic`).
    """
    images = torch.zeros((2, *image_shape), dtype=torch.uint8)
    with _quiet():
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
        del proto.graph.value_info[:]  # shapes that are wrong once weights are transposed
        # Unsigned, because sums of signed weights overflow on processors without VNNI.
        quantize_dynamic(proto, path, weight_type=QuantType.QUInt8, per_channel=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Ignore what the exporter says about its own code and about packages that a Mixer does not need."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)
