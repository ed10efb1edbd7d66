"""The results of a trained run: its scores on the test set, and the model of its best epoch."""

import dataclasses
import datetime
from typing import Any

import numpy as np

from mixer_jax import data, models
from mixer_jax.inference import Classifier, Origin, Preprocessing
from mixer_jax.messages import say
from mixer_jax.metrics import accuracy_and_loss, balanced_accuracy
from mixer_jax.records import Results, best_epoch
from mixer_jax.run_directory import RunDirectory
from mixer_jax.training.loop import Trained
from mixer_jax.training.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A run after its scoring.

    Attributes:
      measured: the measured fields of the run's `Results`.
      params: the parameters of the best epoch, as host arrays.
      logits: (n, classes) float32, which these parameters give for the test images, in order.
      labels: (n,) int32, the labels of the test images.
    """

    measured: dict[str, Any]
    params: Any
    logits: np.ndarray
    labels: np.ndarray


def score(trainer: Trainer, trained: Trained, title: str = "") -> Outcome:
    """Score the best and the last epoch on the test set, and print the accuracy of the best one as soon as it is known.

    The test set is scored only here, unless it is also the validation split.
    The logits are computed in float32, whatever the dtype of the training. Every report of the run uses these logits.
    `title` begins the printed line.
    """
    history, test = trained.history, trainer.dataset.test
    best, last = best_epoch(history), history[-1]
    logits, labels = trainer.predict(trainer.place(trained.best), test)
    test_accuracy, test_loss = accuracy_and_loss(logits, labels)
    say(f"{title}{test_accuracy:.2f}% of {len(test):,} test images at epoch {best.epoch}, the best")
    last_logits = logits if best is last else trainer.predict(trained.state.evaluated, test)[0]
    last_test_accuracy, last_test_loss = accuracy_and_loss(last_logits, labels)
    seconds = sum(epoch.seconds for epoch in history)
    measured = {
        "epochs": min(last.epoch, trainer.config.epochs),
        "steps": last.step,
        "best_epoch": best.epoch,
        "val_accuracy": best.val_accuracy,
        "val_loss": best.val_loss,
        "test_accuracy": test_accuracy,
        "test_loss": test_loss,
        "test_balanced_accuracy": balanced_accuracy(logits, labels),
        "last_val_accuracy": last.val_accuracy,
        "last_val_loss": last.val_loss,
        "last_test_accuracy": last_test_accuracy,
        "last_test_loss": last_test_loss,
        "test_examples": len(labels),
        "train_seconds": round(seconds, 2),
        "images_per_second": round(last.step * trainer.config.batch_size / seconds, 1),
        "compile_seconds": round(trained.compile_seconds, 2),
    }
    return Outcome(measured, trained.best, logits, labels)


def classifier(trainer: Trainer, params: Any, steps: int) -> Classifier:
    """Return the run's model with the parameters (host arrays or shapes) after a number of steps."""
    config, dataset = trainer.config, trainer.dataset
    preprocessing = Preprocessing.of(config, dataset.info())
    origin = Origin("the run", config.model.variant, config.dataset, steps, ran_on=trainer.runs_on)
    return Classifier(config.model, params, preprocessing, dataset.label_names, origin)


def results(trainer: Trainer, run: RunDirectory, outcome: Outcome, num_seeds: int) -> Results:
    """Return the results of a seed that was trained at the same time as `num_seeds` - 1 others."""
    config = trainer.config
    extended = [
        f"the first {before['step']:,} steps used a schedule for {before['epochs']:g} epochs; later steps did not"
        for before in run.extended
    ]
    return Results(
        seed=config.seed,
        **outcome.measured,
        dataset=trainer.dataset.name,
        model=models.name_of(config.model, trainer.model),
        num_params=trainer.num_params,
        num_seeds=num_seeds,
        train_examples=len(trainer.dataset.train),
        val_examples=len(trainer.dataset.val),
        selected_on=data.selected_on(config.dataset),
        **trainer.runs_on,
        data_fingerprint=run.dataset_info()["fingerprint"],
        cautions=[*trainer.dataset.cautions, *extended],
        finished=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
