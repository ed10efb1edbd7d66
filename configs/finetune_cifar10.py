"""Fine-tune an ImageNet Mixer on CIFAR-10 with the hyperparameters of the paper's code.

python -m mixer_jax.train --config configs/finetune_cifar10.py

The weights are downloaded when the first run starts. For other weights, set --config.init_from to a path or a name,
such as "L/16 imagenet21k"; if their size differs, also set --config.model.variant, here to L/16. Published for the
default weights: 96.82% on test, with the same 10,000 steps of 512 images at 224 pixels
(https://github.com/google-research/vision_transformer). Not measured here yet.

A TPU v5e or v6e computes the batch in microbatches; if another device is short of memory, set
--config.accumulation_steps=8. For a linear probe, freeze the trunk: --config.frozen_trunk=True. For twice the
resolution, as in the paper's appendix C:
--config.augment.input_size=448,448 --config.model.tokens_mlp_dim=1536
"""

from mixer_jax.config import default_config

STEPS, WARMUP_STEPS, BATCH_SIZE = 10_000, 500, 512
TRAIN_IMAGES = 49_000  # without the 2% that are held out to choose the best epoch


def get_config():
    config = default_config()
    config.init_from = "B/16 imagenet21k"
    config.dataset.name = "cifar10"
    config.dataset.val_fraction = 0.02
    config.dataset.normalization = "paper"
    config.augment.input_size = (224, 224)
    config.augment.crop = "inception"
    config.augment.inception.area = (0.05, 1.0)
    config.augment.flip = "random"
    config.model.variant = "B/16"
    config.batch_size = BATCH_SIZE
    config.epochs = STEPS * BATCH_SIZE / TRAIN_IMAGES
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    config.optimizer.learning_rate = 0.03
    config.optimizer.clip_norm = 1.0
    config.schedule.name = "cosine"
    config.schedule.warmup_epochs = WARMUP_STEPS * BATCH_SIZE / TRAIN_IMAGES
    return config
