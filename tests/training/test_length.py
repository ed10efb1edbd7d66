"""The number of epochs that follows from the number of images: enough steps, and the same number on every resume."""

import pytest

from mixer_jax.run_directory import RunDirectory
from mixer_jax.training import Trainer
from mixer_jax.training.length import with_epochs
from runs import run
from support import make_config, make_dataset


@pytest.mark.parametrize(
    ("num_images", "num_classes", "batch_size", "epochs", "patience"),
    [
        (2641, 5, 64, 60, 20),
        (221, 2, 64, 60, 20),
        (213, 26, 64, 601, 200),
        (213, 25, 64, 601, 200),
        (213, 5, 64, 121, 40),
        (1, 2, 64, 10_240, 3413),
        (50_000, 100, 256, 60, 20),
    ],
)
def test_few_images_are_seen_more_often(num_images, num_classes, batch_size, epochs, patience):
    config = make_config(epochs=-1.0, batch_size=batch_size, early_stopping_patience=20)
    found = with_epochs(config, num_images, num_classes)
    assert (found.epochs, found.early_stopping_patience) == (epochs, patience)
    assert num_images * found.epochs / batch_size >= min(80 * num_classes, 2000)
    given = make_config(epochs=3.5, early_stopping_patience=20)
    assert with_epochs(given, num_images, num_classes) == given


def test_a_trainer_has_the_number_in_its_config():
    dataset = make_dataset()
    trainer = Trainer(make_config(epochs=-1.0, batch_size=16), dataset)
    assert trainer.total_steps == trainer.sampler.steps_in(trainer.config.epochs) >= 800


def test_a_resumed_run_keeps_the_number(tmp_path, monkeypatch):
    monkeypatch.setattr("mixer_jax.training.length.ENOUGH", 7)
    monkeypatch.setattr("mixer_jax.training.length.EPOCHS", 2)
    dataset = make_dataset()
    results = run(tmp_path / "run", dataset, monkeypatch, epochs=-1.0, early_stopping_patience=1)[0]
    config = RunDirectory(tmp_path / "run").config()
    epochs = config.epochs
    assert epochs == max(2, -(-7 * config.batch_size // len(dataset.train)))
    assert results["steps"] >= 7
    monkeypatch.setattr("mixer_jax.training.length.ENOUGH", 700)  # another release chooses otherwise
    again = run(tmp_path / "run", dataset, monkeypatch, epochs=-1.0, early_stopping_patience=1)[0]
    assert again == results
    assert RunDirectory(tmp_path / "run").config().epochs == epochs


def test_a_finished_run_of_given_epochs_is_finished_without_them_too(tmp_path, monkeypatch):
    results = run(tmp_path / "run", make_dataset(), monkeypatch, epochs=2.0, early_stopping_patience=20)[0]
    again = run(tmp_path / "run", make_dataset(), monkeypatch, epochs=-1.0, early_stopping_patience=20)[0]
    assert again == results
    assert not (tmp_path / "run" / "results.old1.json").exists()
