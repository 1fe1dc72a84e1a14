"""Layers compared: how much of its limit each one's error uses, in the order of the network, all files in one chart."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from s2mlp_deploy.artifact import Manifest
from s2mlp_deploy.evidence.layers import LayerParity, LayersReport
from s2mlp_deploy.evidence.parity import Weights
from s2mlp_deploy.evidence.standing import hashes_of
from s2mlp_deploy.evidence.store import Evidence
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.figures import data_in_words
from s2mlp_deploy.report.layers import COLUMNS, folded, is_judged, layer_row, outcome, strain
from s2mlp_deploy.report.page.cells import Cell, Table
from s2mlp_deploy.text import join_names

_MOST = 8
_WIDTH, _HEIGHT = 1000.0, 240.0
_LOWEST, _HIGHEST = -8, 6
"""Ends of the axis as powers of ten of the limit; a layer without error is drawn at the lower end."""

_DASHES = ("", "7 4", "2 4", "10 3 2 3", "4 4", "1 3", "12 4", "6 2 2 2")


@dataclass(frozen=True)
class Series:
    """The layers of one comparison.

    Attributes:
        name: File, what computed it, and on what.
        colour: Number of its colour.
        dash: How its line is broken: colour is not the only sign.
        line: The path of its line, in a drawing of 1000 by 240.
        dots: The path of its points.
        first: Place in percent and name of the first layer past its limit; None where all hold.
        verdict: Whether all hold, in words.
        tone: Of the verdict.
        table: The layers.
        unmatched: Path and reason of what was not compared.
        bisection: What was tried against the first layer past its limit.
        commands: Options that do what helped or was tried.
    """

    name: str
    colour: int
    dash: str
    line: str
    dots: str
    first: tuple[float, float, str] | None
    verdict: str
    tone: str
    table: Table
    unmatched: tuple[tuple[str, str], ...]
    bisection: tuple[tuple[str, str], ...]
    commands: tuple[str, ...]


@dataclass(frozen=True)
class LayersView:
    """The chart.

    Attributes:
        title: Its text alternative in one sentence.
        description: What each series says.
        ticks: Height in percent and label of each line.
        limit: Height of the limit in percent.
        series: One for each comparison.
        stale: How many comparisons are of older files or other weights, and not drawn.
        more: How many others there is no room for.
    """

    title: str
    description: str
    ticks: tuple[tuple[float, str], ...]
    limit: float
    series: tuple[Series, ...]
    stale: int
    more: int


def current_layers(manifest: Manifest, evidence: Evidence) -> list[LayersReport]:
    """The comparisons of layers of the artifact's files and weights: on images before noise, the newest first."""
    present, weights = hashes_of(manifest, evidence), Weights.of(manifest.source)
    found = [
        report
        for report in evidence.newest(LayersReport)
        if report.layers
        and report.file_sha256 == present.get(report.file)
        and (report.weights is None or report.weights.same_as(weights))
    ]
    return sorted(found, key=lambda report: report.noise)


def view_layers(manifest: Manifest, evidence: Evidence) -> LayersView | None:
    """Draws every comparison of layers; None where there is none."""
    every = len(evidence.of(LayersReport))
    current = current_layers(manifest, evidence)
    if not every:
        return None
    order = {record.path: place for place, record in enumerate(manifest.files)}
    # The newest ones, in the order of the files.
    reports = sorted(current[:_MOST], key=lambda report: order.get(report.file, len(order)))
    places = _places(reports)
    values = [_power(layer) for report in reports for layer in report.layers if is_judged(layer)]
    low = max(_LOWEST, math.floor(min(values, default=-1)), -12)
    high = min(_HIGHEST, max(1, math.ceil(max(values, default=1))))

    def y(power: float) -> float:
        return round(100 * (high - min(max(power, low), high)) / (high - low), 2)

    step = max(1, round((high - low) / 6))
    ticks = [
        (y(power), "limit" if power == 0 else f"1e{power:+d}") for power in range(-step * (-low // step), high, step)
    ]
    series = tuple(_series(index, report, places, y) for index, report in enumerate(reports))
    return LayersView(
        title=f"Error of {fmt.count(len(places), 'layer')} over its limit, in the order of the network",
        description=join_names([f"{item.name}: {item.verdict}" for item in series], limit=None) or "nothing to draw",
        ticks=tuple(ticks),
        limit=y(0),
        series=series,
        stale=every - len(current),
        more=max(0, len(current) - _MOST),
    )


def _places(reports: Sequence[LayersReport]) -> dict[str, int]:
    """The place of each layer along the axis: the order of the longest comparison, with others' own layers between."""
    order: list[str] = []
    for report in sorted(reports, key=lambda report: -len(report.layers)):
        known, before = set(order), -1
        if all(layer.path in known for layer in report.layers):
            continue
        for layer in report.layers:
            if layer.path in known:
                before = order.index(layer.path)
                continue
            before += 1
            order.insert(before, layer.path)
            known.add(layer.path)
    return {path: place for place, path in enumerate(order)}


def _power(layer: LayerParity) -> float:
    used = strain(layer)
    return float(_LOWEST) if used <= 0 else float(_HIGHEST) if not math.isfinite(used) else math.log10(used)


def _series(index: int, report: LayersReport, places: dict[str, int], height: Callable[[float], float]) -> Series:
    pitch = 100 / max(1, len(places))
    points = [
        (round(pitch * (places[layer.path] + 0.5), 2), height(_power(layer)), layer)
        for layer in report.layers
        if is_judged(layer)
    ]
    points.sort(key=lambda point: point[0])
    drawn = [f"{x * _WIDTH / 100:g} {tall * _HEIGHT / 100:g}" for x, tall, _ in points]
    first = report.first
    mark = next(((x, tall, layer.path) for x, tall, layer in points if layer is first), None)
    past = sum(bool(layer.failures) for layer in report.layers)
    verdict = (
        f"all {fmt.count(len(report.layers), 'layer')} hold"
        if first is None
        else f"first past its limit is {first.path}, {fmt.count(past, 'layer')} in all"
    )
    found = report.bisection
    return Series(
        name=f"{report.file}, {report.candidate}, on {data_in_words(report)}",
        colour=index % 8 + 1,
        dash=_DASHES[index % len(_DASHES)],
        line="M" + "L".join(drawn) if drawn else "",
        dots="".join(f"M{point}h0" for point in drawn),
        first=mark,
        verdict=verdict,
        tone="good" if first is None else "bad",
        table=_table(report, first),
        unmatched=tuple((item.path, item.reason) for item in report.unmatched),
        bisection=()
        if found is None
        else (
            ("Departs first", f"{found.path}{f' ({found.line})' if found.line else ''}"),
            ("Enters", ", ".join(found.enters) or "the inputs of the network"),
            *((mend.what, outcome(mend)) for mend in found.mends),
        ),
        commands=()
        if found is None
        else tuple(dict.fromkeys(mend.option for mend in found.mends if mend.option and mend.layer is not None)),
    )


def _table(report: LayersReport, first: LayerParity | None) -> Table:
    rows = []
    for layer, others in folded(report):
        # The line and the state are the note of the name here.
        name, *cells, _, _ = layer_row(layer, others, mark=False)
        state = "first past its limit" if layer is first else "past its limit" if layer.failures else ""
        note = ", ".join(filter(None, (layer.kind, layer.line, state)))
        rows.append((Cell(name, note=note, tone="bad" if state else ""), *map(Cell, cells)))
    columns = COLUMNS[:-2]
    return Table(columns, tuple(rows), frozenset(range(1, len(columns))))
