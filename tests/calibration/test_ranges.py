"""Ranges against NumPy, ONNX Runtime's calibrater and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2mlp_deploy.calibration.histogram import Histogram
from s2mlp_deploy.calibration.ranges import METHODS, PERCENTILE, choose_range
from s2mlp_deploy.errors import InputError

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
    chosen = choose_range(histogram_of(values), "minmax", symmetric=False)
    assert (chosen.low, chosen.high) == (min(values.min(), 0), max(values.max(), 0))
    chosen = choose_range(histogram_of(values), "minmax", symmetric=True)
    assert (chosen.low, chosen.high) == (-np.abs(values).max(), np.abs(values).max())


def test_percentile_is_numpys_to_a_bin(values):
    histogram = histogram_of(values)
    inside = np.percentile(np.abs(values), PERCENTILE, method="inverted_cdf")
    chosen = choose_range(histogram, "percentile", symmetric=True)
    assert chosen.magnitude == pytest.approx(inside, abs=1.01 * histogram.width)
    chosen = choose_range(histogram, "percentile", symmetric=False)
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
    ours = choose_range(histogram_of(values), "entropy", symmetric=True)
    assert ours.magnitude == pytest.approx(max(-low, high), rel=0.06)
    assert ours.magnitude < limit * 0.95, "a threshold that clips nothing would prove nothing"


def test_entropy_keeps_almost_all_values(values):
    chosen = choose_range(histogram_of(values), "entropy", symmetric=True)
    assert (np.abs(values) <= chosen.magnitude).mean() >= 0.99


def squared_error(values, low, high, levels):
    step = (high - low) / levels
    rounded = np.clip(np.round((values - low) / step), 0, levels) * step + low
    return float(np.square(values - rounded).mean())


@pytest.mark.parametrize("symmetric", [True, False])
def test_mse_is_as_good_as_brute_force(values, symmetric):
    chosen = choose_range(histogram_of(values), "mse", symmetric=symmetric)
    observed = choose_range(histogram_of(values), "minmax", symmetric=symmetric)
    levels = 254 if symmetric else 255
    wide = values.astype(np.float64)
    # The spike of "gelu" lies anywhere within its bin, which costs an eighth.
    tried = [squared_error(wide, observed.low * f, observed.high * f, levels) for f in np.linspace(0.02, 1, 120)]
    assert squared_error(wide, chosen.low, chosen.high, levels) <= min(tried) * 1.2


def test_an_outlier_is_clipped_by_all_but_minmax():
    histogram = histogram_of(SAMPLES["one outlier"])
    found = {method: choose_range(histogram, method, symmetric=True).magnitude for method in METHODS}
    assert found["minmax"] == 80.0
    assert all(3 < found[method] < 40 for method in ("percentile", "entropy", "mse"))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30),
    st.sampled_from(sorted(METHODS)),
    st.booleans(),
)
def test_a_range_holds_zero_and_nothing_that_was_never_there(values, method, symmetric):
    histogram = histogram_of(values)
    chosen = choose_range(histogram, method, symmetric=symmetric)
    assert chosen.low <= 0 <= chosen.high
    peak = np.abs(np.float32(values)).max()
    assert chosen.magnitude <= peak
    if symmetric:
        assert chosen.low == -chosen.high
    else:
        assert chosen.low >= min(np.float32(values).min(), 0)
        assert chosen.high <= max(np.float32(values).max(), 0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_zeros_and_nothing_have_no_range(method, symmetric):
    for histogram in (Histogram(), histogram_of(np.zeros(9))):
        chosen = choose_range(histogram, method, symmetric=symmetric)
        assert (chosen.low, chosen.high) == (0.0, 0.0)


def test_an_unknown_method_lists_those_there_are():
    with pytest.raises(InputError) as caught:
        choose_range(histogram_of([1.0]), "average", symmetric=True)
    assert all(method in str(caught.value) for method in METHODS)
