"""The charts of a comparison's page: means over seeds, their spread, and published numbers."""

import numpy as np
import pytest

from made_rows import result
from mixer_jax.studies.charts import costs, curves
from mixer_jax.studies.rows import Curve, Row

SEEDS = [Curve([50.0, 80.0, 90.0], [2.0, 1.0, 0.5], [60.0, 120.0, 180.0], [100, 200, 300]),
         Curve([60.0, 84.0, 92.0], [1.8, 0.8, 0.4], [80.0, 160.0, 240.0], [100, 200, 300])]  # fmt: skip


def test_curves_are_means_with_bands_over_epochs_minutes_and_images():
    row = Row("mixer", [result(90.0), result(92.0)], SEEDS, published={"last": 91.0})
    accuracy, loss = curves([row])
    assert (accuracy["title"], loss["title"]) == ("Test accuracy (%)", "Test loss")
    assert list(accuracy["views"]) == ["epoch", "minutes", "images"]
    mean, above, below, published = accuracy["views"]["epoch"]["series"]
    assert (mean["x"], mean["y"]) == ([1, 2, 3], [55.0, 82.0, 91.0])
    std = np.std([[50, 80, 90], [60, 84, 92]], axis=0, ddof=1)
    assert above["y"] == pytest.approx(np.array([55, 82, 91]) + std, rel=1e-5)
    assert below["y"] == pytest.approx(np.array([55, 82, 91]) - std, rel=1e-5)
    assert (above["band"], below["band"]) == (1, -1)
    assert published["y"] == [91.0, 91.0]
    assert published["label"] == "mixer, published, on test"
    assert accuracy["views"]["minutes"]["series"][0]["x"] == pytest.approx([70 / 60, 140 / 60, 3.5], abs=1e-4)
    assert accuracy["views"]["images"]["series"][0]["x"] == [100, 200, 300]
    assert loss["views"]["epoch"]["series"][0]["y"] == pytest.approx([1.9, 0.9, 0.45])


def test_a_comparison_of_an_older_release_has_accuracies_over_epochs():
    [accuracy] = curves([Row("old", [result(90.0)], [Curve([50.0, 80.0])])])
    assert list(accuracy["views"]) == ["epoch"]
    assert curves([Row("published", [], published={"last": 90.0})]) == []


def test_a_curve_that_is_not_finite_has_gaps():
    [accuracy] = curves([Row("torn", [result(90.0)], [Curve([50.0, 60.0, float("nan"), 70.0])])])
    [series] = accuracy["views"]["epoch"]["series"]
    assert (series["y"], accuracy["low"]) == ([50.0, 60.0, None, 70.0], 70.0)


def test_costs_need_two_models():
    rows = [Row("small", [result(90.0, num_params=1000, train_seconds=60.0)]),
            Row("large", [result(97.0, num_params=5000, train_seconds=600.0)]),
            Row("theirs", [], published={"best": 88.0}, num_params=3000, train_seconds=1200.0)]  # fmt: skip
    sizes, times = costs(rows)
    assert [(one["x"], one["y"], one["mark"]) for one in sizes["views"]["parameters"]["series"]] == [
        ([1000], [90.0], "full"),
        ([5000], [97.0], "full"),
        ([3000], [88.0], "hollow"),
    ]
    assert [(one["x"], one["mark"]) for one in times["views"]["minutes"]["series"]] == [
        ([1.0], "full"), ([10.0], "full"), ([20.0], "hollow")
    ]  # fmt: skip
    assert costs(rows[:1]) == []
