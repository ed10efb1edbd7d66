"""Learning-rate schedules by name."""

from collections import Counter
from collections.abc import Callable

import optax
from ml_collections import ConfigDict

from mixer_jax.errors import UserError, one_of

SCHEDULES = ("cosine", "linear", "step", "constant")


def warmup_epochs(config: ConfigDict) -> float:
    """Return the length of the warmup: as the config says, or a tenth of a run that is no longer than that."""
    warmup = config.schedule.warmup_epochs
    return warmup if warmup < config.epochs else config.epochs / 10


def create_schedule(config: ConfigDict, steps_of: Callable[[float], int]) -> optax.Schedule:
    """Builds the learning rate as a function of the step, counted from 0.

    A linear warmup from 0 to `optimizer.learning_rate` over `warmup_epochs`, then "cosine" or "linear" down to
    `schedule.end_learning_rate` at the last step, "step": times `schedule.decay_rate` every `schedule.decay_epochs`
    epochs from the start of training (torch's StepLR), or "constant".

    Args:
      config: the whole config.
      steps_of: the number of steps that so many epochs take.

    Raises:
      UserError: if the name is unknown, or "step" takes less than a step.
    """
    name, peak, end = config.schedule.name, config.optimizer.learning_rate, config.schedule.end_learning_rate
    warmup, total = steps_of(warmup_epochs(config)), steps_of(config.epochs)
    if name == "cosine":
        main = optax.cosine_decay_schedule(peak, max(total - warmup, 1), alpha=end / peak)
    elif name == "linear":
        main = optax.linear_schedule(peak, end, max(total - warmup, 1))
    elif name == "step":
        every, rate = config.schedule.decay_epochs, config.schedule.decay_rate
        boundaries: Counter[int] = Counter()
        if config.epochs / every > total:
            raise UserError(f"config.schedule.decay_epochs={every:g} is less than a step")
        boundaries.update(steps_of(i * every) - warmup for i in range(1, int(config.epochs / every) + 1))
        main = optax.piecewise_constant_schedule(peak, {step: rate**times for step, times in boundaries.items()})
    elif name == "constant":
        main = optax.constant_schedule(peak)
    else:
        raise one_of("config.schedule.name", name, SCHEDULES)
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), main], [warmup]) if warmup else main
