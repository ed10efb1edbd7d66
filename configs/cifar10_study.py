"""CIFAR-10 from scratch: the recipe, what each part of it is worth, other shapes, PyTorch, and the published nano.

python -m mixer_jax.study --config configs/cifar10_study.py

All of it is for a GPU, three seeds of each arm. On a CPU there is time for a few epochs of a few arms:

python -m mixer_jax.study --config configs/cifar10_study.py --config.epochs=5 --seeds 1
    --arms recipe,plain,plain_init,torch_plain,small --workdir runs/cifar10_short

The best epoch is chosen on a tenth of the training images, but for the nano, which was published with a model trained
on all of them.
"""

import dataclasses

from configs import cifar10, cifar10_fast, mixer_nano_cifar10
from mixer_jax.arms import Arm
from mixer_jax.config import default_config, flat


def get_config():
    """The recipe of configs/cifar10.py."""
    return cifar10.get_config()


def _changed(config):
    """The fields by which a config differs from the recipe."""
    recipe = dict(flat(get_config()))
    return {field: value for field, value in flat(config) if value != recipe[field]}


TORCH_INIT = {"model.initialization": "torch", "model.zero_init_head": False}
NO_MIXUP = {"augment.mixing.mixup_alpha": 0.0}
NO_RAND_AUGMENT = {"augment.automatic": "none"}
PLAIN = {f"augment.{field}": value for field, value in flat(default_config().augment)}
SMALL = {
    **NO_RAND_AUGMENT,
    **NO_MIXUP,
    "model.hidden_dim": 96,
    "model.tokens_mlp_dim": 96,
    "model.channels_mlp_dim": 384,
    "model.num_blocks": 4,
    "model.stochastic_depth_rate": 0.0,
    "epochs": 30.0,
    "optimizer.learning_rate": 2e-3,
    "ema_decay": 0.998,
}
PARTS = {
    "without RandAugment": NO_RAND_AUGMENT,
    "without Mixup": NO_MIXUP,
    "without Random Erasing": {"augment.erasing.probability": 0.0},
    "without crop and flip": {"augment.crop": "none", "augment.flip": "none"},
    "without stochastic depth": {"model.stochastic_depth_rate": 0.0},
    "without label smoothing": {"label_smoothing": 0.0},
    "started as PyTorch does": TORCH_INIT,
    "without weight decay": {"optimizer.weight_decay": 0.0},
    "RandAugment of magnitude 5": {"augment.rand_augment.magnitude": 5},
    "RandAugment of magnitude 14": {"augment.rand_augment.magnitude": 14},
    "CutMix for Mixup": NO_MIXUP | {"augment.mixing.cutmix_alpha": 1.0},
    "CutMix and Mixup": {"augment.mixing.cutmix_alpha": 1.0},
    "averaged parameters": {"ema_decay": 0.9998},
    "sharpness-aware": {"optimizer.sam_rho": 0.1},
    "Lion": {"optimizer.name": "lion", "optimizer.learning_rate": 2e-4, "optimizer.weight_decay": 0.5},
    "Muon": {"optimizer.name": "muon", "optimizer.learning_rate": 2e-3},
    "batches of 512": {"batch_size": 512, "optimizer.learning_rate": 2e-3},
    "300 epochs": {"epochs": 300.0},
}
SHAPES = {
    "nano with patches of 2": {"model.variant": "Nano/2"},
    "nano with its two widths swapped": {"model.tokens_mlp_dim": 512, "model.channels_mlp_dim": 64},
    "nano, 16 blocks": {"model.num_blocks": 16},
    "tiny": {"model.variant": "Tiny/4"},
    "tiny with patches of 2": {"model.variant": "Tiny/2"},
}
NOTE = "Published: one seed, of a model of one of these two sizes; which of them is not said."


def get_arms():
    """What is trained, in the order of worth."""
    settings = {"num_seeds": 3, "protocols": ("clean",)}
    plain = Arm("plain", "the recipe without augmentation of images", PLAIN, **settings)
    arms = [
        Arm("recipe", "the recipe, nano", **settings),
        plain,
        dataclasses.replace(
            plain, name="plain_init", title=f"{plain.title}, started as PyTorch does", changes=PLAIN | TORCH_INIT
        ),
        dataclasses.replace(plain, name="torch_plain", title=f"{plain.title}, PyTorch here", in_torch=True),
        Arm("small", "a smaller model for a CPU", SMALL, 1, ("clean",)),
        *(
            Arm(
                f"nano_{size}",
                f"nano as published, {size}",
                _changed(mixer_nano_cifar10.get_config(size)),
                num_seeds=3,
                protocols=("published",),
                published={"last": 90.83},
                notes=(NOTE,),
            )
            for size in mixer_nano_cifar10.WIDTHS
        ),
        Arm("fast", "configs/cifar10_fast.py", _changed(cifar10_fast.get_config()), **settings),
    ]
    arms += [
        Arm(title.lower().replace(" ", "_").replace(",", ""), f"the recipe, {title}", changes, **settings)
        for title, changes in (PARTS | SHAPES).items()
    ]
    return tuple(arms)
