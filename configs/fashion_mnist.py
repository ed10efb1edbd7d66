"""Fashion-MNIST with the recipe of configs/mnist.py for 20 epochs; the dataset is downloaded and prepared on first use.

python -m mixer_jax.train --config configs/fashion_mnist.py
"""

from configs import mnist


def get_config():
    config = mnist.get_config()
    config.dataset.name = "fashion_mnist"
    config.epochs = 20
    return config
