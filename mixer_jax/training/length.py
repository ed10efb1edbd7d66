"""The number of epochs, where the config leaves it to the number of training images."""

import math

from ml_collections import ConfigDict

CHOSEN = -1.0  # what `config.epochs` says then
EPOCHS, STEPS = 60, 2000  # a run has at least as many of both: few images would give few steps


def with_epochs(config: ConfigDict, num_images: int) -> ConfigDict:
    """Return a config whose number of epochs is set; the patience of early stopping grows in the same proportion.

    Args:
      config: the full config, which is returned as it is if it gives the number.
      num_images: the number of training images.
    """
    if config.epochs != CHOSEN:
        return config
    return scaled(config, max(EPOCHS, math.ceil(STEPS * config.batch_size / num_images)))


def scaled(config: ConfigDict, epochs: float) -> ConfigDict:
    """Return a config with this number of epochs, and a patience that is as large compared with it as with EPOCHS."""
    config = config.copy_and_resolve_references()
    config.early_stopping_patience = round(config.early_stopping_patience * epochs / EPOCHS)
    config.epochs = float(epochs)
    return config
