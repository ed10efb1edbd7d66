"""What differences between accuracies are worth: intervals and tests at 95%."""

import math
from collections.abc import Sequence

import numpy as np

LEVEL = 0.95


def interval(values: Sequence[float]) -> float | None:
    """Half the width of the 95% confidence interval of the mean (Student's t); None for a single value."""
    return _quantile(len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else None


def against_one(values: Sequence[float], published: float) -> str:
    """What can be said of several runs beside a single published one, which is a draw of its own.

    "higher" or "lower" where it lies outside the 95% prediction interval for one more run like these.
    """
    if len(values) < 2:
        return "one seed: no verdict"
    spread = float(np.std(values, ddof=1))
    half = _quantile(len(values) - 1) * spread * math.sqrt(1 + 1 / len(values))
    return _verdict(float(np.mean(values)) - published, half)


def against_others(values: Sequence[float], others: Sequence[float]) -> tuple[float, float, str] | None:
    """Return the difference of two means, half the width of its 95% interval (Welch), and a verdict.

    None where either is a single value.
    """
    if min(len(values), len(others)) < 2:
        return None
    difference = float(np.mean(values) - np.mean(others))
    if np.var(values) == np.var(others) == 0.0:
        return difference, 0.0, _verdict(difference, 0.0)
    from scipy import stats  # only here: it is slow to import

    low, high = stats.ttest_ind(values, others, equal_var=False).confidence_interval(LEVEL)
    half = float(high - low) / 2
    return difference, half, _verdict(difference, half)


def _verdict(difference: float, half: float) -> str:
    if abs(difference) <= half:
        return "not distinguishable"
    return "higher" if difference > 0 else "lower"


def _quantile(freedom: float) -> float:
    from scipy import stats  # only here: it is slow to import

    return float(stats.t.ppf((1 + LEVEL) / 2, freedom))
