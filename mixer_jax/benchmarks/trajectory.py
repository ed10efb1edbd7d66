"""The losses of the first training steps, here and in PyTorch; requires torch."""

from collections.abc import Sequence

import jax
import numpy as np
import torch
from ml_collections import ConfigDict

from mixer_jax.benchmarks.in_torch import create_optimizer, refuse
from mixer_jax.benchmarks.steps import without_policy
from mixer_jax.interop.torch_mixer import to_torch, twin
from mixer_jax.training import Trainer


def without_randomness(config: ConfigDict) -> ConfigDict:
    """Return a copy of the config in float32, without randomness except in the initial parameters and the batches.

    The copy has no moving average of the parameters either.

    Raises:
      UserError: if the config uses a feature that the PyTorch side does not support.
    """
    refuse(config)
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
    config, train = trainer.config, trainer.dataset.train
    model = twin(trainer.model, trainer.functions.augment.input_shape)
    model.load_state_dict(to_torch(jax.device_get(trainer.init().params)))
    optimizer, losses = create_optimizer(config.optimizer, model), []
    for step, indices in enumerate(_batches(trainer, num_steps)):
        for group in optimizer.param_groups:
            group["lr"] = float(trainer.schedule(step))
        images = np.array(trainer.functions.augment.evaluate(train.images[indices])).transpose(0, 3, 1, 2).copy()
        logits, labels = model(torch.from_numpy(images)), torch.from_numpy(train.labels[indices]).long()
        loss = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        if config.optimizer.clip_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip_norm)
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


def _batches(trainer: Trainer, num_steps: int) -> Sequence[np.ndarray]:
    return trainer.sampler.batches(0, num_steps)["indices"]
