"""What trials say together: mean, sample standard deviation, 95 % interval, and the difference between two models.

The interval is Student's t; the difference is Welch's (the two models need not scatter alike).
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """A mean with what is known of its spread; with fewer than two values nothing is: None."""

    mean: float
    std: float | None  # sample standard deviation, n - 1 in the denominator
    n: int
    low: float | None  # 95 % interval of the mean
    high: float | None


def summary(values: Sequence[float]) -> Summary:
    """Mean, sample standard deviation, number and 95 % interval of one model's trials. Raises ValueError without any."""
    if not values:
        raise ValueError("expected at least one trial to sum up, found none")
    mean, n = statistics.fmean(values), len(values)
    if n == 1:
        return Summary(mean, None, 1, None, None)
    std = statistics.stdev(values)
    half = _quantile(n - 1) * std / math.sqrt(n)
    return Summary(mean, std, n, mean - half, mean + half)


def difference(values: Sequence[float], baseline: Sequence[float]) -> Summary:
    """How far the first mean lies above the second, with Welch's 95 % interval if both have two trials or more.

    `std` is the standard error of the difference, `n` the smaller number of trials.
    """
    a, b = summary(values), summary(baseline)
    mean, n = a.mean - b.mean, min(a.n, b.n)
    if a.std is None or b.std is None:
        return Summary(mean, None, n, None, None)
    va, vb = a.std**2 / a.n, b.std**2 / b.n
    error = math.sqrt(va + vb)
    if error == 0:
        return Summary(mean, 0.0, n, mean, mean)
    freedom = (va + vb) ** 2 / (va**2 / (a.n - 1) + vb**2 / (b.n - 1))
    half = _quantile(freedom) * error
    return Summary(mean, error, n, mean - half, mean + half)


def _quantile(freedom: float) -> float:
    """Student's t below which 97.5 % lie."""
    from scipy.special import stdtrit  # type: ignore[import-untyped]  # a tenth of the import time of scipy.stats

    return float(stdtrit(freedom, 0.975))
