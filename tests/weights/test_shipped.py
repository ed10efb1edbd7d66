"""The models that come with the package: small files, with a card, that reach what their card says."""

import re

import numpy as np
import pytest
from sklearn.datasets import load_digits

import mixer_jax
from made_models import made_classifier
from mixer_jax import inference
from mixer_jax.errors import UserError
from mixer_jax.metrics import accuracy_and_loss
from mixer_jax.weights import SHIPPED
from support import ROOT

SHARED = ROOT.parent / "shared" / "data" / "tfds"


def test_every_model_has_a_card_and_is_small():
    assert SHIPPED
    for file in SHIPPED.values():
        assert file.with_suffix(".md").read_text().startswith("# ")
        assert file.stat().st_size <= 5_000_000
        assert {other.suffix for other in file.parent.iterdir()} == {".safetensors", ".md"}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_model_loads_by_its_name_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = mixer_jax.load(name)
    image = np.full((50, 40, 3), 128, np.uint8)
    [classes] = model.predict(image, top=3)
    assert len(classes) == 3
    assert all(label in model.label_names for label, _ in classes)


def test_the_model_of_digits_reads_other_digits():
    """Those of scikit-learn, 8x8 pixels by other hands; 60% are right, and 10% would be by chance."""
    digits, model = load_digits(), mixer_jax.load("mnist")
    pixels = np.stack([model.read((image * 15.9).astype(np.uint8)) for image in digits.images[:200]])
    names = [model.label_names[i] for i in model.logits(pixels, 100).argmax(1)]
    assert np.mean([int(name) == digit for name, digit in zip(names, digits.target[:200], strict=True)]) > 0.5


def test_a_file_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "notes.txt").touch()
    assert mixer_jax.load("mnist").image_shape == (28, 28, 1)  # a folder of something else does not
    made_classifier((8, 8, 1)).save(tmp_path / "mnist" / "model.safetensors")
    assert mixer_jax.load("mnist").image_shape == (8, 8, 1)
    with pytest.raises(UserError, match="no published Mixer of that name .did you mean 'mnist'"):
        mixer_jax.load("mnits")


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_a_model_reaches_what_its_card_says(name):
    if not SHARED.exists():
        pytest.skip("needs the datasets")
    model = mixer_jax.load(name)
    stated = float(re.search(r"([\d.]+)% of [\d,]+ test images", SHIPPED[name].with_suffix(".md").read_text())[1])
    test = inference.open_split(model, inference.dataset_of(model, name, str(SHARED)), "test")
    logits, labels = inference.over_split(model.logits, test, 500, "test")
    assert accuracy_and_loss(logits, labels)[0] == pytest.approx(stated, abs=0.02)
