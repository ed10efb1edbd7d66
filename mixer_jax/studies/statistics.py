"""The significance of differences between accuracies: 95% intervals, and tests at the 5% level."""

import math
from collections.abc import Sequence

import numpy as np

LEVEL = 0.95


def interval(values: Sequence[float]) -> float | None:
    """Return half the width of the 95% confidence interval of the mean (Student's t); None for a single value."""
    return _quantile(len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else None


def against_one(values: Sequence[float], published: float) -> str:
    """Compare the accuracies of several runs with that of a published run, which is itself a random draw.

    Returns:
      "higher" or "lower", for the mean of the runs, if the published accuracy lies outside the 95% prediction interval
      for one more run; else "not distinguishable", or "one seed: no verdict" for a single run, or
      "no spread: no verdict" if the runs do not differ.
    """
    if len(values) < 2:
        return "one seed: no verdict"
    spread = float(np.std(values, ddof=1))
    half = _quantile(len(values) - 1) * spread * math.sqrt(1 + 1 / len(values))
    return _verdict(float(np.mean(values)) - published, half)


def against_others(values: Sequence[float], others: Sequence[float]) -> tuple[float, float, str] | None:
    """Compare the mean accuracies of two groups of runs by Welch's t-test.

    Returns:
      The difference of the means, half the width of its 95% confidence interval, and a verdict: "higher", "lower", "not
      distinguishable", or, if the runs differ in neither group, "no spread: no verdict". None if either group is a
      single run.
    """
    if min(len(values), len(others)) < 2:
        return None
    difference = float(np.mean(values) - np.mean(others))
    some, rest = (float(np.var(x, ddof=1)) / len(x) for x in (values, others))
    half = 0.0
    if some or rest:  # SciPy's own test warns where the values of a group are equal
        freedom = (some + rest) ** 2 / (some**2 / (len(values) - 1) + rest**2 / (len(others) - 1))
        half = _quantile(freedom) * math.sqrt(some + rest)
    return difference, half, _verdict(difference, half)


def _verdict(difference: float, half: float) -> str:
    if not half:
        return "no spread: no verdict"
    if abs(difference) <= half:
        return "not distinguishable"
    return "higher" if difference > 0 else "lower"


def _quantile(freedom: float) -> float:
    from scipy import stats  # here, because it is slow to import

    return float(stats.t.ppf((1 + LEVEL) / 2, freedom))
