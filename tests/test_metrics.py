"""Figures of comparisons, against the formulas written out in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from s2mlp_deploy.errors import InputError
from s2mlp_deploy.metrics import RankComparison, TensorComparison, TensorMetrics, top_k


def compared(*pairs) -> TensorMetrics:
    comparison = TensorComparison()
    for reference, candidate in pairs:
        comparison.update(np.asarray(reference), np.asarray(candidate))
    return comparison.result()


finite = st.floats(-1e4, 1e4, width=32)
pair = hnp.array_shapes(min_dims=1, max_dims=3, max_side=5).flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.float32, shape, elements=finite)] * 2)
)


@given(pair)
def test_figures_are_those_of_the_formulas(arrays):
    a, b = (array.astype(np.float64).ravel() for array in arrays)
    result = compared(arrays)
    assert result.elements == a.size
    assert result.max_abs == np.max(np.abs(a - b))
    assert result.peak == np.max(np.abs(a))
    if result.peak > 0:
        assert result.max_rel == pytest.approx(np.max(np.abs(a - b)) / np.max(np.abs(a)))
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    if norms > 1e-100:
        assert result.cosine == pytest.approx(float(np.dot(a, b)) / norms, abs=1e-12)
    mse = np.mean((a - b) ** 2)
    if mse == 0 or not np.any(a):
        assert result.sqnr is None
    else:
        assert result.sqnr == pytest.approx(10 * math.log10(np.mean(a**2) / mse))
    if mse == 0:
        assert result.psnr is None
    elif result.peak > 0:
        assert result.psnr == pytest.approx(10 * math.log10(result.peak**2 / mse))
    assert result.not_finite == result.reference_not_finite == 0


@given(pair, st.integers(0, 5))
def test_batches_in_pieces_give_the_figures_of_one_piece(arrays, cut):
    a, b = arrays
    whole, pieces = compared((a, b)), compared((a[:cut], b[:cut]), (a[cut:], b[cut:]))
    assert pieces.elements == whole.elements
    assert pieces.max_abs == whole.max_abs
    assert pieces.peak == whole.peak
    assert pieces.cosine == pytest.approx(whole.cosine, abs=1e-12)
    assert (pieces.psnr is None) == (whole.psnr is None)
    if whole.psnr is not None:
        assert pieces.psnr == pytest.approx(whole.psnr)


def test_a_worked_example():
    result = compared(([3.0, 4.0, 0.0], [3.0, 0.0, 0.0]))
    assert result.max_abs == 4
    assert result.peak == 4
    assert result.max_rel == 1
    assert result.cosine == pytest.approx(9 / (5 * 3))
    assert result.psnr == pytest.approx(10 * math.log10(16 / (16 / 3)))


def test_equal_tensors_have_no_psnr_and_no_distance():
    result = compared(([1.5, -2.0], [1.5, -2.0]))
    assert result.psnr is None
    assert result.max_abs == result.max_rel == 0
    assert result.cosine == pytest.approx(1)


def test_two_zero_tensors_are_equal():
    result = compared((np.zeros((2, 3)), np.zeros((2, 3))))
    assert (result.cosine, result.psnr, result.max_abs, result.max_rel) == (1.0, None, 0.0, 0.0)


@pytest.mark.parametrize(("reference", "candidate"), [([0.0, 0.0], [0.0, 1.0]), ([0.0, 1.0], [0.0, 0.0])])
def test_zeros_against_something_are_not_alike(reference, candidate):
    result = compared((reference, candidate))
    assert result.cosine == 0
    assert result.max_abs == 1
    assert not result.equal


def test_a_zero_reference_has_no_relative_distance():
    result = compared(([0.0], [1.0]))
    assert result.psnr is None
    assert result.max_rel is None
    assert not result.equal


def test_opposite_tensors_have_cosine_minus_one():
    assert compared(([1.0, 2.0], [-1.0, -2.0])).cosine == pytest.approx(-1)


def test_half_precision_is_summed_in_double():
    # In float16 the sum of squares of 300 is infinite.
    values = np.full(1000, 300, np.float16)
    result = compared((values, values))
    assert result.cosine == pytest.approx(1)
    assert result.peak == 300


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_counted_on_their_side_and_left_out(bad):
    result = compared(([1.0, 2.0, bad, 4.0], [1.0, bad, bad, 5.0]))
    assert result.elements == 4
    assert result.not_finite == 2
    assert result.reference_not_finite == 1
    assert result.max_abs == 1
    assert result.peak == 4
    assert result.cosine == pytest.approx((1 + 20) / (math.sqrt(17) * math.sqrt(26)))


def test_psnr_is_over_the_elements_that_were_compared():
    # Two values are left out on each side, at other places: two of six remain.
    nan = np.nan
    result = compared(([nan, nan, 1.0, 1.0, 4.0, 2.0], [1.0, 1.0, nan, nan, 3.0, 2.0]))
    assert result.psnr == pytest.approx(10 * math.log10(16 / (1 / 2)))


def test_a_candidate_of_nothing_but_nan_is_counted():
    result = compared((np.ones(5), np.full(5, np.nan)))
    assert result.not_finite == result.elements == 5


def test_shapes_that_differ_are_refused_even_where_numpy_would_broadcast():
    with pytest.raises(InputError, match=r"reference \(2, 3\), candidate \(1, 3\)"):
        compared((np.ones((2, 3)), np.ones((1, 3))))


def test_no_batches_give_figures_all_the_same():
    assert TensorComparison().result().elements == 0
    assert RankComparison().result().images == 0


# Ranks


def test_top_k_is_best_first_and_ties_go_to_the_lower_index():
    scores = np.array([[1.0, 3.0, 3.0, 2.0], [5.0, 5.0, 5.0, 5.0]])
    assert top_k(scores, 3).tolist() == [[1, 2, 3], [0, 1, 2]]


def test_top_k_of_more_than_there_are_gives_all():
    assert top_k(np.array([[1.0, 2.0]]), 5).tolist() == [[1, 0]]


@given(hnp.arrays(np.float32, (3, 7), elements=st.floats(-3, 3, width=16)), st.integers(1, 7))
def test_top_k_agrees_with_sorting_pairs(scores, k):
    expected = [sorted(range(7), key=lambda i: (-row[i], i))[:k] for row in scores.tolist()]
    assert top_k(scores, k).tolist() == expected


def test_agreement_and_accuracy_of_a_worked_example():
    reference = np.eye(8)[[0, 1, 2, 3]]
    candidate = reference.copy()
    candidate[1] = np.eye(8)[4]  # Class 1 is now second, after 4 and before 2 only by its index: among the five.
    candidate[2] = [9, 8, 0, 7, 6, 5, 4, 3]  # Class 2 is last.
    comparison = RankComparison()
    comparison.update(reference, candidate, np.array([0, 1, 5, -1]))
    result = comparison.result()
    assert result.images == 4
    assert result.top1_agreement == 2 / 4
    assert result.top5_agreement == 3 / 4
    assert result.reference_accuracy == 2 / 3
    assert result.candidate_accuracy == 1 / 3


def test_without_labels_there_is_no_accuracy():
    comparison = RankComparison()
    comparison.update(np.eye(3), np.eye(3))
    comparison.update(np.eye(3), np.eye(3), np.full(3, -1))
    result = comparison.result()
    assert result.reference_accuracy is None
    assert result.candidate_accuracy is None
    assert result.images == 6


def test_fewer_than_five_classes_count_all_of_them():
    comparison = RankComparison()
    comparison.update(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))
    assert comparison.result().top1_agreement == 0
    assert comparison.result().top5_agreement == 1


@given(hnp.arrays(np.float32, (6, 4), elements=finite), hnp.arrays(np.float32, (6, 4), elements=finite))
def test_rank_batches_in_pieces_give_the_figures_of_one_piece(a, b):
    labels = np.array([0, 1, 2, 3, -1, 0])
    whole, pieces = RankComparison(), RankComparison()
    whole.update(a, b, labels)
    for part in (slice(0, 1), slice(1, 4), slice(4, 6)):
        pieces.update(a[part], b[part], labels[part])
    assert pieces.result() == whole.result()
