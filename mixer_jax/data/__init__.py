"""Datasets, samplers and input pipelines.

`load` opens the dataset of a config. A sampler chooses the examples of each batch. A pipeline brings the batches to the
devices.
"""

from mixer_jax.data.dataset import Dataset, Split, StreamedSplit
from mixer_jax.data.images import IMAGE_SUFFIXES, RESIZES, Fit, as_pixels, read_image
from mixer_jax.data.loading import FIXED, checked_fit, load, open_split, selected_on
from mixer_jax.data.memory import device_memory
from mixer_jax.data.pipelines import ProcessShard, ResidentPipeline, StreamingPipeline, gather_batch
from mixer_jax.data.sampler import EvalSampler, Sampler, TrainSampler
from mixer_jax.data.size import SIDES, given_size

__all__ = [
    "FIXED",
    "IMAGE_SUFFIXES",
    "RESIZES",
    "SIDES",
    "Dataset",
    "EvalSampler",
    "Fit",
    "ProcessShard",
    "ResidentPipeline",
    "Sampler",
    "Split",
    "StreamedSplit",
    "StreamingPipeline",
    "TrainSampler",
    "as_pixels",
    "checked_fit",
    "device_memory",
    "gather_batch",
    "given_size",
    "load",
    "open_split",
    "read_image",
    "selected_on",
]
