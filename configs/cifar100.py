"""CIFAR-100 from scratch with the recipe of configs/cifar10.py; the dataset is downloaded and prepared on first use.

python -m mixer_jax.train --config configs/cifar100.py
"""

from configs import cifar10


def get_config():
    config = cifar10.get_config()
    config.dataset.name = "cifar100"
    return config
