"""An accuracy budget in words."""

from __future__ import annotations

from s2mlp_deploy.evidence.accuracy import BudgetSearch
from s2mlp_deploy.report import format as fmt


def budget_sentence(search: BudgetSearch) -> str:
    """How a budget was kept, in one sentence."""
    layers = f"{len(search.kept)} of {fmt.count(len(search.sqnr), 'layer')} in higher precision"
    if search.drop is None:
        return f"Its score is not known, with {layers}."
    change = f"{fmt.points(abs(search.drop))} points {'below' if search.drop >= 0 else 'above'} fp32"
    return f"{change} in {search.metric}, where {fmt.figure(search.max_drop)} may be lost, with {layers}."
