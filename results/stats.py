"""What trials say together: mean, spread and 95 % interval, the difference between two models, ranks over tasks.

Intervals are Student's t, and from eight trials on a bootstrap's percentiles. A difference is taken seed by seed where both
models have the same seeds (they share data order and initialisation of the heads), else by Welch's test, which lets the two
scatter differently. Where a table compares many models with one baseline, Holm's correction says which differences stand.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

BOOTSTRAP = 8  # trials from which the interval of a mean is a bootstrap's
DRAWS = 10_000


@dataclass(frozen=True)
class Summary:
    """A mean with what is known of its spread; with fewer than two values nothing is: None."""

    mean: float
    std: float | None  # sample standard deviation, n - 1 in the denominator
    n: int
    low: float | None  # 95 % interval of the mean
    high: float | None


@dataclass(frozen=True)
class Difference:
    """How far one model's mean lies above another's. Without an interval (too few trials) low, high and p are None."""

    mean: float
    low: float | None  # 95 % interval
    high: float | None
    p: float | None  # two-sided, of no difference


def summary(values: Sequence[float]) -> Summary:
    """Mean, sample standard deviation, number and 95 % interval of one model's trials. Raises ValueError without any."""
    if not values:
        raise ValueError("expected at least one trial to sum up, found none")
    n = len(values)
    # rounded, the mean of equal values may be no longer theirs, and they would have a spread
    mean = min(max(math.fsum(values) / n, min(values)), max(values))
    if n == 1:
        return Summary(mean, None, 1, None, None)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    if n >= BOOTSTRAP:
        return Summary(mean, std, n, *_bootstrap(values))
    half = _quantile(n - 1) * std / math.sqrt(n)
    return Summary(mean, std, n, mean - half, mean + half)


def _bootstrap(values: Sequence[float]) -> tuple[float, float]:
    """The middle 95 % of the means of resampled trials; the same for the same values."""
    import numpy as np

    draws = np.random.default_rng(0).choice(np.asarray(values, float), (DRAWS, len(values))).mean(1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Difference:
    """The first model's trials, by seed, against the second's: paired where the seeds are the same, else Welch's.

    Raises ValueError if one has none.
    """
    a, b = summary(list(values.values())), summary(list(baseline.values()))
    if set(values) == set(baseline) and len(values) > 1:
        apart = summary([values[seed] - baseline[seed] for seed in sorted(values)])
        error, freedom = (apart.std or 0.0) / math.sqrt(apart.n), float(apart.n - 1)
    elif a.std is None or b.std is None:
        return Difference(a.mean - b.mean, None, None, None)
    else:
        va, vb = a.std**2 / a.n, b.std**2 / b.n
        error = math.sqrt(va + vb)
        share = va / (va + vb) if error else 0.0  # its square does not vanish where a variance's would
        freedom = 1 / (share**2 / (a.n - 1) + (1 - share) ** 2 / (b.n - 1))
    return _tested(a.mean - b.mean, error, freedom)


def against(values: Mapping[int, float], baseline: float, std: float) -> Difference:
    """Trials against a figure that is known with a standard deviation only, such as a published mean with its spread.

    The spread stands for the baseline's and, for a single trial, for the model's own too; normal quantiles.
    """
    a = summary(list(values.values()))
    error = math.hypot(std, (std if a.std is None else a.std) / math.sqrt(a.n))
    return _tested(a.mean - baseline, error, math.inf)


def _tested(mean: float, error: float, freedom: float) -> Difference:
    if error == 0:
        return Difference(mean, mean, mean, float(mean == 0))
    half = _quantile(freedom) * error
    return Difference(mean, mean - half, mean + half, _two_sided(mean / error, freedom))


@lru_cache
def _quantile(freedom: float) -> float:
    """Student's t below which 97.5 % lie; the normal distribution's where `freedom` is infinite."""
    from scipy.special import ndtri, stdtrit  # type: ignore[import-untyped]  # a tenth of the import time of scipy.stats

    return float(ndtri(0.975) if math.isinf(freedom) else stdtrit(freedom, 0.975))


def _two_sided(t: float, freedom: float) -> float:
    from scipy.special import ndtr, stdtr

    return float(2 * (ndtr(-abs(t)) if math.isinf(freedom) else stdtr(freedom, -abs(t))))


def holm(p: Sequence[float]) -> list[bool]:
    """Which of several hypotheses are refused by Holm's step-down test, so that one false refusal in all has a probability of 5 %."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    refused = [False] * len(p)
    for step, i in enumerate(order):
        if p[i] > 0.05 / (len(p) - step):
            break
        refused[i] = True
    return refused


@dataclass(frozen=True)
class Rank:
    """A model's mean rank over tasks, 1 the best, and the middle 95 % of it when the trials are drawn again."""

    mean: float
    low: float
    high: float


def ranks(scores: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, Rank]:
    """Ranks over the tasks on which every model has trials: task -> model -> trials; higher is better, ties share a rank.

    The uncertainty is a bootstrap over trials within model and task. A task with one trial a model adds none, which
    understates it.
    """
    import numpy as np
    from scipy.stats import rankdata  # type: ignore[import-untyped]

    models = sorted(set.intersection(*(set(of) for of in scores.values()))) if scores else []
    if not models:
        return {}
    draw = np.random.default_rng(0)
    means = np.empty((1000, len(scores), len(models)))
    centre = np.empty((1, len(scores), len(models)))
    for i, of in enumerate(scores.values()):
        for j, model in enumerate(models):
            trials = np.asarray(of[model], float)
            means[:, i, j] = draw.choice(trials, (1000, len(trials))).mean(1)
            centre[0, i, j] = trials.mean()

    def ranked(x: "np.ndarray") -> "np.ndarray":
        return rankdata(-x, axis=-1).mean(1)

    low, high = np.percentile(ranked(means), [2.5, 97.5], axis=0)
    mean = ranked(centre)[0]
    return {m: Rank(float(mean[j]), float(low[j]), float(high[j])) for j, m in enumerate(models)}
