"""The run directory refuses what is not its own, and never leaves half a file."""

import json

import pytest

from mixer_jax.errors import UserError
from mixer_jax.records import Epoch, Results, best_epoch
from mixer_jax.run_directory import RunDirectory


def test_metrics_are_rewound(tmp_path):
    run = RunDirectory(tmp_path)
    for epoch in (1, 2, 3):
        run.append_metrics(Epoch(epoch=epoch, step=10 * epoch, train_loss=0.1 + 0.2))
    with run.metrics_file.open("a") as file:
        file.write('{"epoch": 4, "st')
    assert [r.epoch for r in run.read_metrics()] == [1, 2, 3]
    with run.metrics_file.open("ab") as file:
        file.write(b"\n\xff\n")
    assert len(run.read_metrics()) == 3
    run.write_metrics(run.read_metrics()[:2])
    assert [json.loads(line)["step"] for line in run.metrics_file.read_text().splitlines()] == [10, 20]
    assert run.read_metrics()[0].train_loss == 0.1 + 0.2


def results(test_accuracy):
    return Results(
        dataset="digits", model="Pico/2", num_params=9, epochs=2.0, best_epoch=1, val_accuracy=90.0, val_loss=0.5,
        train_seconds=1.0, selected_on="validation", devices=1, device_kind="cpu", dtype="float32", versions={},
        data_fingerprint="a", test_accuracy=test_accuracy, cautions=[],
    )  # fmt: skip


def test_results_appear_whole_or_not_at_all(tmp_path, monkeypatch):
    run = RunDirectory(tmp_path)
    run.write_results(results(1.0))

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(UserError, match=r"cannot write .*results.json: No space left on device; fix that and run"):
        run.write_results(results(2.0))
    assert run.read_results() == results(1.0)


def test_the_best_epoch_is_the_most_accurate_and_of_equals_the_one_with_the_lowest_loss():
    scores = [(90.0, 0.5), (95.0, 0.4), (95.0, 0.3), (95.0, 0.3), (94.0, 0.1)]
    history = [Epoch(epoch=i, step=i, val_accuracy=a, val_loss=b) for i, (a, b) in enumerate(scores, 1)]
    assert best_epoch(history).epoch == 3
    assert best_epoch(history[:2]).epoch == 2
