"""The number of epochs, where the config leaves it to the dataset."""

import math

from ml_collections import ConfigDict

CHOSEN = -1.0  # the `config.epochs` that leaves it to the dataset
EPOCHS = 60  # of a run, or more if these would be too few steps
STEPS_PER_CLASS, ENOUGH = 80, 2000  # the minimum number of steps per class, and the total that always suffices


def with_epochs(config: ConfigDict, num_images: int, num_classes: int) -> ConfigDict:
    """Return the config unchanged if it sets the number of epochs, else a copy with a number that suits the data.

    The number is computed from the numbers of training images and classes. If it exceeds EPOCHS, the patience of early
    stopping grows in proportion.
    """
    if config.epochs != CHOSEN:
        return config
    steps = min(STEPS_PER_CLASS * num_classes, ENOUGH)
    return scaled(config, max(EPOCHS, math.ceil(steps * config.batch_size / num_images)))


def scaled(config: ConfigDict, epochs: float) -> ConfigDict:
    """Return a config with this number of epochs, and with its patience scaled by epochs / EPOCHS."""
    config = config.copy_and_resolve_references()
    config.early_stopping_patience = round(config.early_stopping_patience * epochs / EPOCHS)
    config.epochs = float(epochs)
    return config
