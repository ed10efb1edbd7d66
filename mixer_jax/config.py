"""Every field a config may have, with its default and what it means; and the checks that take nothing else."""

import math
from collections.abc import Iterable, Iterator

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from mixer_jax.errors import UserError, did_you_mean

# Rules for fields by their last name: what to say, and whether a value is good. Names are checked where they are used.
LARGEST_INT, LARGEST_FLOAT = 2**31 - 1, 3.4e38  # what an int32 and a float32 hold
POSITIVE = ("must be positive", lambda value: value > 0)
NOT_NEGATIVE = ("must not be negative", lambda value: value >= 0)
FEW = ("must be in 1..1000", lambda value: 1 <= value <= 1000)  # loops that are unrolled or done at once
FRACTION = ("must be in [0, 1)", lambda value: 0 <= value < 1)
PROBABILITY = ("must be in [0, 1]", lambda value: 0 <= value <= 1)
RULES = {
    "accumulation_steps": NOT_NEGATIVE,
    "area": ("must be LOW,HIGH with 0 < LOW <= HIGH <= 1", lambda value: _ordered(value) and value[1] <= 1),
    "aspect": ("must be LOW,HIGH with 0 < LOW <= HIGH", lambda value: _ordered(value)),
    "b1": FRACTION,
    "b2": FRACTION,
    "batch_size": POSITIVE,
    "checkpoint_minutes": POSITIVE,
    "checkpoint_steps": NOT_NEGATIVE,
    "clip_norm": NOT_NEGATIVE,
    "crop_padding": FEW,
    "cutmix_alpha": NOT_NEGATIVE,
    "decay_epochs": POSITIVE,
    "decay_rate": POSITIVE,
    "dropout_rate": FRACTION,
    "dtype": ("must be auto, float32 or bfloat16", lambda value: value in ("auto", "float32", "bfloat16")),
    "early_stopping_patience": NOT_NEGATIVE,
    "end_learning_rate": NOT_NEGATIVE,
    "ema_decay": FRACTION,
    "epochs": POSITIVE,
    "eps": POSITIVE,
    "eval_batch_size": POSITIVE,
    "eval_crop": ("must be in (0, 1]", lambda value: 0 < value <= 1),
    "label_smoothing": FRACTION,
    "layer_decay": ("must be in (0, 1]", lambda value: 0 < value <= 1),
    "layer_norm_epsilon": POSITIVE,
    "learning_rate": POSITIVE,
    "magnitude": ("must be in 0..30", lambda value: 0 <= value <= 30),
    "memory_budget_gib": NOT_NEGATIVE,
    "mixup_alpha": NOT_NEGATIVE,
    "momentum": FRACTION,
    "num_blocks": FEW,
    "num_ops": FEW,
    "num_seeds": FEW,
    "probability": PROBABILITY,
    "reader_threads": FEW,
    "sam_rho": NOT_NEGATIVE,
    "seed": ("must be in 0..2147483647", lambda value: 0 <= value < 2**31),
    "stochastic_depth_rate": FRACTION,
    "warmup_epochs": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
}


def _ordered(bounds: tuple[float, ...]) -> bool:
    return len(bounds) == 2 and all(isinstance(x, int | float) for x in bounds) and 0 < bounds[0] <= bounds[1]


def default_config() -> ConfigDict:
    """Returns the config that every file in `configs/` starts from."""
    config = ConfigDict()
    config.seed = 0  # of the initialisation, the order of the examples and all that is random in training
    config.num_seeds = 1  # runs at once, of seeds seed, seed + 1, ..., each as it would be alone

    config.dataset = ConfigDict()
    config.dataset.name = "digits"  # "digits", "folder", or a name of TensorFlow Datasets
    config.dataset.data_dir = ""  # the image folder; for TFDS the folder of prepared sets ("": TFDS's default)
    config.dataset.train_split = "train"
    config.dataset.test_split = "test"
    config.dataset.val_split = ""  # "": hold out val_fraction of train; equal to test_split: select on test
    config.dataset.val_fraction = 0.1
    config.dataset.hold_out = "by_class"  # the same share of every class, which keeps an image at least; or "random"
    config.dataset.image_size = ()  # (height, width) to fit images to; (): as they are, all alike
    config.dataset.memory_budget_gib = placeholder(float)  # larger sets are streamed; None: a quarter of the memory
    config.dataset.reader_threads = 16  # that decode images while a set is streamed
    config.dataset.normalization = "standard"  # by training "standard" mean and std; "paper": [-1, 1]; "unit": [0, 1]

    config.augment = ConfigDict()  # of training images, in this order; nothing by default
    config.augment.input_size = ()  # (height, width) the model sees; (): as the images are
    config.augment.eval_crop = (
        1.0  # the central box of this share of the sides is scaled to input_size, but for "inception"
    )
    config.augment.crop = "none"  # "pad": with crop_padding, then crop back; "inception": a random box, to input_size
    config.augment.crop_padding = 4  # pixels
    config.augment.inception = ConfigDict()
    config.augment.inception.area = (0.08, 1.0)  # of the box, as a share of the image's, uniform
    config.augment.inception.aspect = (3 / 4, 4 / 3)  # its width over its height, log-uniform
    config.augment.flip = "none"  # left-right: "random", or "alternating" from epoch to epoch
    config.augment.automatic = "none"  # "randaugment", or "autoaugment_cifar10"
    config.augment.rand_augment = ConfigDict()
    config.augment.rand_augment.num_ops = 2
    config.augment.rand_augment.magnitude = 9  # bin, 0 to 30
    config.augment.erasing = ConfigDict()
    config.augment.erasing.probability = 0.0
    config.augment.erasing.area = (0.02, 0.33)  # of the box, as a share of the image's, uniform
    config.augment.erasing.aspect = (0.3, 3.3)  # its height over its width, log-uniform
    config.augment.erasing.fill = "zero"  # after normalisation: the mean pixel if "standard"; or "color", "noise"
    config.augment.mixing = ConfigDict()
    config.augment.mixing.mixup_alpha = 0.0  # of the Beta distribution of the weight; 0: no Mixup
    config.augment.mixing.cutmix_alpha = 0.0  # of the area kept; 0: no CutMix; both: one or the other for each batch
    config.augment.mixing.probability = 1.0  # that a batch is mixed

    config.model = ConfigDict()
    config.model.variant = "Nano/4"  # size / patch size, which the five sizes below override; or "MLP" or "CNN"
    config.model.patch_size = placeholder(int)
    config.model.num_blocks = placeholder(int)
    config.model.hidden_dim = placeholder(int)
    config.model.tokens_mlp_dim = placeholder(int)
    config.model.channels_mlp_dim = placeholder(int)
    config.model.dropout_rate = 0.0
    config.model.stochastic_depth_rate = 0.0  # of the last block, rising linearly from 0 at the first
    config.model.token_mixing = True
    config.model.channel_mixing = True
    config.model.ablated_norm = False  # without one of the two, a block ends in its norm, as in a published ablation
    config.model.gelu = "tanh"  # or "exact"
    config.model.layer_norm_epsilon = 1e-6
    config.model.pre_head_norm = True
    config.model.zero_init_head = True
    config.model.initialization = "paper"  # or "torch": as PyTorch's layers start

    config.init_from = ""  # run directory, file or address of weights that training starts from; "": random ones
    config.frozen_trunk = False  # train the head alone: a linear probe of the features below it
    config.batch_size = 128  # over all devices
    config.accumulation_steps = 0  # parts a batch is computed in, to fit into memory; 0: 1, but on a CPU into its cache
    config.epochs = 10.0
    config.dtype = "auto"  # of the computation: "float32", "bfloat16", or "auto": bfloat16 on GPU and TPU
    config.label_smoothing = 0.0
    config.ema_decay = 0.0  # of an average of the parameters, which is then what is evaluated; 0: none

    config.optimizer = ConfigDict()
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3  # the peak
    config.optimizer.weight_decay = 0.0  # on kernels only; with muon not on the stem's
    config.optimizer.momentum = placeholder(float)  # this and the next three: None is optax's default
    config.optimizer.b1 = placeholder(float)
    config.optimizer.b2 = placeholder(float)
    config.optimizer.eps = placeholder(float)
    config.optimizer.clip_norm = 0.0  # global norm the gradient is clipped to; 0: not
    config.optimizer.layer_decay = 1.0  # a layer's learning rate as a share of the next one's; the head has all of it
    config.optimizer.sam_rho = 0.0  # radius of sharpness-aware minimisation, with two passes a step; 0: none

    config.schedule = ConfigDict()
    config.schedule.name = "cosine"  # or "linear", "step", "constant"; each after a linear warmup from 0
    config.schedule.warmup_epochs = 0.0  # of a run that is no longer than this a tenth
    config.schedule.end_learning_rate = 0.0  # where cosine and linear end
    config.schedule.decay_rate = 0.1  # "step" multiplies the rate by this ...
    config.schedule.decay_epochs = 1.0  # ... every so many epochs

    config.early_stopping_patience = 0  # epochs without a better one on validation; 0: never stop early
    config.eval_batch_size = 512
    config.checkpoint_minutes = placeholder(float)  # between checkpoints; None: 5, or 20 on a network drive
    config.checkpoint_steps = 0  # a checkpoint each time that so many more steps are done; 0: by the minutes only
    return config


def check(config: ConfigDict) -> ConfigDict:
    """Returns the config with every field in place and of the right type.

    Raises:
      UserError: if a field is unknown, of the wrong type or out of range.
    """
    checked = default_config()
    known = dict(flat(checked))
    for path, value in flat(config):
        if path not in known:
            raise unknown_field(path, known)
        block, _, key = path.rpartition(".")
        if value is None and known[path] is not None:
            raise UserError(f"config.{path}=None: expects {type(known[path]).__name__}")
        try:
            (checked[block] if block else checked)[key] = value
        except TypeError as error:
            kind = (checked[block] if block else checked).get_type(key).__name__
            raise UserError(f"config.{path}={value!r}: expects {kind}") from error
    _check_ranges(checked)
    return checked


def flat(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yields the dotted path and the value of each field."""
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def unknown_field(path: str, known: Iterable[str]) -> UserError:
    """The error for a field that does not exist, with the nearest that does."""
    known = list(known)
    hint = did_you_mean(path, known)
    if not hint:  # right name, wrong block
        same_leaf = [k for k in known if k.rpartition(".")[2] == path.rpartition(".")[2]]
        hint = f" (did you mean {same_leaf[0]!r}?)" if same_leaf else ""
    return UserError(f"unknown config field {path!r}{hint}")


def _check_ranges(config: ConfigDict) -> None:
    for path, value in flat(config):
        if value is None:
            continue
        numbers = [x for x in (value if isinstance(value, tuple) else (value,)) if isinstance(x, int | float)]
        if any(not math.isfinite(x) for x in numbers):
            raise UserError(f"config.{path}={value}: must be finite")
        if any(abs(x) > (LARGEST_INT if isinstance(x, int) else LARGEST_FLOAT) for x in numbers):
            raise UserError(f"config.{path}={str(value)[:40]}: too large a number")
        rule, holds = RULES.get(path.rpartition(".")[2], ("", lambda value: True))
        if not holds(value):
            raise UserError(f"config.{path}={value}: {rule}")
    if config.seed + config.num_seeds > 2**31:
        raise UserError(f"config.seed={config.seed} leaves no room below 2147483648 for {config.num_seeds} seeds")
    if config.accumulation_steps and config.batch_size % config.accumulation_steps:
        raise UserError(
            f"config.batch_size={config.batch_size} is not divisible by config.accumulation_steps="
            f"{config.accumulation_steps}"
        )
