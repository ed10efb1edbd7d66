"""The "nano" Mixer that omihub777/MLP-Mixer-CIFAR published for CIFAR-10, with its recipe, in two sizes.

python -m mixer_jax.train --config configs/mixer_nano_cifar10.py
python -m mixer_jax.train --config configs/mixer_nano_cifar10.py:0.67M

The published widths give the first size, with 1,132,170 parameters. The published number of parameters is that of the
second, 673,418, which has the two MLP widths swapped. Published: 90.83% on test after 300 epochs, with one seed; the
source does not say for which size. Here, 1.13M reaches 86.58% (86.46% at the last epoch), trained on nine tenths of the
training images, re-encoded as JPEG.

Two things differ: the original pads and crops twice and decays all parameters; this config pads and crops once and
decays kernels only.
"""

from mixer_jax.config import default_config
from mixer_jax.errors import one_of

# tokens_mlp_dim and channels_mlp_dim; configs/cifar10_study.py lists both sizes
WIDTHS = {"1.13M": (64, 512), "0.67M": (512, 64)}


def get_config(parameters="1.13M"):
    if parameters not in WIDTHS:
        raise one_of("number of parameters", parameters, WIDTHS)
    config = default_config()
    config.dataset.name = "cifar10"
    config.augment.crop = "pad"
    config.augment.automatic = "autoaugment_cifar10"
    config.augment.mixing.cutmix_alpha = 1.0
    config.augment.mixing.probability = 0.5
    config.model.variant = "Nano/4"
    config.model.tokens_mlp_dim, config.model.channels_mlp_dim = WIDTHS[parameters]
    config.model.update(gelu="exact", layer_norm_epsilon=1e-5)  # as in PyTorch, like the initial parameters
    config.model.update(initialization="torch", zero_init_head=False)
    config.batch_size = 128
    config.epochs = 300
    config.label_smoothing = 0.1
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.b2 = 0.99
    config.optimizer.weight_decay = 5e-5
    config.schedule.name = "cosine"
    config.schedule.warmup_epochs = 5
    config.schedule.end_learning_rate = 1e-6
    return config
