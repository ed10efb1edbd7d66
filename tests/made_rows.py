"""Rows of made-up results."""

from mixer_jax.records import Results
from mixer_jax.studies import Row


def result(last, best=99.0, **fields):
    """Return the results of a run, with so much accuracy of the last and of the best epoch."""
    common = {"dataset": "mnist", "model": "S/4", "num_params": 1234, "epochs": 10, "best_epoch": 9}
    common |= {"val_accuracy": 98.0, "val_loss": 0.1, "selected_on": "test", "train_seconds": 1200.0}
    common |= {"data_fingerprint": "abc", "devices": 1, "device_kind": "cpu", "dtype": "float32"}
    common |= {"test_examples": 10_000, "versions": {"jax": "0.10"}}
    return Results(**common | {"last_test_accuracy": last, "test_accuracy": best} | fields)


def row(title, values, **fields):
    """Return the row of a run for each accuracy."""
    return Row(title, [result(value) for value in values], **fields)
