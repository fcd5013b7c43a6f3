import itertools

import numpy as np
import pytest
from scipy import stats as reference

from results import stats

A, B = [53.2, 53.9, 53.5, 53.4, 53.6], [55.8, 56.1, 55.7]


def seeds(values, first=0):
    return dict(enumerate(values, first))


def test_mean_deviation_and_interval_equal_numpy_and_scipy():
    got = stats.summary(A)
    low, high = reference.t.interval(0.95, len(A) - 1, loc=np.mean(A), scale=reference.sem(A))
    assert (got.mean, got.std, got.n) == (pytest.approx(np.mean(A)), pytest.approx(np.std(A, ddof=1)), 5)
    assert (got.low, got.high) == (pytest.approx(low), pytest.approx(high))


def test_the_interval_of_two_trials_is_as_wide_as_the_table_says():
    got = stats.summary([1.0, 2.0])  # t(1) = 12.706, standard error 0.5
    assert got.high - got.mean == pytest.approx(12.706 * 0.5, abs=1e-3)


def test_from_eight_trials_the_interval_is_scipys_percentile_bootstrap():
    values = np.random.default_rng(1).exponential(size=12) + 50
    got = stats.summary(list(values))
    expected = reference.bootstrap(
        (values,), np.mean, n_resamples=50_000, method="percentile", rng=7
    ).confidence_interval
    assert (got.low, got.high) == (pytest.approx(expected.low, abs=0.03), pytest.approx(expected.high, abs=0.03))
    assert stats.summary(list(values)) == got
    half = reference.t.ppf(0.975, 6) * np.std(values[:7], ddof=1) / np.sqrt(7)
    assert stats.summary(list(values[:7])).high == pytest.approx(np.mean(values[:7]) + half)


def test_one_trial_has_no_spread_and_none_is_an_error():
    assert stats.summary([7.0]) == stats.Summary(7.0, None, 1, None, None)
    with pytest.raises(ValueError, match="at least one trial"):
        stats.summary([])


def test_with_other_seeds_the_difference_is_scipys_welch_test():
    got = stats.difference(seeds(B), seeds(A))
    welch = reference.ttest_ind(B, A, equal_var=False)
    interval = welch.confidence_interval(0.95)
    assert got.mean == pytest.approx(np.mean(B) - np.mean(A))
    assert (got.low, got.high, got.p) == (
        pytest.approx(interval.low),
        pytest.approx(interval.high),
        pytest.approx(welch.pvalue),
    )
    assert not got.low <= 0 <= got.high


@pytest.mark.parametrize("scale", [1e-60, 1e-100, 1e-150])
def test_welchs_test_does_not_depend_on_the_scale(scale):
    small = stats.difference(seeds([v * scale for v in B]), seeds([v * scale for v in A]))
    assert small.p == pytest.approx(stats.difference(seeds(B), seeds(A)).p)


@pytest.mark.parametrize("trials", [2, 3])
def test_with_the_same_seeds_the_difference_is_scipys_paired_test_in_any_order(trials):
    a, b = A[:trials], B[:trials]
    got = stats.difference(dict(reversed(seeds(b).items())), seeds(a))
    paired = reference.ttest_rel(b, a)
    interval = paired.confidence_interval(0.95)
    assert got.mean == pytest.approx(np.mean(b) - np.mean(a))
    assert (got.low, got.high, got.p) == (
        pytest.approx(interval.low),
        pytest.approx(interval.high),
        pytest.approx(paired.pvalue),
    )


def test_the_difference_of_single_trials_has_no_interval_and_is_not_called_noise():
    got = stats.difference(seeds([2.0]), seeds(A))
    assert (got.low, got.high, got.p) == (None, None, None)
    assert stats.difference(seeds([2.0]), seeds([1.5])) == stats.Difference(0.5, None, None, None)


def test_less_is_as_far_from_the_baseline_as_more():
    for more, less in ((seeds(B), seeds(A)), (seeds(B), seeds(A[:3]))):
        up, down = stats.difference(more, less), stats.difference(less, more)
        assert (down.mean, down.low, down.high, down.p) == pytest.approx((-up.mean, -up.high, -up.low, up.p))


def test_the_difference_of_trials_without_scatter_is_exact():
    got = stats.difference(seeds([2.0, 2.0]), seeds([1.0, 1.0]))
    assert (got.mean, got.low, got.high, got.p) == (1.0, 1.0, 1.0, 0.0)
    same = stats.difference(seeds([2.0, 2.0]), seeds([2.0, 2.0], first=5))
    assert (same.mean, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    assert stats.summary([6.67] * 11).std == 0  # their mean, divided, is another number
    assert stats.difference(seeds([6.67] * 11), seeds([6.67] * 5)).p == 1


def test_a_published_spread_stands_in_for_single_trials():
    got = stats.against(seeds([57.0]), 56.5, 0.2)  # error 0.2 * sqrt(2)
    assert got.high - got.mean == pytest.approx(1.96 * 0.2 * 2**0.5, abs=1e-3) and got.low < 0 < got.high
    assert got.p == pytest.approx(2 * reference.norm.sf(0.5 / (0.2 * 2**0.5)))
    assert stats.against(seeds([57.5]), 56.5, 0.2).low > 0


@pytest.mark.parametrize("published", [55.0, 57.0])
def test_several_trials_have_their_own_spread_beside_the_published_one(published):
    got = stats.against(seeds(B), published, 0.2)
    error = np.hypot(0.2, reference.sem(B))
    assert got.p == pytest.approx(2 * reference.norm.sf(abs(np.mean(B) - published) / error))
    assert got.high - got.mean == pytest.approx(reference.norm.ppf(0.975) * error)


@pytest.mark.parametrize("seed", range(20))
def test_holm_refuses_what_its_closed_test_refuses(seed):
    p = np.random.default_rng(seed).uniform(0, 0.06, 5)
    every = [set(s) for n in range(1, 6) for s in itertools.combinations(range(5), n)]
    bonferroni = {frozenset(s): min(p[list(s)]) <= 0.05 / len(s) for s in every}
    closed = [all(bonferroni[frozenset(s)] for s in every if i in s) for i in range(5)]
    assert stats.holm(list(p)) == closed


def test_ranks_are_scipys_with_ties_shared_and_tasks_averaged():
    scores = {"voc": {"a": [3.0], "b": [2.0], "c": [2.0]}, "coco": {"a": [1.0], "b": [5.0], "c": [2.0], "d": [9.0]}}
    got = stats.ranks(scores)
    voc, coco = reference.rankdata([-3, -2, -2]), reference.rankdata([-1, -5, -2])
    assert {m: r.mean for m, r in got.items()} == dict(zip("abc", (voc + coco) / 2, strict=True))
    assert all((r.low, r.high) == (r.mean, r.mean) for r in got.values())
    assert stats.ranks({}) == {} and stats.ranks({"voc": {"a": [1.0]}, "coco": {"b": [1.0]}}) == {}


def test_the_uncertainty_of_a_rank_is_that_of_its_trials():
    clear = stats.ranks({"voc": {"a": [9.0, 9.1, 9.2], "b": [1.0, 1.1, 1.2]}})
    assert (clear["a"].low, clear["a"].high) == (1, 1)
    unclear = stats.ranks({"voc": {"a": [9.0, 1.0, 5.0], "b": [8.0, 2.0, 5.1]}})
    assert (unclear["a"].low, unclear["a"].high) == (1, 2)
    uneven = stats.ranks({"voc": {"a": [9.0], "b": [5.0, 5.1, 5.2]}})
    assert (uneven["a"].low, uneven["a"].high) == (1, 1)
