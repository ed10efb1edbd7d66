"""Fashion-MNIST with the recipe of configs/mnist.py for 20 epochs; the dataset is downloaded and prepared on first use.

python -m mixer_jax.train --config configs/fashion_mnist.py
"""

from mixer_jax import config_files


def get_config():
    config = config_files.get_config("mnist")
    config.dataset.name = "fashion_mnist"
    config.epochs = 20
    return config
