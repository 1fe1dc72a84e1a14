"""Ranges against NumPy, ONNX Runtime's calibrater and brute force."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2mlp_deploy.calibration import ranges
from s2mlp_deploy.calibration.histogram import Histogram
from s2mlp_deploy.calibration.ranges import METHODS, PERCENTILE, NumberType, choose_range
from s2mlp_deploy.errors import InputError

UINT8, INT8, FP8 = NumberType.UINT8, NumberType.INT8, NumberType.FLOAT8E4M3FN
RANDOM = np.random.default_rng(0)
SAMPLES = {
    "normal": RANDOM.normal(0.3, 2.0, 200_000),
    "gelu": np.maximum(RANDOM.normal(0, 3, 200_000), -0.17),
    "one outlier": np.append(RANDOM.normal(0, 1, 200_000), 80.0),
    "heavy tails": RANDOM.standard_t(3, 200_000),
    "all positive": RANDOM.uniform(2, 5, 50_000),
    "all negative": -RANDOM.exponential(1, 50_000),
}


def histogram_of(values) -> Histogram:
    histogram = Histogram()
    histogram.update(np.asarray(values, np.float32))
    return histogram


@pytest.fixture(params=SAMPLES)
def values(request):
    return SAMPLES[request.param].astype(np.float32)


def test_minmax_is_what_was_seen_and_zero(values):
    chosen = choose_range(histogram_of(values), "minmax", UINT8)
    assert (chosen.low, chosen.high) == (min(values.min(), 0), max(values.max(), 0))
    chosen = choose_range(histogram_of(values), "minmax", INT8)
    assert (chosen.low, chosen.high) == (-np.abs(values).max(), np.abs(values).max())


def test_percentile_is_numpys_to_a_bin(values):
    histogram = histogram_of(values)
    inside = np.percentile(np.abs(values), PERCENTILE, method="inverted_cdf")
    chosen = choose_range(histogram, "percentile", INT8)
    assert chosen.magnitude == pytest.approx(inside, abs=1.01 * histogram.width)
    chosen = choose_range(histogram, "percentile", UINT8)
    outside = (100 - PERCENTILE) / 2
    low, high = np.percentile(values, [outside, 100 - outside], method="inverted_cdf")
    assert chosen.low == pytest.approx(min(low, 0), abs=1.01 * histogram.width)
    assert chosen.high == pytest.approx(max(high, 0), abs=1.01 * histogram.width)


# The other samples have empty or one-sided bins, where ONNX Runtime's own thresholds differ by a factor of two between
# 511, 1023 and 2047 bins.
@pytest.mark.parametrize("name", ["normal", "heavy tails"])
def test_entropy_chooses_onnxruntimes_threshold(name):
    calibrate = pytest.importorskip("onnxruntime.quantization.calibrate")
    values = SAMPLES[name].astype(np.float32)
    limit = np.abs(values).max()
    # An odd number of bins, so that one is centred on 0, and levels on both sides of it.
    counts, edges = np.histogram(values, 2047, (-limit, limit))
    collector = calibrate.HistogramCollector("entropy", True, 2047, 255, PERCENTILE, None)
    known = (counts, edges, np.float64(values.min()), np.float64(values.max()), limit)
    low, high = (float(end) for end in collector.get_entropy_threshold(known, 255))
    ours = choose_range(histogram_of(values), "entropy", INT8)
    assert ours.magnitude == pytest.approx(max(-low, high), rel=0.06)
    assert ours.magnitude < limit * 0.95, "a threshold that clips nothing would prove nothing"


def test_entropy_keeps_almost_all_values(values):
    chosen = choose_range(histogram_of(values), "entropy", INT8)
    assert (np.abs(values) <= chosen.magnitude).mean() >= 0.99


def squared_error(values, chosen, number_type):
    """By NumPy for integers, by ml_dtypes for E4M3."""
    low, high = chosen
    if number_type is FP8:
        scale = high / 448
        rounded = np.clip(values / scale, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float64) * scale
    else:
        levels = {UINT8: 255, INT8: 254}[number_type]
        step = (high - low) / levels
        rounded = np.clip(np.round((values - low) / step), 0, levels) * step + low
    return float(np.square(values - rounded).mean())


@pytest.mark.parametrize("number_type", NumberType)
def test_mse_is_as_good_as_brute_force(values, number_type):
    chosen = choose_range(histogram_of(values), "mse", number_type)
    observed = choose_range(histogram_of(values), "minmax", number_type)
    wide = values.astype(np.float64)
    ends = [(observed.low * f, observed.high * f) for f in np.linspace(0.02, 1, 120)]
    tried = [squared_error(wide, pair, number_type) for pair in ends]
    # The spike of "gelu" lies anywhere within its bin, which costs an eighth.
    assert squared_error(wide, (chosen.low, chosen.high), number_type) <= min(tried) * 1.2


def test_a_range_for_fp8_is_not_the_best_one_for_int8():
    """An even grid wants its outliers clipped; E4M3's own has most of its numbers near 0."""
    histogram = histogram_of(SAMPLES["heavy tails"])
    for method in ("entropy", "mse"):
        int8, fp8 = (choose_range(histogram, method, number_type).magnitude for number_type in (INT8, FP8))
        assert fp8 > 1.2 * int8


def test_the_grid_of_e4m3_is_that_of_ml_dtypes():
    codes = np.arange(127, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float64)
    np.testing.assert_array_equal(ranges._E4M3, codes)
    tried = np.linspace(-448, 448, 9973)
    rounded = ranges._rounded(tried, ranges.Range(-448, 448), FP8)
    np.testing.assert_array_equal(rounded, tried.astype(ml_dtypes.float8_e4m3fn).astype(np.float64))


def least_divergent(counts, levels):
    """The threshold in bins, bin by bin in a loop as the method was published; of one-sided counts."""
    counts, divergences = [float(count) for count in counts], {}
    for bins in range(levels, len(counts) + 1):
        sums, sizes = [0.0] * levels, [0] * levels
        for index in range(bins):
            sums[index * levels // bins] += counts[index]
            sizes[index * levels // bins] += counts[index] > 0
        total, inside, divergence = sum(counts), sum(counts[:bins]), 0.0
        for index in range(bins):
            p = counts[index] + (sum(counts[bins:]) if index == bins - 1 else 0.0)
            level = index * levels // bins
            q = sums[level] / sizes[level] if counts[index] else 0.0
            divergence += p / total * math.log((p / total) / max(q / inside, 1e-12)) if p else 0.0
        divergences[bins] = divergence
    return min(divergences, key=divergences.get)


@pytest.mark.parametrize(("number_type", "levels"), [(UINT8, 256), (INT8, 128)])
def test_entropy_uses_the_levels_of_the_number_type(monkeypatch, number_type, levels):
    monkeypatch.setattr(ranges, "_LEAST_KEPT", 0.0)
    histogram = histogram_of(-SAMPLES["all negative"])
    counts = histogram.magnitudes()
    counts = counts[: np.flatnonzero(counts)[-1] + 1]
    chosen = choose_range(histogram, "entropy", number_type)
    expected = least_divergent(counts, levels) * histogram.width
    assert chosen.magnitude == pytest.approx(expected, abs=histogram.width)
    assert chosen.magnitude < 0.9 * -SAMPLES["all negative"].min(), "a threshold that clips nothing would prove nothing"
    if number_type is UINT8:
        assert chosen.low == 0


def test_an_outlier_is_clipped_by_all_but_minmax():
    histogram = histogram_of(SAMPLES["one outlier"])
    found = {method: choose_range(histogram, method, INT8).magnitude for method in METHODS}
    assert found["minmax"] == 80.0
    assert all(3 < found[method] < 40 for method in ("percentile", "entropy", "mse"))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30),
    st.sampled_from(sorted(METHODS)),
    st.sampled_from(NumberType),
)
def test_a_range_holds_zero_and_nothing_that_was_never_there(values, method, number_type):
    histogram = histogram_of(values)
    chosen = choose_range(histogram, method, number_type)
    assert chosen.low <= 0 <= chosen.high
    peak = np.abs(np.float32(values)).max()
    assert chosen.magnitude <= peak
    if number_type.symmetric:
        assert chosen.low == -chosen.high
    else:
        assert chosen.low >= min(np.float32(values).min(), 0)
        assert chosen.high <= max(np.float32(values).max(), 0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("number_type", NumberType)
def test_zeros_and_nothing_have_no_range(method, number_type):
    for histogram in (Histogram(), histogram_of(np.zeros(9))):
        chosen = choose_range(histogram, method, number_type)
        assert (chosen.low, chosen.high) == (0.0, 0.0)


def test_an_unknown_method_lists_those_there_are():
    with pytest.raises(InputError) as caught:
        choose_range(histogram_of([1.0]), "average", INT8)
    assert all(method in str(caught.value) for method in METHODS)
