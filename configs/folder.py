"""Your own images, in a folder with train/<class>/ and test/<class>/, or just <class>/.

python -m mixer_jax.train --config configs/folder.py --config.dataset.data_dir=DATA_DIR

Other arrangements, such as a table labels.csv, are listed in mixer_jax/data/arrangement.py. What is found and what is
left out is printed first. Without test images, a fifth of each class is drawn for testing, always the same. A tenth of
the training images is held out to choose the best epoch, unless there is a folder for that, such as val/. Damaged files
stop the program before it trains; --config.dataset.on_error=skip leaves them out.

Images are scaled and cropped to 64x64 pixels. For larger images, choose a larger size, model and patches, such as
--config.dataset.image_size=128,128 --config.model.variant=Tiny/16.
"""

from mixer_jax.config import default_config


def get_config():
    config = default_config()
    config.dataset.name = "folder"
    config.dataset.image_size = (64, 64)
    config.model.variant = "Nano/8"
    config.model.stochastic_depth_rate = 0.1
    config.batch_size = 64
    config.epochs = 50
    config.label_smoothing = 0.1
    config.early_stopping_patience = 15
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.1
    config.optimizer.clip_norm = 1.0
    config.schedule.name = "cosine"
    config.schedule.warmup_epochs = 2
    return config
