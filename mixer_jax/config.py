"""The fields of a config, with their defaults and their meaning, and the checks that need the config alone."""

import math
from collections.abc import Iterable
from typing import Any

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from mixer_jax.errors import UserError, did_you_mean

LARGEST_INT, LARGEST_FLOAT = 2**31 - 1, 3.4e38  # the limits of int32 and float32
RULES = {  # error message: a test of the value, and the fields that it is for
    "must be positive": (
        lambda value: value > 0,
        "batch_size eval_batch_size checkpoint_minutes model.layer_norm_epsilon optimizer.eps optimizer.learning_rate "
        "schedule.decay_epochs schedule.decay_rate",
    ),
    "must not be negative": (
        lambda value: value >= 0,
        "accumulation_steps checkpoint_steps early_stopping_patience augment.mixing.cutmix_alpha "
        "augment.mixing.mixup_alpha dataset.memory_budget_gib optimizer.clip_norm optimizer.sam_rho "
        "optimizer.weight_decay schedule.end_learning_rate schedule.warmup_epochs",
    ),
    # Counts that cost time to compile, or memory.
    "must be in 1..1000": (
        lambda value: 1 <= value <= 1000,
        "num_seeds augment.crop_padding augment.rand_augment.num_ops dataset.reader_threads model.num_blocks",
    ),
    "must be in [0, 1)": (
        lambda value: 0 <= value < 1,
        "ema_decay label_smoothing model.dropout_rate model.stochastic_depth_rate optimizer.b1 optimizer.b2 "
        "optimizer.momentum",
    ),
    "must be in [0, 1]": (lambda value: 0 <= value <= 1, "augment.erasing.probability augment.mixing.probability"),
    "must be in (0, 1]": (
        lambda value: 0 < value <= 1,
        "augment.eval_crop augment.mixing.until optimizer.layer_decay",
    ),
    "must be in 8..16": (lambda value: 8 <= value <= 16, "dataset.bits"),
    "must be in 0..30": (lambda value: 0 <= value <= 30, "augment.rand_augment.magnitude"),
    "must be in 0..2147483647": (lambda value: 0 <= value < 2**31, "seed"),
    "must be positive, or -1": (lambda value: value > 0 or value == -1, "epochs"),
    "must be auto, float32 or bfloat16": (lambda value: value in ("auto", "float32", "bfloat16"), "dtype"),
    "must be LOW,HIGH with 0 < LOW <= HIGH": (
        lambda value: _ordered(value),
        "augment.erasing.aspect augment.inception.aspect",
    ),
    "must be LOW,HIGH with 0 < LOW <= HIGH <= 1": (
        lambda value: _ordered(value) and value[1] <= 1,
        "augment.erasing.area augment.inception.area",
    ),
}
# Most values that are names, such as the optimiser's, are checked where they are used.


def _ordered(bounds: tuple[float, ...]) -> bool:
    return len(bounds) == 2 and all(isinstance(x, int | float) for x in bounds) and 0 < bounds[0] <= bounds[1]


def default_config() -> ConfigDict:
    """Return the config with all fields at their defaults, from which every file in `configs/` starts."""
    config = ConfigDict()
    config.seed = 0  # of the initial parameters, the order of the examples, and all random numbers in training
    config.num_seeds = 1  # train seed, seed + 1, ... at the same time, each as if it were trained alone

    config.dataset = ConfigDict()
    config.dataset.name = "digits"  # "digits", "folder", or the name of a TensorFlow dataset, such as "cifar10"
    config.dataset.data_dir = ""  # the image folder, or TFDS's folder of prepared datasets ("": its default)
    # Of an image folder: "auto" recognises how the images are arranged, see `data.arrangement`; "splits" expects
    # data_dir/SPLIT/CLASS/*.png|jpg, with the splits named below.
    config.dataset.layout = "auto"
    config.dataset.class_pattern = ""  # regular expression for names, or paths if it has a /; its group is the class
    config.dataset.test_fraction = 0.2  # fraction of each class for testing, if there are no test or validation images
    config.dataset.on_error = "stop"  # what to do about damaged image files; "skip": train without them
    config.dataset.train_split = "train"  # this and the next two: a folder in data_dir, or a split of TFDS
    config.dataset.test_split = "test"
    # "": the validation images of an image folder, or else val_fraction of train, held out. If it equals test_split,
    # the best epoch is chosen on the test set.
    config.dataset.val_split = ""
    config.dataset.val_fraction = 0.1  # of the training images, to hold out for validation
    # "by_class": the same fraction of each class, but never all of its images; "random": regardless of class.
    config.dataset.hold_out = "by_class"
    # (height, width) to scale and crop to; -1: chosen from the images; (): unchanged, so all must have one size.
    config.dataset.image_size = ()
    # "fit" crops to the aspect ratio of image_size, then scales. "bilinear", "bicubic" and "lanczos" scale to cover
    # image_size, then crop the centre, as in timm; "bicubic/0.875" scales to cover image_size / 0.875.
    config.dataset.resize = "fit"
    config.dataset.draft = True  # decode JPEG files at 1/2, 1/4 or 1/8 of their size if that is still twice image_size
    # Bits that the levels of 16-bit image files use, 8 to 16; None: as many as the highest level found needs, or 16 if
    # layout is "splits".
    config.dataset.bits = placeholder(int)
    config.dataset.memory_budget_gib = placeholder(float)  # larger datasets are streamed; None: a quarter of memory
    config.dataset.reader_threads = 16  # threads that decode the images of a streamed dataset
    config.dataset.normalization = "standard"  # by the training mean and std; "paper": to [-1, 1]; "unit": to [0, 1]

    config.augment = ConfigDict()  # augmentation of the training images, in this order; none by default
    config.augment.input_size = ()  # (height, width) of the model's input; (): that of the images
    # Sides of the central box that is scaled to input_size, as a fraction of those of the largest in the image. Used in
    # evaluation, and in training unless crop = "inception".
    config.augment.eval_crop = 1.0
    config.augment.crop = "none"  # "pad": pad, then crop to the old size; "inception": scale a random box to input_size
    config.augment.crop_padding = 4  # pixels of black on each side
    config.augment.inception = ConfigDict()
    config.augment.inception.area = (0.08, 1.0)  # range of the box's area, as a fraction of the image; uniform
    config.augment.inception.aspect = (3 / 4, 4 / 3)  # range of the box's width / height; log-uniform
    # Horizontal: "random"; or "alternating", which flips one random half of the images in even epochs, the other in odd
    # ones.
    config.augment.flip = "none"
    config.augment.automatic = "none"  # "randaugment", or "autoaugment_cifar10"
    config.augment.rand_augment = ConfigDict()
    config.augment.rand_augment.num_ops = 2  # operations per image
    config.augment.rand_augment.magnitude = 9  # the magnitude bin of every operation, 0 to 30, as in torchvision
    config.augment.erasing = ConfigDict()
    config.augment.erasing.probability = 0.0  # of erasing a box in an image
    config.augment.erasing.area = (0.02, 0.33)  # range of the box's area, as a fraction of the image; uniform
    config.augment.erasing.aspect = (0.3, 3.3)  # range of the box's height / width; log-uniform
    # What fills the box, after normalisation: "zero" (the mean pixel if normalization is "standard"); "color", one
    # random colour per box; or "noise", a random value per pixel.
    config.augment.erasing.fill = "zero"
    config.augment.mixing = ConfigDict()
    # With Mixup and CutMix, each batch gets one of the two, equally likely.
    config.augment.mixing.mixup_alpha = 0.0  # the mixing weight is drawn from Beta(alpha, alpha); 0: no Mixup
    config.augment.mixing.cutmix_alpha = 0.0  # the fraction of the area kept: Beta(alpha, alpha); 0: no CutMix
    config.augment.mixing.probability = 1.0  # of mixing a batch
    config.augment.mixing.until = 1.0  # the fraction of the training after which batches are no longer mixed

    config.model = ConfigDict()
    # SIZE/PATCH_SIZE, with SIZE Pico, Nano, Tiny, S, B, L or H; or SIZE, with the patch size that cuts the input into
    # about 64 patches; or "MLP" or "CNN".
    config.model.variant = "Nano/4"
    config.model.patch_size = placeholder(int)  # this and the next four: None means the variant's value
    config.model.num_blocks = placeholder(int)
    config.model.hidden_dim = placeholder(int)  # channels of a token, the paper's C
    config.model.tokens_mlp_dim = placeholder(int)  # hidden width of token mixing, the paper's D_S
    config.model.channels_mlp_dim = placeholder(int)  # hidden width of channel mixing, the paper's D_C
    config.model.dropout_rate = 0.0  # after each dense layer of the blocks
    config.model.stochastic_depth_rate = 0.0  # of the last block; the rate rises linearly from 0 at the first
    config.model.token_mixing = True  # False leaves out this half of each block, including its norm
    config.model.channel_mixing = True  # likewise
    config.model.ablated_norm = False  # apply an omitted half's norm to the block's output, as in mnist_study.py
    config.model.gelu = "tanh"  # the approximation in the paper's code; or "exact", as in PyTorch
    config.model.layer_norm_epsilon = 1e-6  # the paper's; PyTorch's is 1e-5
    config.model.pre_head_norm = True  # a LayerNorm before the mean over the tokens
    config.model.zero_init_head = True  # as in the paper's code
    config.model.initialization = "paper"  # or "torch", as PyTorch initialises its layers

    config.init_from = ""  # weights to start from, as for `load`; "": random initial parameters
    config.frozen_trunk = False  # train the head alone, a linear probe
    config.batch_size = 128  # of all devices together
    config.accumulation_steps = 0  # microbatches, to save memory; 0: automatic (1, except on a CPU and some TPUs)
    config.epochs = 10.0  # may be fractional; -1: by the dataset, see mixer_jax/training/length.py
    config.dtype = "auto"  # of the computation: "float32", "bfloat16", or "auto": bfloat16 if the devices support it
    config.label_smoothing = 0.0  # probability that is spread evenly over all classes
    config.ema_decay = 0.0  # of a moving average of the parameters, which is evaluated in their place; 0: no average

    config.optimizer = ConfigDict()
    config.optimizer.name = "adamw"  # of OPTIMIZERS in training/optimizer.py, such as "muon", "sgd" or "adam"
    config.optimizer.learning_rate = 1e-3  # the peak of the schedule
    config.optimizer.weight_decay = 0.0  # of kernels only; with "muon", of the kernels that are updated as matrices
    config.optimizer.stem_as_matrix = False  # with "muon": also update the kernel of the stem as a matrix, not by Adam
    config.optimizer.momentum = placeholder(float)  # this and the next three: None is optax's default
    config.optimizer.b1 = placeholder(float)
    config.optimizer.b2 = placeholder(float)
    config.optimizer.eps = placeholder(float)
    config.optimizer.clip_norm = 0.0  # the global norm that the gradient is clipped to; 0: no clipping
    config.optimizer.layer_decay = 1.0  # ratio of a layer's learning rate to the next layer's; the head's is not scaled
    config.optimizer.sam_rho = 0.0  # radius of sharpness-aware minimisation, which takes two gradients per step; 0: off

    config.schedule = ConfigDict()
    config.schedule.name = "cosine"  # or "linear", "step" or "constant"; each after a linear warmup from 0
    config.schedule.warmup_epochs = 0.0  # shortened to a tenth of the run if the run is no longer than this
    config.schedule.end_learning_rate = 0.0  # at the end of "cosine" and "linear"
    config.schedule.decay_rate = 0.1  # "step" multiplies the learning rate by this ...
    config.schedule.decay_epochs = 1.0  # ... every decay_epochs epochs from the start of training

    config.early_stopping_patience = 0  # stop after this many epochs without better validation scores; 0: never
    config.eval_batch_size = 512  # in validation and test, of all devices together
    config.checkpoint_minutes = placeholder(float)  # minutes between checkpoints; None: 5, or 20 on a network drive
    config.checkpoint_steps = 0  # also write a checkpoint whenever the step is a multiple of this; 0: by time only
    return config


def check(config: ConfigDict) -> ConfigDict:
    """Return a copy of a config with every field present, of the right type and in range.

    Args:
      config: the config; omitted fields get their defaults.

    Raises:
      UserError: if a field is unknown, of the wrong type or out of range.
    """
    checked = default_config()
    known = flat(checked)
    for path, value in flat(config).items():
        if path not in known:
            raise unknown_field(path, known)
        section, _, key = path.rpartition(".")
        if value is None and known[path] is not None:
            raise UserError(f"config.{path}=None: expects {type(known[path]).__name__}")
        try:
            (checked[section] if section else checked)[key] = value
        except TypeError as error:
            kind = (checked[section] if section else checked).get_type(key).__name__
            raise UserError(f"config.{path}={value!r}: expects {kind}") from error
    _check_ranges(checked)
    return checked


def flat(config: ConfigDict) -> dict[str, Any]:
    """Return the value of each field by its dotted path."""
    return flatten_dict(config.to_dict(), sep=".")


def unknown_field(path: str, known: Iterable[str]) -> UserError:
    """Return the error for a field that does not exist, with the most similar of the known ones."""
    known = list(known)
    hint = did_you_mean(path, known)
    if not hint:  # the right name in the wrong section
        same_leaf = [k for k in known if k.rpartition(".")[2] == path.rpartition(".")[2]]
        hint = f" (did you mean {same_leaf[0]!r}?)" if same_leaf else ""
    return UserError(f"unknown config field {path!r}{hint}")


def _check_ranges(config: ConfigDict) -> None:
    rules = {field: (rule, holds) for rule, (holds, fields) in RULES.items() for field in fields.split()}
    for path, value in flat(config).items():
        if value is None:
            continue
        numbers = [x for x in (value if isinstance(value, tuple) else (value,)) if isinstance(x, int | float)]
        if any(isinstance(x, float) and not math.isfinite(x) for x in numbers):
            raise UserError(f"config.{path}={value}: must be finite")
        if any(abs(x) > (LARGEST_INT if isinstance(x, int) else LARGEST_FLOAT) for x in numbers):
            raise UserError(f"config.{path}={str(value)[:40]}: too large a number")
        rule, holds = rules.get(path, ("", lambda value: True))
        if not holds(value):
            raise UserError(f"config.{path}={value}: {rule}")
    if config.seed + config.num_seeds > 2**31:
        raise UserError(f"config.seed={config.seed} leaves no room below 2147483648 for {config.num_seeds} seeds")
    if config.accumulation_steps and config.batch_size % config.accumulation_steps:
        raise UserError(
            f"config.batch_size={config.batch_size} is not divisible by config.accumulation_steps="
            f"{config.accumulation_steps}"
        )
