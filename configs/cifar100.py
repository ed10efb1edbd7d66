"""CIFAR-100 from scratch with the recipe of configs/cifar10.py; the dataset is downloaded and prepared on first use.

python -m mixer_jax.train --config configs/cifar100.py
"""

from mixer_jax import config_files


def get_config():
    config = config_files.get_config("cifar10")
    config.dataset.name = "cifar100"
    return config
