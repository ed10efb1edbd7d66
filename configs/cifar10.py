"""CIFAR-10 from scratch, with the published "nano" Mixer; downloaded and prepared on first use.

python -m mixer_jax.train --config configs/cifar10.py

The 100 epochs are meant for an accelerator and are not measured yet. With --config.epochs=3, on JPEG re-encoded images,
seed 0: 43.1, 56.7 and 60.7% on validation after each epoch, 60.6% on test; 2 cores of a cloud CPU.
"""

from mixer_jax.config import default_config


def get_config():
    config = default_config()
    config.dataset.name = "cifar10"
    config.model.variant = "Nano/4"
    config.model.stochastic_depth_rate = 0.1
    config.batch_size = 128
    config.epochs = 100
    config.label_smoothing = 0.1
    config.early_stopping_patience = 20
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.1
    config.optimizer.clip_norm = 1.0
    config.schedule.name = "cosine"
    config.schedule.warmup_epochs = 1
    config.schedule.end_learning_rate = 1e-6
    return config
