"""MLP-Mixer in JAX and Flax.

    model = mixer_jax.load("runs/digits")  # or a file of weights
    model.predict("photo.png")

    config = mixer_jax.get_config("digits")
    config.epochs = 5
    results = mixer_jax.fit(config, "runs/short")

The commands, such as `python -m mixer_jax.train`, are modules of this package; `python -m mixer_jax` lists them.
"""

from mixer_jax.config import default_config
from mixer_jax.config_files import get_config
from mixer_jax.data import Dataset, Split
from mixer_jax.errors import UserError
from mixer_jax.inference import Classifier, Known, Preprocessing, load
from mixer_jax.models import MixerBlock, MlpBlock, MlpMixer, from_variant, variant
from mixer_jax.records import Results
from mixer_jax.training import Diverged, Interrupted
from mixer_jax.training import train as fit  # `mixer_jax.train` is the module of a command

__version__ = "0.1.0"

__all__ = [
    "Classifier",
    "Dataset",
    "Diverged",
    "Interrupted",
    "Known",
    "MixerBlock",
    "MlpBlock",
    "MlpMixer",
    "Preprocessing",
    "Results",
    "Split",
    "UserError",
    "default_config",
    "fit",
    "from_variant",
    "get_config",
    "load",
    "variant",
]
