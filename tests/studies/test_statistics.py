"""Intervals and verdicts of a comparison against SciPy and against what they promise."""

import numpy as np
import pytest
from scipy import stats

from mixer_jax.studies.statistics import against_one, against_others, interval

SOME, OTHERS = [97.61, 97.9, 97.75, 97.83, 97.7], [97.2, 97.5, 97.1]


def test_intervals_are_scipys():
    half = interval(SOME)
    low, high = stats.t.interval(0.95, len(SOME) - 1, np.mean(SOME), stats.sem(SOME))
    np.testing.assert_allclose((np.mean(SOME) - half, np.mean(SOME) + half), (low, high))
    assert interval([97.0]) is None


def test_beside_others_it_is_welchs_test():
    difference, half, verdict = against_others(SOME, OTHERS)
    test = stats.ttest_ind(SOME, OTHERS, equal_var=False)
    low, high = test.confidence_interval(0.95)
    np.testing.assert_allclose((difference - half, difference + half), (low, high))
    variances = np.array([np.var(x, ddof=1) / len(x) for x in (SOME, OTHERS)])  # Welch and Satterthwaite
    freedom = variances.sum() ** 2 / sum(variances**2 / [len(SOME) - 1, len(OTHERS) - 1])
    assert half == pytest.approx(stats.t.ppf(0.975, freedom) * np.sqrt(variances.sum()))
    assert verdict == "higher"
    assert test.pvalue < 0.05
    assert against_others(OTHERS, SOME)[2] == "lower"
    assert against_others(SOME, [*SOME[:3], 98.5])[2] == "not distinguishable"
    assert against_others(SOME, [97.0]) is None
    assert against_others([97.0, 97.0], [98.0, 98.0]) == (-1.0, 0.0, "no spread: no verdict")
    assert against_one([97.0, 97.0], 98.0) == "no spread: no verdict"
    difference, half, _ = against_others([97.5, 97.5], [97.0, 98.0])  # SciPy's own interval would warn of it
    assert (difference, half) == (0.0, pytest.approx(stats.t.ppf(0.975, 1) * 0.5))


def test_a_published_run_that_is_one_of_these_is_mostly_not_told_apart():
    rng = np.random.default_rng(0)
    verdicts = [against_one(list(x[:-1]), x[-1]) for x in rng.normal(97.8, 0.1, (4000, 6))]
    assert abs(np.mean([v == "not distinguishable" for v in verdicts]) - 0.95) < 0.012
    assert {"higher", "lower"} < set(verdicts)
    assert against_one(SOME, 97.79) == "not distinguishable"
    assert (against_one(SOME, 97.0), against_one(SOME, 98.6)) == ("higher", "lower")
    assert against_one([97.5], 97.79) == "one seed: no verdict"
