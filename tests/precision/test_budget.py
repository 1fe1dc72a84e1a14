"""The accuracy budget on synthetic networks whose every layer costs a known number of points."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2mlp_deploy.errors import CheckFailedError
from s2mlp_deploy.precision.budget import BudgetSearch, keep_budget


def climb(
    costs: dict[str, float], max_drop: float, *, order: dict[str, float] | None = None, calls=None
) -> BudgetSearch:
    """Layers that cost points, independently of each other; ``order`` is the SQNR if that misjudges them."""
    sqnr = order or {layer: 100 - cost for layer, cost in costs.items()}

    def evaluate(keep):
        if calls is not None:
            calls.append(set(keep))
        return 80.0 - sum(cost for layer, cost in costs.items() if layer not in keep)

    return keep_budget(sqnr, evaluate, reference=80.0, max_drop=max_drop, metric="top-1 accuracy")


def kept(search: BudgetSearch) -> set[str]:
    return {layer.layer for layer in search.kept}


def test_nothing_is_kept_where_nothing_needs_to_be():
    calls: list[set[str]] = []
    search = climb({"a": 0.1, "b": 0.1}, 0.5, calls=calls)
    assert search.kept == ()
    assert calls == [set()]
    assert search.drop == pytest.approx(0.2)
    assert (search.reference, search.max_drop, search.metric) == (80.0, 0.5, "top-1 accuracy")


@pytest.mark.parametrize("budget", [0.5, 1.0, 2.0, 3.5, 6.5, 13.0, 20.0])
def test_the_fewest_layers_are_kept(budget):
    costs = {f"layer{i}": cost for i, cost in enumerate((0.1, 6.0, 0.2, 3.0, 1.5, 0.3, 7.0, 0.9))}
    search = climb(costs, budget)
    assert search.drop <= budget
    # Costs add up, so the fewest are found by keeping the dearest first.
    dearest, remaining, fewest = sorted(costs.values(), reverse=True), sum(costs.values()), 0
    while remaining > budget:
        remaining -= dearest[fewest]
        fewest += 1
    assert len(search.kept) == fewest
    assert search.score == pytest.approx(80 - sum(c for layer, c in costs.items() if layer not in kept(search)))
    assert list(search.sqnr) == sorted(search.sqnr, key=search.sqnr.get)


def test_layers_that_sqnr_blames_wrongly_are_quantized_again():
    costs = {"harmless": 0.0, "guilty": 5.0, "other": 0.1, "fourth": 0.1, "fifth": 0.1}
    sqnr = {"harmless": 1.0, "guilty": 2.0, "other": 30.0, "fourth": 31.0, "fifth": 32.0}
    search = climb(costs, 0.5, order=sqnr)
    assert kept(search) == {"guilty"}
    assert search.kept[0].sqnr == 2.0
    assert search.kept[0].gain == pytest.approx(5.0)


def test_the_one_guilty_layer_is_found_even_where_sqnr_praises_it():
    costs = {"a": 0.1, "b": 0.1, "c": 0.1, "d": 0.1, "guilty": 5.0}
    assert kept(climb(costs, 0.5, order={layer: float(i) for i, layer in enumerate(costs)})) == {"guilty"}


@pytest.mark.parametrize("layers", range(2, 10))
def test_all_but_one_layer_are_tried(layers):
    costs = dict.fromkeys((f"layer{i}" for i in range(layers)), 1.0)
    search = climb(costs, 1.0)
    assert len(search.kept) == layers - 1


@pytest.mark.parametrize("layers", [1, 2, 3, 7, 8])
def test_a_budget_that_no_quantized_layer_keeps_is_refused(layers):
    costs = dict.fromkeys((f"layer{i}" for i in range(layers)), 1.0)
    with pytest.raises(CheckFailedError) as caught:
        climb(costs, 0.5)
    assert caught.value.exit_code == 1
    assert "0.5 points of top-1 accuracy" in str(caught.value)
    assert "drops by 1.00" in str(caught.value)
    assert "--max-drop" in str(caught.value)


def test_a_score_that_is_no_number_never_holds():
    with pytest.raises(CheckFailedError):
        keep_budget({"a": 1.0, "b": 2.0}, lambda keep: float("nan"), reference=80.0, max_drop=1.0, metric="m")


def test_a_better_score_than_float32s_holds():
    assert climb({"a": -3.0, "b": 0.0}, 0.0).drop == -3.0


points = st.floats(-2, 5, allow_nan=False)


@given(st.lists(points, min_size=1, max_size=12), st.randoms(), st.floats(0, 20))
def test_the_result_always_holds_and_none_of_it_can_go(numbers, random, budget):
    """Also where layers help or hurt each other, and SQNR knows nothing."""
    layers = [f"layer{i}" for i in range(len(numbers))]
    sqnr = {layer: random.random() for layer in layers}
    measured: dict[frozenset[str], float] = {}

    def evaluate(keep):
        key = frozenset(keep)
        if key not in measured:
            costs = [number for layer, number in zip(layers, numbers, strict=True) if layer not in key]
            measured[key] = 80.0 - sum(costs) + random.uniform(-1, 1)
        return measured[key]

    try:
        search = keep_budget(sqnr, evaluate, reference=80.0, max_drop=budget, metric="m")
    except CheckFailedError:
        assert all(80.0 - score > budget for keep, score in measured.items() if len(keep) < len(layers))
        return
    assert evaluate(kept(search)) == search.score
    assert search.drop <= budget
    assert len(search.kept) < len(layers)
    assert search.trials[0].kept == 0
    assert all(trial.holds == (trial.drop <= budget) for trial in search.trials)
