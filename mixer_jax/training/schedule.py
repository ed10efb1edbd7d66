"""Learning-rate schedules, by their names."""

from collections import Counter
from collections.abc import Callable

import optax
from ml_collections import ConfigDict

from mixer_jax.errors import UserError, one_of

SCHEDULES = ("cosine", "linear", "step", "constant")


def warmup_epochs(config: ConfigDict) -> float:
    """Return the warmup in epochs: the config's if it is shorter than the run, else a tenth of the run."""
    warmup = config.schedule.warmup_epochs
    return warmup if warmup < config.epochs else config.epochs / 10


def create_schedule(config: ConfigDict, steps_in: Callable[[float], int]) -> optax.Schedule:
    """Return the learning rate as a function of the step, counted from 0.

    The learning rate first rises linearly from 0 to `optimizer.learning_rate` over `warmup_epochs`. Then it depends on
    `schedule.name`:

    - "cosine" and "linear" decay the learning rate to `schedule.end_learning_rate` at the end of training.
    - "step" multiplies it by `schedule.decay_rate` every `schedule.decay_epochs` epochs, counted from the start of
      training, like torch's StepLR.
    - "constant" does not change it.

    `steps_in` returns the number of steps in a number of epochs.

    Raises:
      UserError: if the name is unknown, or if `schedule.decay_epochs` is less than a step.
    """
    name, peak, end = config.schedule.name, config.optimizer.learning_rate, config.schedule.end_learning_rate
    total = steps_in(config.epochs)
    warmup = min(steps_in(warmup_epochs(config)), total - 1)  # so that the last step reaches the peak
    if name == "cosine":
        main = optax.cosine_decay_schedule(peak, max(total - warmup, 1), alpha=end / peak)
    elif name == "linear":
        main = optax.linear_schedule(peak, end, max(total - warmup, 1))
    elif name == "step":
        every, rate = config.schedule.decay_epochs, config.schedule.decay_rate
        if config.epochs / every > total:
            raise UserError(f"config.schedule.decay_epochs={every:g} is less than a step")
        boundaries = Counter(steps_in(i * every) - warmup for i in range(1, int(config.epochs / every) + 1))
        main = optax.piecewise_constant_schedule(peak, {step: rate**times for step, times in boundaries.items()})
    elif name == "constant":
        main = optax.constant_schedule(peak)
    else:
        raise one_of("config.schedule.name", name, SCHEDULES)
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), main], [warmup]) if warmup else main
