"""ImageNet-1k from scratch with the paper's hyperparameters for B/16 (section 3 and table 4 of arXiv 2105.01601).

python -m mixer_jax.train --config configs/imagenet.py --config.dataset.data_dir=IMAGENET

IMAGENET is a folder with train/<class>/*.JPEG and val/<class>/*.JPEG, of ImageNet or other large images. A hundredth of
train is held out to choose the best epoch; val is the test set, and is scored once, at the end. The dataset is streamed
unless it fits into memory. Published: 76.44% on val. Not measured here yet.

Two things differ from the paper. Images are scaled and cropped to 256x256 pixels when they are read, so the random crop
is taken from that square and not from the whole photograph. RandAugment's operations and magnitudes are torchvision's.
The batch of 4,096 is meant for a pod slice. Fewer chips of a TPU v5e or v6e compute it in microbatches; on other
devices, set --config.accumulation_steps=16.
"""

from mixer_jax.config import default_config


def get_config():
    config = default_config()
    config.dataset.name = "folder"
    config.dataset.test_split = "val"
    config.dataset.val_fraction = 0.01
    config.dataset.image_size = (256, 256)
    config.dataset.normalization = "paper"
    config.augment.input_size = (224, 224)
    config.augment.eval_crop = 0.875
    config.augment.crop = "inception"
    config.augment.inception.area = (0.05, 1.0)
    config.augment.flip = "random"
    config.augment.automatic = "randaugment"
    config.augment.rand_augment.num_ops = 2
    config.augment.rand_augment.magnitude = 15
    config.augment.mixing.mixup_alpha = 0.5
    config.model.variant = "B/16"
    config.model.stochastic_depth_rate = 0.1
    config.batch_size = 4096
    config.epochs = 300
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.1
    config.optimizer.clip_norm = 1.0
    config.schedule.name = "linear"
    config.schedule.warmup_epochs = 32  # 10,000 steps
    return config
