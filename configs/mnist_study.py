"""A published MNIST study of the Mixer, repeated under its own protocol and a clean one.

python -m mixer_jax.study --config configs/mnist_study.py

The study (Exploring-the-MLP-Mixer-Architecture, in PyTorch) trained each model once, on pixels from 0 to 1 without
augmentation, in batches of 32, and chose its models on the test images. Here every arm is trained with five seeds,
under that protocol ("published") and with a tenth of the training images held out to choose the best epoch ("clean").
The tuning grid is trained with one seed, under the published protocol. If PyTorch is installed, three of the arms are
trained in it, too.
"""

import dataclasses
import itertools

from mixer_jax.config import default_config, flat
from mixer_jax.studies.arms import Arm


def get_config():
    """Return the tuned model's config; `python -m mixer_jax.train --config configs/mnist_study.py` trains it alone."""
    config = default_config()
    config.dataset.name = "mnist"
    config.dataset.normalization = "unit"
    config.model.variant = "Nano/14"
    config.model.update(num_blocks=10, hidden_dim=128, tokens_mlp_dim=128, channels_mlp_dim=128, patch_size=14)
    config.model.dropout_rate = 0.1
    config.model.update(gelu="exact", layer_norm_epsilon=1e-5, pre_head_norm=False)
    config.model.update(initialization="torch", zero_init_head=False)
    config.batch_size = 32
    config.epochs = 10
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    config.schedule.name = "constant"
    return config


SGD = {"optimizer.name": "sgd", "optimizer.learning_rate": 0.01, "optimizer.momentum": 0.5}
DECAYED_SGD = SGD | {"schedule.name": "step", "schedule.decay_rate": 0.7, "schedule.decay_epochs": 1.0}
BASELINE = {f"model.{name}": value for name, value in flat(default_config().model).items()}
MLP, CNN = (BASELINE | {"model.variant": name} for name in ("MLP", "CNN"))
PAPER = {
    f"model.{name}": BASELINE[f"model.{name}"]
    for name in ("gelu", "layer_norm_epsilon", "pre_head_norm", "initialization", "zero_init_head")
}
TOKEN_ONLY, CHANNEL_ONLY = {"model.channel_mixing": False}, {"model.token_mixing": False}
AS_PUBLISHED = {"model.ablated_norm": True}

SELECTED = "Published: chosen on the test images, one seed."
OPTIMISER = "Published with SGD and a fast-falling learning rate, beside a Mixer with Adam: not like for like."
TWICE = (
    "Published as channel-only, but the notebook trained the token-only model a second time; there is no published "
    "number for a channel-only one."
)


def get_arms():
    """Return the arms, the most important first."""
    arms = [
        Arm("tuned", "Mixer, tuned", published={"last": 97.79, "best": 98.18}, notes=(SELECTED,)),
        Arm(
            "token_only_published",
            "token mixing only, as published",
            TOKEN_ONLY | AS_PUBLISHED,
            published={"last": 97.63},
            notes=(SELECTED, "Each block applies LayerNorm to its output, which breaks the residual path."),
        ),
        Arm(
            "channel_only_published",
            "channel mixing only, as published",
            CHANNEL_ONLY | AS_PUBLISHED,
            published={"last": 97.57},
            notes=(SELECTED, TWICE),
        ),
        Arm("token_only", "token mixing only, residual kept", TOKEN_ONLY),
        Arm("channel_only", "channel mixing only, residual kept", CHANNEL_ONLY),
        Arm("neither_published", "neither mixing, as published", TOKEN_ONLY | CHANNEL_ONLY | AS_PUBLISHED),
        Arm("neither", "neither mixing: stem, mean and head", TOKEN_ONLY | CHANNEL_ONLY),
        Arm("mlp", "MLP, published optimiser", MLP | DECAYED_SGD, published={"last": 93.83}, notes=(OPTIMISER,)),
        Arm("mlp_adam", "MLP, the Mixer's optimiser", MLP),
        Arm("cnn", "CNN, published optimiser", CNN | DECAYED_SGD, published={"last": 97.75}, notes=(OPTIMISER,)),
        Arm("cnn_adam", "CNN, the Mixer's optimiser", CNN),
        Arm("paper", "Mixer as in the paper, same size", PAPER),
        Arm(
            "first",
            "Mixer, first model, SGD",
            SGD
            | {"model.patch_size": 7, "model.num_blocks": 8}
            | {f"model.{width}": 64 for width in ("hidden_dim", "tokens_mlp_dim", "channels_mlp_dim")},
            published={"last": 97.51},
            notes=(SELECTED,),
        ),
    ]
    arms += [
        dataclasses.replace(
            arm, name=f"torch_{arm.name}", title=f"{arm.title}, PyTorch here", protocols=("published",), in_torch=True
        )
        for arm in arms
        if arm.name in ("tuned", "mlp", "cnn")
    ]
    for patch, dim, layers in itertools.product((4, 7, 14), (64, 128, 256), (6, 8, 10)):
        sizes = {"model.patch_size": patch, "model.num_blocks": layers, "epochs": 5.0}
        sizes |= {f"model.{width}": dim for width in ("hidden_dim", "tokens_mlp_dim", "channels_mlp_dim")}
        best = (patch, dim, layers) == (14, 128, 10)
        arms.append(
            Arm(
                f"grid_{patch}_{dim}_{layers}",
                f"grid: patch {patch}, dim {dim}, {layers} layers",
                sizes,
                num_seeds=1,
                protocols=("published",),
                published={"last": 98.12} if best else {},
                notes=(SELECTED,) if best else (),
            )
        )
    return tuple(arms)
