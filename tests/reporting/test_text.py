"""Names in any script, in the pictures that matplotlib draws."""

import warnings

import numpy as np
import pytest
from PIL import Image

from mixer_jax.records import Epoch
from mixer_jax.reporting import plot_confusion, plot_curves, text

NAMES = ["Straße", "$100$", "_hidden", "собака", "漢字", "ಕನ್ನಡ", "\u1805"]  # the last ones are in few fonts
EPOCH = Epoch(epoch=1, step=1, train_loss=1.0, train_accuracy=50.0, val_loss=1.0, val_accuracy=50.0)


@pytest.mark.parametrize("known", [None, ["DejaVu Sans"]])
def test_names_without_a_glyph_are_numbers_and_nothing_warns(known, tmp_path, monkeypatch):
    if known:
        for cached in (text._fonts, text._has_glyph):
            cached.cache_clear()
        monkeypatch.setattr(text, "_families", lambda: known)
        assert text.labels(NAMES) == ["Straße", r"\$100\$", " _hidden", "собака", "#5", "#6", "#7"]
        assert text.plain("漢 x") == "□ x"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_confusion(np.eye(len(NAMES), dtype=int), NAMES, tmp_path / "a.png", "漢字")
        plot_curves([[EPOCH]], tmp_path / "curves.png", "".join(NAMES))
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > 300
    for cached in (text._fonts, text._has_glyph):
        cached.cache_clear()
