"""An accuracy budget: the fewest layers in higher precision that keep the score within a given drop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field

from s2mlp_deploy.errors import CheckFailedError

Evaluate = Callable[[Set[str]], float]
"""The score, in points (higher is better), of a graph that keeps the given layers in higher precision."""


@dataclass(frozen=True)
class Trial:
    """One graph that was measured.

    Attributes:
        kept: How many layers it keeps in higher precision, the worst first.
        score: In points.
        drop: Points below the reference.
        holds: Whether that is within the budget.
    """

    kept: int
    score: float
    drop: float
    holds: bool


@dataclass(frozen=True)
class KeptLayer:
    """A layer that stays in higher precision.

    Attributes:
        layer: Its name.
        sqnr: What quantizing it costs, in dB.
        gain: Points that the finished graph would lose without it.
    """

    layer: str
    sqnr: float
    gain: float


@dataclass(frozen=True)
class BudgetSearch:
    """How a budget was kept.

    Attributes:
        metric: What the score is, in words.
        max_drop: The budget, in points.
        reference: The score of float32.
        score: Of the finished graph.
        sqnr: Of every layer, in dB, the worst first.
        trials: Everything that was measured, in order.
        kept: What stays in higher precision.
    """

    metric: str
    max_drop: float
    reference: float
    score: float
    sqnr: dict[str, float] = field(default_factory=dict)
    trials: tuple[Trial, ...] = ()
    kept: tuple[KeptLayer, ...] = ()

    @property
    def drop(self) -> float:
        """Points below the reference."""
        return self.reference - self.score


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
    trials: list[Trial] = []

    def measure(kept: Set[str]) -> Trial:
        score = evaluate(kept)
        trial = Trial(len(kept), score, reference - score, reference - score <= max_drop)
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
        trials=tuple(trials),
        kept=tuple(KeptLayer(layer, sqnr[layer], gain[layer]) for layer in kept),
    )
