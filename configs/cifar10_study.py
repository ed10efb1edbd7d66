r"""CIFAR-10 from scratch: the recipe, what each part is worth, other model sizes, PyTorch, and a published recipe.

python -m mixer_jax.study --config configs/cifar10_study.py

The whole study needs a GPU. On a CPU, train a few arms for a few epochs:

python -m mixer_jax.study --config configs/cifar10_study.py --config.epochs=5 --seeds 1 \
    --arms plain,plain_init,torch_plain,small --workdir runs/cifar10_short

To measure what each part is worth, one part at a time is changed in one of three starting points, each with its own
list of changes: a base that mixes half of the batches, by CutMix alone; an earlier recipe; and the recipe itself, with
Mixup and CutMix kept on to the end. All three train for 60 epochs. The best epoch is chosen on a held-out tenth of the
training images. Under the published protocol, all training images are trained on, and the best epoch is chosen on the
test images.
"""

import dataclasses

from mixer_jax import config_files
from mixer_jax.config import default_config, flat
from mixer_jax.studies.arms import Arm


def get_config():
    """Return the recipe of configs/cifar10.py."""
    return config_files.get_config("cifar10")


def _changed(config):
    """Return the fields in which a config differs from the recipe."""
    recipe = flat(get_config())
    return {field: value for field, value in flat(config).items() if value != recipe[field]}


PAPER_START = {"model.initialization": "paper", "model.zero_init_head": True}
PLAIN = {  # supported in PyTorch as well
    **{f"augment.{field}": value for field, value in flat(default_config().augment).items()},
    "model.stochastic_depth_rate": 0.1,
    "batch_size": 128,
    "ema_decay": 0.0,
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 1e-3,
    "optimizer.stem_as_matrix": False,
    "schedule.warmup_epochs": 1.0,
}
SMALL = {
    **PLAIN,
    **PAPER_START,
    "augment.crop": "pad",
    "augment.flip": "random",
    "augment.erasing.probability": 0.25,
    "model.hidden_dim": 96,
    "model.tokens_mlp_dim": 96,
    "model.channels_mlp_dim": 384,
    "model.num_blocks": 4,
    "model.stochastic_depth_rate": 0.0,
    "epochs": 30.0,
    "optimizer.learning_rate": 2e-3,
    "ema_decay": 0.998,
}
# How the earlier recipe differed
EARLIER = {"augment.rand_augment.num_ops": 2, "augment.mixing.until": 1.0, "optimizer.stem_as_matrix": False}
SHORT = {"epochs": 60.0, "early_stopping_patience": 0}
BASE = {
    **SHORT,
    **EARLIER,
    "augment.mixing.mixup_alpha": 0.0,
    "augment.mixing.probability": 0.5,
    "ema_decay": 0.998,
}
PARTS = {
    "": {},
    "120 epochs": {"epochs": 120.0},
    "Tiny/4, four times the work": {"model.variant": "Tiny/4"},
    "half as wide again, 30 epochs": {
        "epochs": 30.0,
        "model.hidden_dim": 192,
        "model.tokens_mlp_dim": 96,
        "model.channels_mlp_dim": 768,
    },
    "token mixing of width 32": {"model.tokens_mlp_dim": 32, "model.channels_mlp_dim": 544},
    "CutMix and Mixup, all batches": {"augment.mixing.probability": 1.0, "augment.mixing.mixup_alpha": 0.8},
    "RandAugment of magnitude 14": {"augment.rand_augment.magnitude": 14},
    "Random Erasing": {"augment.erasing.probability": 0.25},
    "flipped from epoch to epoch": {"augment.flip": "alternating"},
    "stochastic depth": {"model.stochastic_depth_rate": 0.1},
    "without label smoothing": {"label_smoothing": 0.0},
    "averaged over 2,000 steps": {"ema_decay": 0.9995},
    "weight decay of 0.3": {"optimizer.weight_decay": 0.3},
    "weight decay of 0.03": {"optimizer.weight_decay": 0.03},
    "twice the learning rate": {"optimizer.learning_rate": 16e-3},
    "without clipping": {"optimizer.clip_norm": 0.0},
    "AdamW": {"optimizer.name": "adamw", "optimizer.learning_rate": 2e-3},
    "sharpness-aware": {"optimizer.sam_rho": 0.05},
    "sharpness-aware, 30 epochs": {"optimizer.sam_rho": 0.05, "epochs": 30.0},
    "sharpness-aware, radius 0.15, 30 epochs": {"optimizer.sam_rho": 0.15, "epochs": 30.0},
    "started as in the paper": PAPER_START,
}
WIDER_TOKEN_MIXING = {"model.tokens_mlp_dim": 128, "model.channels_mlp_dim": 448}
EARLIER_PARTS = {
    "": {},
    "the stem as a matrix": {"optimizer.stem_as_matrix": True},
    "one operation of RandAugment": {"augment.rand_augment.num_ops": 1},
    "RandAugment of magnitude 5": {"augment.rand_augment.magnitude": 5},
    "mixed until 80% of the training": {"augment.mixing.until": 0.8},
    "half of the batches mixed": {"augment.mixing.probability": 0.5},
    "linear decay": {"schedule.name": "linear", "schedule.end_learning_rate": 0.0},
    "batches of 128": {"batch_size": 128, "optimizer.learning_rate": 4e-3, "ema_decay": 0.99975},
    "token mixing of width 128": WIDER_TOKEN_MIXING,
    "token mixing of width 96": {"model.tokens_mlp_dim": 96, "model.channels_mlp_dim": 480},
    "6 blocks, channel mixing of width 704": {"model.num_blocks": 6, "model.channels_mlp_dim": 704},
}
MIXED_TO_THE_END_PARTS = {
    "": {},
    "without RandAugment": {"augment.automatic": "none"},
    "RandAugment of magnitude 5": {"augment.rand_augment.magnitude": 5},
    "half of the batches mixed": {"augment.mixing.probability": 0.5},
    "70% of the batches mixed": {"augment.mixing.probability": 0.7},
    "CutMix alone": {"augment.mixing.mixup_alpha": 0.0},
    "learning rate of 12e-3": {"optimizer.learning_rate": 12e-3},
    "token mixing of width 128": WIDER_TOKEN_MIXING,
}
GROUPS = {  # by the title of a starting point: its settings, and the parts that are changed in it
    "base": (BASE, PARTS),
    "earlier recipe, 60 epochs": (SHORT | EARLIER, EARLIER_PARTS),
    "recipe, 60 epochs, mixed to the end": (SHORT | {"augment.mixing.until": 1.0}, MIXED_TO_THE_END_PARTS),
}
NOTE = "Published: one seed; the source does not say which of the two sizes."


def get_arms():
    """Return the arms, the most important first."""
    settings = {"num_seeds": 3, "protocols": ("clean",)}
    plain = Arm("plain", "AdamW without augmentation", PLAIN | PAPER_START, **settings)
    arms = [
        Arm("recipe", "the recipe, nano", **settings),
        Arm("recipe_300", "the recipe, nano, 300 epochs", {"epochs": 300.0, "early_stopping_patience": 0}, **settings),
        Arm("recipe_60", "the recipe, nano, 60 epochs", SHORT, **settings),
        Arm("earlier", "the earlier recipe, nano", EARLIER, **settings),
        Arm("wide_tokens", "the recipe, token mixing of width 128", WIDER_TOKEN_MIXING, 1, ("clean",)),
        Arm("fast", "configs/cifar10_fast.py", _changed(config_files.get_config("cifar10_fast")), **settings),
        *(
            Arm(
                f"nano_{size}",
                f"nano as published, {size}",
                _changed(config_files.get_config(f"mixer_nano_cifar10:{size}")),
                num_seeds=3,
                protocols=("published", "clean"),
                published={"last": 90.83},
                notes=(NOTE,),
            )
            for size in ("1.13M", "0.67M")
        ),
        plain,
        dataclasses.replace(plain, name="plain_init", title=f"{plain.title}, started as PyTorch does", changes=PLAIN),
        dataclasses.replace(plain, name="torch_plain", title=f"{plain.title}, PyTorch here", in_torch=True),
        Arm("small", "a smaller model for a CPU", SMALL, 1, ("clean",)),
    ]
    for group, (base, parts) in GROUPS.items():
        for part, changes in parts.items():
            name = (part or group) if base is BASE else f"{group} {part}".strip()
            arms.append(Arm(_slug(name), f"{group}, {part}".strip(", "), base | changes, 1, ("clean",)))
    return tuple(arms)


def _slug(title):
    return "".join(c for c in title.lower().replace(" ", "_") if c.isalnum() or c in "_-")
