"""Learning-rate schedules by name."""

from collections.abc import Callable

import optax
from ml_collections import ConfigDict

from mixer_jax.errors import one_of

SCHEDULES = ("cosine", "linear", "step", "constant")


def create_schedule(config: ConfigDict, steps_of: Callable[[float], int]) -> optax.Schedule:
    """Builds the learning rate as a function of the step, counted from 0.

    A linear warmup from 0 to `optimizer.learning_rate` over `schedule.warmup_epochs`, then "cosine" or "linear" down to
    `schedule.end_learning_rate` at the last step, "step": times `schedule.decay_rate` every `schedule.decay_epochs`
    epochs from the start of training (torch's StepLR), or "constant".

    Args:
      config: the whole config.
      steps_of: the number of steps that so many epochs take.

    Raises:
      UserError: if the name is unknown.
    """
    name, peak, end = config.schedule.name, config.optimizer.learning_rate, config.schedule.end_learning_rate
    warmup, total = steps_of(config.schedule.warmup_epochs), steps_of(config.epochs)
    if name == "cosine":
        main = optax.cosine_decay_schedule(peak, max(total - warmup, 1), alpha=end / peak)
    elif name == "linear":
        main = optax.linear_schedule(peak, end, max(total - warmup, 1))
    elif name == "step":
        every = config.schedule.decay_epochs
        decays = int(config.epochs / every)
        main = optax.piecewise_constant_schedule(
            peak, {steps_of(i * every) - warmup: config.schedule.decay_rate for i in range(1, decays + 1)}
        )
    elif name == "constant":
        main = optax.constant_schedule(peak)
    else:
        raise one_of("config.schedule.name", name, SCHEDULES)
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), main], [warmup]) if warmup else main
