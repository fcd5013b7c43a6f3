import numpy as np
import pytest
from scipy import stats as reference

from results import stats

A, B = [53.2, 53.9, 53.5, 53.4, 53.6], [55.8, 56.1, 55.7]


def test_mean_deviation_and_interval_equal_numpy_and_scipy():
    got = stats.summary(A)
    low, high = reference.t.interval(0.95, len(A) - 1, loc=np.mean(A), scale=reference.sem(A))
    assert (got.mean, got.std, got.n) == (pytest.approx(np.mean(A)), pytest.approx(np.std(A, ddof=1)), 5)
    assert (got.low, got.high) == (pytest.approx(low), pytest.approx(high))


def test_the_interval_of_two_trials_is_as_wide_as_the_table_says():
    got = stats.summary([1.0, 2.0])  # t(1) = 12.706, standard error 0.5
    assert got.high - got.mean == pytest.approx(12.706 * 0.5, abs=1e-3)


def test_one_trial_has_no_spread_and_none_is_an_error():
    assert stats.summary([7.0]) == stats.Summary(7.0, None, 1, None, None)
    with pytest.raises(ValueError, match="at least one trial"):
        stats.summary([])


def test_the_difference_and_its_interval_equal_scipys_welch_test():
    got = stats.difference(B, A)
    welch = reference.ttest_ind(B, A, equal_var=False).confidence_interval(0.95)
    assert got.mean == pytest.approx(np.mean(B) - np.mean(A))
    assert (got.low, got.high) == (pytest.approx(welch.low), pytest.approx(welch.high))


def test_the_difference_of_single_trials_has_no_interval():
    assert stats.difference([2.0], A).low is None
    assert stats.difference([2.0], [1.5]).mean == 0.5


def test_the_difference_of_trials_without_scatter_is_exact():
    got = stats.difference([2.0, 2.0], [1.0, 1.0])
    assert (got.mean, got.low, got.high) == (1.0, 1.0, 1.0)
