"""CIFAR-10 from scratch in a few minutes of one GPU: fewer epochs of a wider model, in larger batches.

python -m mixer_jax.train --config configs/cifar10_fast.py

Meant to reach 90% on test in under three minutes, compilation included. Not measured yet: that takes a GPU.
"""

from mixer_jax.config import default_config


def get_config():
    config = default_config()
    config.dataset.name = "cifar10"
    config.augment.crop = "pad"
    config.augment.flip = "alternating"  # an epoch shows each image one way, the next the other: few epochs waste none
    config.augment.automatic = "randaugment"
    config.augment.rand_augment.magnitude = 6
    config.augment.mixing.cutmix_alpha = 1.0
    config.augment.mixing.probability = 0.5
    config.model.variant = "Tiny/4"
    config.model.stochastic_depth_rate = 0.1
    config.batch_size = 512
    config.epochs = 60
    config.label_smoothing = 0.1
    config.ema_decay = 0.995
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.1
    config.optimizer.clip_norm = 1.0
    config.schedule.name = "cosine"
    config.schedule.warmup_epochs = 5
    return config
