"""Histograms against NumPy's, over all values at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2mlp_deploy.calibration.histogram import BINS, Histogram
from s2mlp_deploy.errors import DataError


def counted(*batches) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        histogram.update(np.asarray(batch, np.float32))
    return histogram


def by_numpy(histogram: Histogram, values) -> np.ndarray:
    edges = np.linspace(-histogram.limit, histogram.limit, BINS + 1)
    return np.histogram(np.asarray(values, np.float64), edges)[0]


def test_counts_are_those_of_numpy_after_the_limit_has_doubled_many_times():
    random = np.random.default_rng(0)
    batches = [random.normal(0, 0.01 * 7.0**step, (3, 5, 100)).astype(np.float32) for step in range(6)]
    histogram = counted(*batches)
    everything = np.concatenate([batch.ravel() for batch in batches])
    np.testing.assert_array_equal(histogram.counts, by_numpy(histogram, everything))
    assert (histogram.minimum, histogram.maximum) == (everything.min(), everything.max())
    assert histogram.total == everything.size
    assert histogram.limit / 2 <= np.abs(everything).max() < histogram.limit


# Of what is smaller than a 2^-120th of the largest value the sign may be lost; its bin is one of the middle two.
floats = st.floats(-(2.0**20), 2.0**20, width=32, allow_subnormal=False).map(lambda v: v if abs(v) > 2.0**-90 else 0.0)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.lists(floats, min_size=1, max_size=8), min_size=1, max_size=5), st.randoms())
def test_neither_order_nor_batches_matter(batches, random):
    histogram = counted(*batches)
    everything = [value for batch in batches for value in batch]
    random.shuffle(everything)
    other = counted(*([value] for value in everything))
    at_once = counted(everything)
    for again in (other, at_once):
        np.testing.assert_array_equal(again.counts, histogram.counts)
        assert (again.limit, again.minimum, again.maximum) == (histogram.limit, histogram.minimum, histogram.maximum)
    if histogram.limit:
        np.testing.assert_array_equal(histogram.counts, by_numpy(histogram, everything))


def test_centres_lie_in_the_middle_of_their_bins():
    histogram = counted([-3.0, 1.0])
    for value in (-3.0, 1.0):
        nearest = histogram.centres[np.abs(histogram.centres - value).argmin()]
        assert abs(nearest - value) <= histogram.width / 2
    np.testing.assert_allclose(np.diff(histogram.centres), histogram.width)
    np.testing.assert_allclose(histogram.centres, -histogram.centres[::-1])


def test_magnitudes_fold_the_halves():
    values = np.random.default_rng(1).normal(size=1000).astype(np.float32)
    histogram = counted(values)
    edges = np.linspace(0, histogram.limit, BINS // 2 + 1)
    np.testing.assert_array_equal(histogram.magnitudes(), np.histogram(np.abs(values), edges)[0])


def test_zeros_are_counted_before_and_after_there_is_a_limit():
    histogram = counted(np.zeros(7))
    assert histogram.limit == 0.0
    assert (histogram.total, histogram.minimum, histogram.maximum) == (7, 0.0, 0.0)
    histogram.update(np.float32([0.0, 100.0]))
    np.testing.assert_array_equal(histogram.counts, by_numpy(histogram, [0.0] * 8 + [100.0]))


def test_no_values_change_nothing():
    histogram = counted([], [1.0], np.zeros((3, 0)))
    assert histogram.total == 1


@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e-30, 1e30, 3e38])
def test_the_largest_and_smallest_of_float32_are_counted(size):
    histogram = counted([size, -size, 0.0])
    assert histogram.total == 3
    assert (histogram.minimum, histogram.maximum) == (-np.float32(size), np.float32(size))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_and_not_counted(bad):
    histogram = counted([1.0])
    with pytest.raises(DataError, match="NaN or infinite"):
        histogram.update(np.float32([2.0, bad, 0.0]))
    assert (histogram.total, histogram.maximum) == (1, 1.0)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types_are_counted_too(dtype):
    values = np.array([-1.5, 0.25, 3.0], dtype)
    histogram = Histogram()
    histogram.update(values)
    np.testing.assert_array_equal(histogram.counts, by_numpy(histogram, values))


def test_a_copy_goes_its_own_way():
    histogram = counted([1.0])
    copy = histogram.copy()
    copy.update(np.float32([50.0, -2.0]))
    assert (histogram.total, histogram.limit, histogram.minimum) == (1, 2.0, 1.0)
    np.testing.assert_array_equal(copy.counts, counted([1.0, 50.0, -2.0]).counts)
