"""What the nodes that torch's exporter writes for data movement cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch.fx import Node

from s2mlp_deploy.recognition import aten as table
from s2mlp_deploy.recognition import cost as costs
from s2mlp_deploy.recognition.aten import aten
from s2mlp_deploy.recognition.cost import Cost


def cost_of(node: Node, sources: Sequence[Sequence[int]], out: Sequence[int]) -> Cost:
    """What the nodes that torch's exporter writes for a movement cost.

    Args:
        node: The operator's.
        sources: The sizes of the tensors that it reads.
        out: Of the result.
    """
    op = table.packet(node)
    source = sources[0] if sources else out
    if op in (aten.permute, aten.transpose, aten.t, aten.movedim) or op in table.FOLDS:
        return costs.turning(out)
    if op in table.COPIES or op in table.WHOLE_VIEWS or op in table.RESHAPES:
        return costs.VIEW
    if op is aten.copy:
        return costs.copying(out)
    if op in (aten.where, aten.masked_fill):
        return costs.choosing(out)
    if op in table.ASSIGNMENTS:
        # What is in front, what is written and what is behind, side by side: see export/decompositions.py.
        return costs.copying(out) + costs.copying(out) + costs.joining(out, 0, 3) + Cost(1)
    if op in table.CONCATENATIONS:
        return costs.joining(out, 0, len(sources))
    if op in table.CONVOLUTIONS:
        kernel = sources[1] if len(sources) > 1 else out
        return costs.copying(out) + Cost(products=math.prod(out) * math.prod(kernel[1:]))
    if op is aten.index_select:
        return costs.looking_up(out, _place(node, len(source)))
    if op in (aten.gather, aten.take_along_dim):
        return costs.indexing("GatherElements", out, math.prod(out))
    if op in (aten.index, aten._unsafe_index):
        # GatherND along the first axes, between Transposes.
        tables: Any = node.args[1]
        free = math.prod(size for size, table in zip(source, tables, strict=False) if table is None)
        rows = math.prod(out) / max(free * math.prod(source[len(tables) :]), 1)
        moved = costs.turning(source) + costs.turning(out) if tables[0] is None else Cost()
        return moved + costs.indexing("GatherND", out, rows)
    if op is aten.index_put:
        rows = max(math.prod(sources[-1][:1]), 1)
        return costs.turning(out) + costs.turning(out) + costs.indexing("ScatterND", out, rows)
    return costs.cutting(source, out)


def _place(node: Node, rank: int) -> int:
    axis = table.argument(node, 1, "dim", 0)
    return axis % rank if isinstance(axis, int) and rank else 0
