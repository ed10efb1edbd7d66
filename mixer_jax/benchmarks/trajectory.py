"""The losses of the first training steps, here and in PyTorch; requires torch."""

import jax
import numpy as np
import torch
from ml_collections import ConfigDict

from mixer_jax.benchmarks.in_torch import refuse, stepper
from mixer_jax.benchmarks.steps import without_policy
from mixer_jax.errors import UserError
from mixer_jax.interop.torch_mixer import to_torch, twin
from mixer_jax.training import Trainer


def without_randomness(config: ConfigDict) -> ConfigDict:
    """Return a copy of the config in float32, without randomness except in the initial parameters and the batches.

    The copy has no moving average of the parameters either.

    Raises:
      UserError: if the config uses a feature that the PyTorch side does not support.
    """
    refuse(config)
    if config.model.variant == "CNN":
        raise UserError("config.model.variant=CNN: its dropout cannot be left out, so no two trainings are alike")
    plain = without_policy(config)
    plain.model.dropout_rate = plain.model.stochastic_depth_rate = plain.ema_decay = 0.0
    plain.dtype = "float32"
    return plain


def our_losses(trainer: Trainer, num_steps: int) -> np.ndarray:
    """Return the losses (num_steps,) of the first steps of the training program."""
    state, losses = trainer.init(), []
    for step in range(0, num_steps, trainer.max_steps):
        n = min(trainer.max_steps, num_steps - step)
        state, metrics = trainer.train(state, step, n)
        losses.append(np.asarray(metrics["loss"])[:n])
    return np.concatenate(losses)


def torch_losses(trainer: Trainer, num_steps: int) -> np.ndarray:
    """Return the losses (num_steps,) of the first steps in PyTorch, on the CPU.

    Initial parameters, batches and learning rates are the same as in `our_losses`.
    """
    train = trainer.dataset.train
    model = twin(trainer.model, trainer.functions.augment.input_shape)
    model.load_state_dict(to_torch(jax.device_get(trainer.init().params)))
    step_once, losses = stepper(trainer.config, model), []
    for step, indices in enumerate(trainer.sampler.batches(0, num_steps)["indices"]):
        images = np.array(trainer.functions.augment.evaluate(train.images[indices])).transpose(0, 3, 1, 2).copy()
        labels = torch.from_numpy(train.labels[indices]).long()
        losses.append(step_once(torch.from_numpy(images), labels, float(trainer.schedule(step)))[0].item())
    return np.array(losses)
