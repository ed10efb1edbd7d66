"""Training of a config's model in PyTorch on the same data, batches and schedule, for comparison; requires torch.

Initialisation and dropout are PyTorch's. The run directory has no checkpoints, so an interrupted run starts over.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import nn

from mixer_jax import data
from mixer_jax.benchmarks.in_torch import LACKS, optimizer_class, refuse, stepper
from mixer_jax.benchmarks.steps import has_policy
from mixer_jax.errors import UserError
from mixer_jax.interop.torch_mixer import twin
from mixer_jax.messages import say
from mixer_jax.metrics import accuracy_and_loss
from mixer_jax.models import name_of
from mixer_jax.records import Epoch, Results, best_epoch
from mixer_jax.run_directory import RunDirectory
from mixer_jax.training import Trainer, check_epochs, require_finite, stale


def check(config: ConfigDict) -> None:
    """Raise `UserError` if the config uses a feature that the PyTorch side does not support."""
    refuse(config, (*LACKS, "ema_decay", "init_from"))
    if config.dtype == "bfloat16":
        raise UserError(f"config.dtype={config.dtype}: the PyTorch side supports only float32")
    optimizer_class(config.optimizer.name)
    if has_policy(config):
        raise UserError("the PyTorch side does not augment images")


def train_in_torch(trainer: Trainer, run: RunDirectory) -> None:
    """Train and score the model of a config in PyTorch, and write metrics.jsonl and results.json.

    Args:
      trainer: the trainer of a config that passes `check`.
      run: the run directory, already claimed for the config.

    Raises:
      UserError: if the dataset is streamed, or an epoch would have no training step.
      Diverged: if a loss is not finite.
    """
    config, dataset = trainer.config, trainer.dataset
    check_epochs(trainer)
    if dataset.streamed:
        raise UserError("the PyTorch side does not stream images: raise config.dataset.memory_budget_gib")
    torch.manual_seed(config.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = twin(trainer.model, trainer.functions.augment.input_shape).to(device)
    step_once = stepper(config, model)
    splits = {name: _placed(getattr(dataset, name), trainer, device) for name in ("train", "val", "test")}
    history, best, step = [], None, 0
    for epoch in range(1, math.ceil(config.epochs) + 1):
        end = trainer.sampler.steps_in(min(epoch, config.epochs))
        start = time.monotonic()
        model.train()
        train = _epoch(trainer, step_once, splits["train"], step, end)
        train["seconds"] = time.monotonic() - start
        train["images_per_second"] = (end - step) * config.batch_size / train["seconds"]
        step, val = end, _score(model, splits["val"])
        require_finite(np.array([train["train_loss"], val["loss"]]), step, "a loss")
        rate, validation = float(trainer.schedule(step - 1)), {f"val_{key}": value for key, value in val.items()}
        history.append(Epoch(epoch=epoch, step=step, learning_rate=rate, **train, **validation))
        if best_epoch(history) is history[-1]:
            best = {key: value.clone() for key, value in model.state_dict().items()}
        say(f"epoch {epoch:2}  train loss {train['train_loss']:.4f}  val accuracy {val['accuracy']:.2f}%")
        if stale(history, config.early_stopping_patience):
            break
    seconds, last = sum(record.seconds for record in history), _score(model, splits["test"])
    model.load_state_dict(best)
    test, chosen = _score(model, splits["test"]), best_epoch(history)
    results = Results(
        seed=config.seed,
        epochs=min(history[-1].epoch, config.epochs),
        steps=step,
        best_epoch=chosen.epoch,
        val_accuracy=chosen.val_accuracy,
        val_loss=chosen.val_loss,
        test_accuracy=test["accuracy"],
        test_loss=test["loss"],
        last_test_accuracy=last["accuracy"],
        last_test_loss=last["loss"],
        test_examples=len(dataset.test),
        train_seconds=seconds,
        images_per_second=step * config.batch_size / seconds,
        dataset=dataset.name,
        model=name_of(config.model, trainer.model),
        num_params=sum(p.numel() for p in model.parameters()),
        selected_on=data.selected_on(config.dataset),
        platform="gpu" if device.type == "cuda" else "cpu",
        device_kind=torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        devices=1,
        dtype="float32",
        versions={"torch": torch.__version__},
        data_fingerprint=dataset.fingerprint,
    )
    run.write_metrics(history)
    run.write_results(results)


def _placed(split: Any, trainer: Trainer, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the model's input (n, channels, height, width) and the labels (n,) of a split, on the device."""
    parts = [
        np.array(trainer.functions.augment.evaluate(split.images[i : i + 1000]), np.float32).transpose(0, 3, 1, 2)
        for i in range(0, len(split), 1000)
    ]
    return torch.from_numpy(np.concatenate(parts)).to(device), torch.from_numpy(split.labels).long().to(device)


def _epoch(trainer: Trainer, step_once: Callable, split: Any, start: int, end: int) -> dict[str, float]:
    """Train from step `start` to step `end`; return the mean loss and the accuracy in percent over the steps."""
    images, labels = split
    loss_sum, correct = torch.zeros((), device=images.device), torch.zeros((), device=images.device)
    for step, indices in enumerate(trainer.sampler.batches(start, end - start)["indices"], start):
        batch = torch.from_numpy(np.asarray(indices)).long().to(images.device)
        loss, logits = step_once(images[batch], labels[batch], float(trainer.schedule(step)))
        loss_sum, correct = loss_sum + loss, correct + (logits.argmax(1) == labels[batch]).sum()
    steps = end - start
    accuracy = 100 * correct.item() / (steps * trainer.config.batch_size)
    return {"train_loss": loss_sum.item() / steps, "train_accuracy": accuracy}


@torch.no_grad()
def _score(model: nn.Module, split: Any) -> dict[str, float]:
    """Return the mean loss and the accuracy in percent on a split."""
    images, labels = split
    model.eval()
    logits = torch.cat([model(part) for part in images.split(1000)])
    accuracy, loss = accuracy_and_loss(logits.cpu().numpy(), labels.cpu().numpy())
    return {"loss": loss, "accuracy": accuracy}
