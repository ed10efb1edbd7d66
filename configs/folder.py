"""Your own images, in a folder with train/<class>/ and test/<class>/, or just <class>/.

python -m mixer_jax.train --config configs/folder.py --config.dataset.data_dir=DATA_DIR

Other arrangements, such as a table labels.csv or WebDataset tar files, are listed in mixer_jax/data/arrangement.py.
What is found and what is left out is printed first. Without test images, the images of val/ are used for testing, or,
if there are none, a fifth of each class, the same in every run. The best epoch is chosen on the images of a folder such
as val/ if there are test images as well; otherwise on a tenth of the training images, which is held out. Damaged files
stop the program before it trains; with more than 50,000 images, only a sample is examined beforehand.
--config.dataset.on_error=skip examines all images and leaves the damaged ones out.

Images of one small size stay as they are. Others are scaled and cropped to a square of 32, 48 or 64 pixels, the largest
that at least half of them cover. The patch size follows from that. For other sizes, give for example
--config.dataset.image_size=224,224 --config.model.variant=Tiny/16. For characters and other images that must not be
mirrored, give --config.augment.flip=none. A run has at least 60 epochs,
and at least 80 steps per class, or 2,000 steps if that is fewer.
"""

from mixer_jax.config import default_config


def get_config():
    config = default_config()
    config.dataset.name = "folder"
    config.dataset.image_size = (-1,)  # chosen from the images
    config.augment.crop = "inception"
    config.augment.inception.area = (0.35, 1.0)
    config.augment.flip = "random"
    config.augment.automatic = "randaugment"
    config.augment.mixing.mixup_alpha = 0.8
    config.augment.mixing.cutmix_alpha = 1.0
    config.model.variant = "Nano"
    config.batch_size = 64
    config.epochs = -1  # 60, or more of a small dataset
    config.label_smoothing = 0.1
    config.early_stopping_patience = 20
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 4e-3
    config.optimizer.weight_decay = 0.1
    config.optimizer.clip_norm = 1.0
    config.schedule.name = "cosine"
    config.schedule.warmup_epochs = 2
    return config
