"""An accuracy budget: the fewest layers in higher precision that keep the score within a given drop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import NamedTuple

from s2mlp_deploy.errors import CheckFailedError
from s2mlp_deploy.evidence.accuracy import BudgetSearch, KeptLayer, Trial

Evaluate = Callable[[Set[str]], float]
"""The score, in points (higher is better), of a graph that keeps the given layers in higher precision."""


class _Measured(NamedTuple):
    """A trial whose score is a number: records of it may hold None, for a figure that is not finite."""

    kept: int
    score: float
    drop: float
    holds: bool


def keep_budget(
    sqnr: Mapping[str, float], evaluate: Evaluate, *, reference: float, max_drop: float, metric: str
) -> BudgetSearch:
    """Finds the layers to keep.

    The layers are kept worst first: 1, 2, 4, ... or at last all, until the budget holds, then bisected. Of what is kept
    then, each is quantized again in turn, the least bad first, and stays so where the budget holds without it.

    Args:
        sqnr: Of every layer, in dB.
        evaluate: Measures a graph.
        reference: The score that must not drop.
        max_drop: By how many points.
        metric: What the score is.

    Raises:
        CheckFailedError: The budget holds only with every layer in higher precision, or not even so.
    """
    order = sorted(sqnr, key=lambda layer: sqnr[layer])
    trials: list[_Measured] = []

    def measure(kept: Set[str]) -> _Measured:
        score = evaluate(kept)
        trial = _Measured(len(kept), score, reference - score, reference - score <= max_drop)
        trials.append(trial)
        return trial

    fails, count, last = -1, 0, measure(frozenset())
    while not last.holds and count < len(order):
        fails, count = count, min(max(1, 2 * count), len(order))
        last = measure(set(order[:count]))
    while count - fails > 1:
        middle = (count + fails) // 2
        trial = measure(set(order[:middle]))
        if trial.holds:
            count, last = middle, trial
        else:
            fails = middle
    kept = order[:count]
    gain: dict[str, float] = {}
    for layer in reversed(order[:count] if last.holds else []):
        without = measure(set(kept) - {layer})
        if without.holds:
            kept, last = [name for name in kept if name != layer], without
        else:
            gain[layer] = last.score - without.score
    if not last.holds or (order and len(kept) == len(order)):
        best = min((trial for trial in trials if trial.kept < len(order)), key=lambda trial: trial.drop)
        raise CheckFailedError(
            f"no graph with a quantized layer was found within {max_drop:g} points of {metric}; "
            f"with {best.kept} of {len(order)} layers kept, it drops by {best.drop:.2f}",
            fix="allow a larger --max-drop, try another --method, or calibrate with more images like the real ones",
        )
    return BudgetSearch(
        metric=metric,
        max_drop=max_drop,
        reference=reference,
        score=last.score,
        sqnr={layer: sqnr[layer] for layer in order},
        trials=tuple(Trial(*trial) for trial in trials),
        kept=tuple(KeptLayer(layer, sqnr[layer], gain[layer]) for layer in kept),
    )
