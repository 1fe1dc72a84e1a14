"""A network's shifts, equal ones together, and the geometry of their drawings.

The drawings are SVG of our own, as in :mod:`s2mlp_deploy.report.page.charts`: no library draws a shift.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from s2mlp_deploy.artifact import ShiftRecord
from s2mlp_deploy.report.format import count
from s2mlp_deploy.shift.spec import ShiftSpec
from s2mlp_deploy.text import join_names

BORDERS = {
    "keep": "vacated elements keep their value",
    "edge": "vacated elements repeat the nearest one inside",
    "zero": "vacated elements become 0",
    "circular": "elements that leave come back in on the other side",
}
STAYS = "stays"

# The drawing, in its own units; the page shows it at three quarters of that or larger.
_WIDTH, _PITCH, _TILE, _TILE_TOP, _BAR = 480.0, 68.0, 54.0, 42.0, 18.0
_RULE = 22.0
_STRIPS = (9.0, 15.0, 21.0)
_MOST_TILES, _MOST_IN_A_ROW = 24, 7


@dataclass(frozen=True)
class ShiftSummary:
    """Equal shifts of a network.

    Attributes:
        where: The modules they happen in.
        form: How the ONNX files write them.
        idiom: How the source wrote them.
        nodes: ONNX nodes that each became, for example ``8`` or ``8 to 10``.
        channels: How many each moves or keeps.
        groups: Every channel group in words.
        direction: All directions in a few words, for one line of a table.
        border: What vacated elements hold, in words.
        border_kind: The same as the specification names it.
        axes: Which axes of the tensor are meant.
        drawing: The drawing.
    """

    where: tuple[str, ...]
    form: str
    idiom: str
    nodes: str
    channels: int
    groups: tuple[str, ...]
    direction: str
    border: str
    border_kind: str
    axes: str
    drawing: Drawing


@dataclass(frozen=True)
class Tile:
    """One channel group.

    Attributes:
        colour: Number of its colour; the same direction has the same colour in every drawing of a page.
        bar_x: Left end of its piece of the bar.
        bar_width: Proportional to its channels.
        x: Left side of its square.
        y: Upper side of its square.
        channels: How many.
        moves: Whether any offset differs from 0.
        angle: Where the arrow points, in degrees clockwise from the right; None where a plane has no such direction.
        labels: The movement in words, line by line.
        inside: Offsets, written into the square where there is no arrow for them.
        strips: The vacated elements: x, y, width and height.
    """

    colour: int
    bar_x: float
    bar_width: float
    x: float
    y: float
    channels: int
    moves: bool
    angle: float | None
    labels: tuple[str, ...]
    inside: str
    strips: tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True)
class Drawing:
    """A drawing of a shift.

    Attributes:
        title: Its text alternative in one sentence.
        description: Every group in words.
        width: Of the drawing.
        height: Of the drawing.
        bar: Height of the bar of channels.
        tile: Side of a square.
        tile_top: Upper side of the first row of squares.
        tiles: The groups that have a square.
        rank: Number of axes the offsets speak of.
        border: The rule for vacated elements, written below.
        rest: Pieces of the bar beyond those: x, width and colour.
    """

    title: str
    description: str
    width: float
    height: float
    bar: float
    tile: float
    tile_top: float
    tiles: tuple[Tile, ...]
    rank: int
    border: str
    rest: tuple[tuple[float, float, int], ...]


def summarise(shifts: Sequence[ShiftRecord]) -> list[ShiftSummary]:
    """Puts shifts of equal specification and form together, in the order of their first appearance."""
    together: dict[tuple[ShiftSpec, str], list[ShiftRecord]] = {}
    for shift in shifts:
        together.setdefault((shift.spec, shift.form), []).append(shift)
    return [_summary(spec, form, records) for (spec, form), records in together.items()]


def _summary(spec: ShiftSpec, form: str, records: Sequence[ShiftRecord]) -> ShiftSummary:
    spec = _rows_first(spec)
    idioms = Counter(record.origin.idiom for record in records)
    fewest, most = min(record.nodes for record in records), max(record.nodes for record in records)
    return ShiftSummary(
        where=tuple(record.origin.module for record in records),
        form=form,
        idiom=", ".join(f"{name} ({times})" if len(idioms) > 1 else name for name, times in idioms.items()),
        nodes=str(most) if fewest == most else f"{fewest} to {most}",
        channels=spec.channels,
        groups=_group_texts(spec),
        direction=_direction(spec),
        border=BORDERS[spec.border],
        border_kind=spec.border,
        axes=_axes(spec),
        drawing=_draw(spec),
    )


def _rows_first(spec: ShiftSpec) -> ShiftSpec:
    """In any tensor the earlier axis is the rows, whatever order the specification lists them in."""
    order = sorted(range(len(spec.axes)), key=spec.axes.__getitem__)
    return replace(
        spec,
        axes=tuple(spec.axes[index] for index in order),
        groups=tuple(replace(g, offsets=tuple(g.offsets[index] for index in order)) for g in spec.groups),
    )


def _axes(spec: ShiftSpec) -> str:
    names = [f"axis {axis}" for axis in spec.axes]
    if len(names) == 2:
        names = [f"rows: {names[0]}", f"columns: {names[1]}"]
    return ", ".join([*names, f"channels: axis {spec.channel_axis}"])


def _steps(spec: ShiftSpec, offsets: tuple[int, ...], *, always: bool = False) -> tuple[str, ...]:
    """A movement in words; lengths of one element are left out unless asked for."""
    if not any(offsets):
        return (STAYS,)
    if len(offsets) != 2:
        return tuple(f"axis {axis}: {step:+d}" for axis, step in zip(spec.axes, offsets, strict=True) if step)
    named = zip(offsets, (("down", "up"), ("right", "left")), strict=True)
    return tuple(
        names[step < 0] + (f" {abs(step)}" if always or abs(step) > 1 else "") for step, names in named if step
    )


def _group_texts(spec: ShiftSpec) -> tuple[str, ...]:
    texts, first = [], 0
    for group in spec.groups:
        channels, offsets = group.channels, group.offsets
        span = f"channel {first}" if channels == 1 else f"channels {first} to {first + channels - 1}"
        texts.append(f"{span}: {', '.join(_steps(spec, offsets, always=True))}")
        first += channels
    return tuple(texts)


def _direction(spec: ShiftSpec) -> str:
    texts = [" ".join(_steps(spec, group.offsets)) for group in spec.groups]
    shown = texts if len(texts) <= 8 else [*texts[:7], f"and {len(texts) - 7} more"]
    return ", ".join(shown)


def _colour(offsets: tuple[int, ...]) -> int:
    """0 for a group that stays, else 1 to 8."""
    moved = [(axis, step) for axis, step in enumerate(offsets) if step]
    if not moved:
        return 0
    if len(offsets) == 2:
        sign = tuple((step > 0) - (step < 0) for step in offsets)
        octants = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
        return octants.index((sign[0], sign[1])) + 1
    axis, step = moved[0]
    return (2 * axis + (step < 0)) % 8 + 1


def _draw(spec: ShiftSpec) -> Drawing:
    shown = spec.groups[:_MOST_TILES]
    # Rows of equal length, so that a phone can show them whole.
    rows = -(-len(shown) // _MOST_IN_A_ROW)
    in_a_row = -(-len(shown) // rows)
    width = max(_WIDTH, _PITCH * in_a_row)
    pitch = width / in_a_row
    lines = 1 + max(len(_steps(spec, group.offsets)) for group in shown)
    tall = _TILE + 8 + 16 * lines
    tiles, rest, first = [], [], 0
    for index, group in enumerate(spec.groups):
        channels, offsets = group.channels, group.offsets
        bar_x, bar_width = width * first / spec.channels, width * channels / spec.channels
        first += channels
        if index >= len(shown):
            rest.append((round(bar_x, 2), round(bar_width, 2), _colour(offsets)))
            continue
        x = pitch * (index % in_a_row) + (pitch - _TILE) / 2
        y = _TILE_TOP + tall * (index // in_a_row)
        tiles.append(
            Tile(
                colour=_colour(offsets),
                bar_x=round(bar_x, 2),
                bar_width=round(bar_width, 2),
                x=round(x, 2),
                y=y,
                channels=channels,
                moves=any(offsets),
                angle=_angle(offsets),
                labels=_steps(spec, offsets, always=True),
                inside="" if _angle(offsets) is not None or not any(offsets) else _written(offsets),
                strips=_strips(x, y, offsets),
            )
        )
    more = f"; {count(len(rest), 'more group')} without a square" if rest else ""
    return Drawing(
        title=f"A shift of {count(spec.channels, 'channel')} in {count(len(spec.groups), 'group')}: {_direction(spec)}",
        description=f"{join_names(_group_texts(spec)[:_MOST_TILES], limit=None)}{more}; {BORDERS[spec.border]}.",
        width=round(width, 2),
        height=_TILE_TOP + tall * rows + _RULE,
        border=f"{spec.border}: {BORDERS[spec.border]}",
        bar=_BAR,
        tile=_TILE,
        tile_top=_TILE_TOP,
        tiles=tuple(tiles),
        rank=len(spec.axes),
        rest=tuple(rest),
    )


def _angle(offsets: tuple[int, ...]) -> float | None:
    """Along one axis forward is to the right; three axes have no direction on paper, their labels say it."""
    if not any(offsets) or len(offsets) > 2:
        return None
    rows, columns = offsets if len(offsets) == 2 else (0, offsets[0])
    return round(math.degrees(math.atan2(rows, columns)), 1)


def _written(offsets: tuple[int, ...]) -> str:
    moved = [f"{step:+d}" for step in offsets if step]
    return moved[0] if len(moved) == 1 else " ".join(str(step) for step in offsets)


def _strips(x: float, y: float, offsets: tuple[int, ...]) -> tuple[tuple[float, float, float, float], ...]:
    if len(offsets) not in (1, 2):
        return ()
    rows, columns = offsets if len(offsets) == 2 else (0, *offsets)
    strips = []
    if rows:
        deep = _STRIPS[min(abs(rows), 3) - 1]
        strips.append((x, y if rows > 0 else y + _TILE - deep, _TILE, deep))
    if columns:
        deep = _STRIPS[min(abs(columns), 3) - 1]
        strips.append((x if columns > 0 else x + _TILE - deep, y, deep, _TILE))
    return tuple((round(a, 2), round(b, 2), round(c, 2), round(d, 2)) for a, b, c, d in strips)
