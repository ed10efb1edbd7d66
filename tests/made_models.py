"""Classifiers of made-up parameters."""

import jax
import numpy as np

from mixer_jax import models
from mixer_jax.inference import Classifier, Preprocessing
from support import make_config

MIXER = {"variant": "", "patch_size": 4, "num_blocks": 2, "hidden_dim": 8, "tokens_mlp_dim": 6, "channels_mlp_dim": 8}
BASELINE = {"num_blocks": None, "hidden_dim": None, "tokens_mlp_dim": None, "channels_mlp_dim": None}


def made_classifier(image_shape=(8, 8, 1), label_names=("a", "b", "c"), input_size=(), **fields):
    """Return a small Mixer, or another model by its fields in `config.model`, with parameters that all matter."""
    fields = (BASELINE if fields.get("variant") in ("MLP", "CNN") else MIXER) | fields
    config = make_config(**{f"model__{key}": value for key, value in fields.items()})
    channels = image_shape[2]
    preprocessing = Preprocessing(image_shape, (0.4,) * channels, (0.3,) * channels, input_size)
    shape = (*input_size, channels) if input_size else image_shape
    model = models.create(config.model, num_classes=len(label_names), image_shape=shape)
    params = jax.device_get(model.init(jax.random.key(0), np.zeros((1, *shape), np.float32))["params"])
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + 0.3 * rng.standard_normal(x.shape, np.float32), params)
    return Classifier(config.model, params, preprocessing, label_names)


def some_images(classifier, n=5):
    """Return random images for a classifier, uint8."""
    return np.random.default_rng(0).integers(0, 256, (n, *classifier.image_shape)).astype(np.uint8)
