"""The records of a run: lines of metrics.jsonl (epochs) and steps.jsonl (single steps), and results.json."""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Self


@dataclasses.dataclass(frozen=True)
class _Record:
    """A dataclass that is stored as a JSON object."""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return the record stored in a JSON object; fields that this release does not know are ignored.

        Raises:
          KeyError: if a required field is missing; its argument is the name of the field.
        """
        fields = dataclasses.fields(cls)
        if missing := [f.name for f in fields if f.default is dataclasses.MISSING and f.name not in content]:
            raise KeyError(missing[0])
        return cls(**{f.name: content[f.name] for f in fields if f.name in content})

    def to_json(self) -> dict[str, Any]:
        """Return the record as a JSON object, without the fields that are None."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclasses.dataclass(frozen=True)
class Epoch(_Record):
    """The metrics of one epoch; accuracies are in percent.

    Attributes:
      epoch: the number of the epoch, from 1.
      step: the number of training steps done by the end of the epoch.
      train_loss, train_accuracy: means over the training steps, on augmented images; losses are in nats.
      val_loss, val_accuracy: over all validation images, at the end of the epoch.
      learning_rate: that of the epoch's last step.
      images_per_second: training throughput.
      seconds: time spent on training steps.
    """

    epoch: int
    step: int
    train_loss: float = math.nan
    train_accuracy: float = math.nan
    images_per_second: float = math.nan
    seconds: float = math.nan
    learning_rate: float = math.nan
    val_loss: float = math.nan
    val_accuracy: float = math.nan


@dataclasses.dataclass(frozen=True)
class StepMetrics(_Record):
    """The metrics of one training step, on its augmented batch.

    Attributes:
      step: the number of the step, from 1.
      loss: in nats.
      accuracy: in percent.
      gradient_norm: the L2 norm of the gradient of all trained parameters, before clipping.
      learning_rate: that of the step.
      images_per_second: training throughput around the step.
    """

    step: int
    loss: float
    accuracy: float
    gradient_norm: float
    learning_rate: float
    images_per_second: float


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """Return the epoch with the highest validation accuracy; ties are broken by the lowest validation loss."""
    return max(history, key=lambda epoch: (epoch.val_accuracy, -epoch.val_loss))


@dataclasses.dataclass(frozen=True)
class Results(_Record):
    """The results of a run, or the mean of several seeds; accuracies are in percent.

    Attributes:
      dataset, model: the dataset's name and the model's variant.
      num_params: the number of parameters of the model.
      epochs: the number of epochs trained.
      best_epoch: the epoch with the best validation scores.
      val_accuracy, val_loss, test_accuracy, test_loss: of the best epoch.
      last_val_accuracy, last_val_loss, last_test_accuracy, last_test_loss: of the last epoch.
      test_balanced_accuracy: the mean of the classes' accuracies on test, at the best epoch.
      train_examples, val_examples: the number of training and of validation images.
      test_examples: the number of test images scored. It is None, like all test scores, for a run that is not finished.
      train_seconds, compile_seconds: time spent on training steps, and on compiling.
      images_per_second: training throughput.
      selected_on: the split that the best epoch was chosen on, "validation" or "test".
      devices, device_kind, platform, versions: hardware and software of the run.
      dtype, products: the dtype of the computation, and the precision of its matrix products.
      data_fingerprint: a hash of the dataset.
      seed: the seed of a single run; None for several seeds.
      steps: the number of training steps.
      num_seeds: the number of seeds trained at the same time.
      seeds, std: the seeds, and the sample standard deviation of each field in `AVERAGED`; None for a single seed.
      cautions: what one should know to interpret the accuracy, one line each.
      finished: the time when the run finished, in UTC.
    """

    dataset: str
    model: str
    num_params: int
    epochs: float
    best_epoch: float
    val_accuracy: float
    val_loss: float
    train_seconds: float
    selected_on: str
    devices: int
    device_kind: str
    dtype: str
    versions: Mapping[str, str]
    data_fingerprint: str
    seed: int | None = None
    steps: float | None = None
    test_accuracy: float | None = None
    test_loss: float | None = None
    test_balanced_accuracy: float | None = None
    train_examples: int | None = None
    val_examples: int | None = None
    test_examples: int | None = None
    last_val_accuracy: float | None = None
    last_val_loss: float | None = None
    last_test_accuracy: float | None = None
    last_test_loss: float | None = None
    compile_seconds: float | None = None
    images_per_second: float | None = None
    platform: str | None = None
    products: str | None = None
    num_seeds: int | None = None
    seeds: Sequence[int] | None = None
    std: Mapping[str, float] | None = None
    cautions: Sequence[str] = ()
    finished: str | None = None


AVERAGED = (
    "epochs", "steps", "best_epoch", "val_accuracy", "val_loss", "test_accuracy", "test_loss", "test_balanced_accuracy",
    "last_val_accuracy", "last_val_loss", "last_test_accuracy", "last_test_loss",
)  # fmt: skip


def aggregate(runs: Sequence[Results]) -> Results:
    """Return the results of several seeds, trained at the same time, as one record.

    The fields in `AVERAGED` are means, `std` holds their sample standard deviations, `train_seconds` is the maximum,
    and `images_per_second` is the throughput of all seeds together.
    """
    columns = {name: [getattr(run, name) for run in runs] for name in AVERAGED}
    changes: dict[str, Any] = {name: statistics.fmean(column) for name, column in columns.items()}
    changes |= {"seed": None, "seeds": [run.seed for run in runs]}
    changes["std"] = {name: statistics.stdev(column) for name, column in columns.items()}
    changes["train_seconds"] = max(run.train_seconds for run in runs)
    changes["images_per_second"] = round(sum(run.images_per_second or 0.0 for run in runs), 1)
    return dataclasses.replace(runs[0], **changes)
