"""Inference: `load` returns a trained model as a `Classifier`."""

from mixer_jax.inference.adapt import at_image_size, with_channels
from mixer_jax.inference.classifier import Classifier, require_head, require_mixer
from mixer_jax.inference.loading import Known, load, load_run, weights_in
from mixer_jax.inference.preprocessing import Origin, Preprocessing
from mixer_jax.inference.splits import dataset_of, open_split, over_split, say_layout
from mixer_jax.inference.timm_config import architecture

__all__ = [
    "Classifier",
    "Known",
    "Origin",
    "Preprocessing",
    "architecture",
    "at_image_size",
    "dataset_of",
    "load",
    "load_run",
    "open_split",
    "over_split",
    "require_head",
    "require_mixer",
    "say_layout",
    "weights_in",
    "with_channels",
]
