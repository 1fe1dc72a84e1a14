"""The layers of engines as a page shows them: time and types by module and by operator, what costs time for nothing."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from s2mlp_deploy.artifact import Manifest
from s2mlp_deploy.evidence.engine_layers import EngineLayer, EngineLayers
from s2mlp_deploy.evidence.profile import module_part
from s2mlp_deploy.evidence.standing import hashes_of
from s2mlp_deploy.evidence.store import Evidence
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.engine_layers import columns_of, layers_in_words, rows_of, written_by
from s2mlp_deploy.report.page.builds import builds_of
from s2mlp_deploy.report.page.cells import Cell, Table, headings
from s2mlp_deploy.text import join_names

_ROWS, _NAMED = 16, 4
_TYPES = ("fp32", "fp16", "bf16", "int8", "fp8")


@dataclass(frozen=True)
class TypeBar:
    """A module or an operator as a bar of its types.

    Attributes:
        name: Of it.
        words: What its bar shows, in words.
        parts: Class of the colour, where it begins and how long it is, in percent of the drawing.
    """

    name: str
    words: str
    parts: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True)
class EngineLayersView:
    """The layers of one engine.

    Attributes:
        title: The engine, or the file that they were read from.
        stale: Whether the engine was built anew since.
        facts: Label and value.
        timed: Whether there are times; else bars are numbers of layers.
        of_network: Whether the layers are those of the parsed network.
        groups: Bars by module and by operator, each under its heading.
        legend: Class and name of each type that is there.
        tables: The same in figures.
        findings: What costs time for nothing: what, which layers, and what mends it.
        unclear: What the file says that is not known.
    """

    title: str
    stale: bool
    facts: tuple[tuple[str, str], ...]
    timed: bool
    of_network: bool
    groups: tuple[tuple[str, tuple[TypeBar, ...]], ...]
    legend: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...]
    findings: tuple[tuple[str, str, str], ...]
    unclear: tuple[str, ...]


def view_engine_layers(manifest: Manifest, evidence: Evidence) -> tuple[EngineLayersView, ...]:
    """The saved layers of an artifact's engines."""
    present = hashes_of(manifest, evidence)
    order = [record.engine for record in builds_of(manifest, evidence)]
    found = [item.record for item in evidence.of(EngineLayers)]
    found.sort(key=lambda item: order.index(item.engine) if item.engine in order else len(order))
    return tuple(_view(item, present) for item in found)


def _view(found: EngineLayers, present: dict[str, str]) -> EngineLayersView:
    timed = found.ms is not None
    depth = found.depth_of(_ROWS)
    facts = [
        ("Layers", layers_in_words(found)),
        ("Written by", written_by(found)),
        *([("Together", f"{fmt.milliseconds(found.ms)} ms, each timed by itself")] if timed else []),
    ]
    if not found.engine:
        facts.append(("Engine", "not in this artifact"))
    kinds = {_colour(layer) for layer in found.layers}
    legend = [(f"p{index}", name) for index, name in enumerate(_TYPES, 1)] + [("p0", "other, or not known")]
    shares = (("Module", found.by_module(depth)), ("Operator", found.by_operator()))
    return EngineLayersView(
        found.engine or found.file,
        bool(found.engine) and present.get(found.engine) != found.engine_sha256,
        tuple(facts),
        timed,
        found.source == "network",
        (
            ("By module", _bars(found, lambda layer: module_part(layer.module, depth))),
            ("By operator", _bars(found, lambda layer: layer.op)),
        ),
        tuple((colour, name) for colour, name in legend if colour in kinds),
        tuple(
            Table(
                headings((heading, *columns_of(found))),
                tuple(tuple(map(Cell, row)) for row in rows_of(share, found, _ROWS)),
                frozenset((1, 3, 4)),
            )
            for heading, share in shares
        ),
        tuple(
            (
                f"{item.problem} ({fmt.count(len(item.layers), 'layer')}"
                + (f", {fmt.milliseconds(item.ms)} ms)" if item.ms is not None else ")"),
                join_names(item.layers, limit=_NAMED),
                item.fix,
            )
            for item in found.findings
        ),
        found.unclear,
    )


def _colour(layer: EngineLayer) -> str:
    return f"p{_TYPES.index(layer.dtype) + 1}" if layer.dtype in _TYPES else "p0"


def _bars(found: EngineLayers, name_of: Callable[[EngineLayer], str]) -> tuple[TypeBar, ...]:
    timed = found.ms is not None
    groups: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for layer in found.layers:
        groups[name_of(layer)][_colour(layer)] += max(layer.ms or 0.0, 0.0) if timed else 1.0
    largest = sorted(groups.items(), key=lambda item: -sum(item[1].values()))[:_ROWS]
    longest = max((sum(parts.values()) for _, parts in largest), default=0.0)
    # A damaged record may hold times that make no drawing; its table shows them.
    if not 0 < longest < math.inf:
        return ()
    bars = []
    for name, parts in largest:
        begin, drawn = 0.0, []
        for colour, amount in sorted(parts.items(), key=lambda item: -item[1]):
            drawn.append((colour, round(100 * begin / longest, 2), round(100 * amount / longest, 2)))
            begin += amount
        words = f"{begin:.3f} ms" if timed else fmt.count(int(begin), "layer")
        bars.append(TypeBar(name, words, tuple(drawn)))
    return tuple(bars)
