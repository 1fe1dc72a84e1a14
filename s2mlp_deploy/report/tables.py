"""Tables and lists of names and values, as wide as the console lets them be.

No word is ever broken: a column is at least as wide as its longest word, rows that do not fit so are printed one below
the other, a line for each column, and what does not fit beside its name stands below it. Only a word that is longer
than the whole terminal passes its edge, in one piece, so that it can still be copied. In a pipe nothing is folded at
all (a console without a width of its own is as wide as its lines), so that ``| grep`` finds whole names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from s2mlp_deploy.report.format import MISSING
from s2mlp_deploy.text import with_prompts

_NUMERIC = set("0123456789.,+-e %")
_GAP = 3
"""Columns between two cells: a space, the box's divider, a space."""
_SHORT = 12
"""Up to this width a cell stays on one line: a number with its unit, a size."""
_INDENT = "  "
_WORD = re.compile(r"\s*\S+\s*")


def print_table(console: Console, title: str | None, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table. Columns that hold only numbers are aligned right; long values fold, nothing is cut off.

    Args:
        console: Where to.
        title: Heading; None for none.
        columns: Headings.
        rows: Values, one for each heading; None prints as ``-``.
    """
    # As they will be shown, or they would be measured too short.
    columns = [visible_text(console, name).plain for name in columns]
    cells = [[MISSING if value is None else visible_text(console, str(value)).plain for value in row] for row in rows]
    if title:
        print_words(console, visible_text(console, title, "bold"))
    widths = _column_widths(columns, cells, console.width)
    if widths is None:
        _print_rows_below_one_another(console, columns, cells)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, (name, width) in enumerate(zip(columns, widths, strict=True)):
        values = [row[index] for row in cells]
        table.add_column(
            Text(name),
            justify="right" if values and all(map(_is_number, values)) else "left",
            overflow="fold",
            width=width,
        )
    for row in cells:
        table.add_row(*map(Text, row))
    _print_lines(console, table)
    console.print()


def print_pairs(console: Console, items: Sequence[tuple[str, str]]) -> None:
    """Prints names and values in two columns; below its name a value with a word that does not fit beside it."""
    shown = [(visible_text(console, key, "dim"), visible_text(console, value)) for key, value in items]
    beside = max((key.cell_len for key, _ in shown), default=0) + len(_INDENT) + 2
    for key, value in shown:
        start = Text.assemble(_INDENT, key)
        if _longest_word(value.plain) <= console.width - beside:
            start.pad_right(beside - start.cell_len)
            _print_wrapped(console, start, value, beside)
        else:
            console.print(start, soft_wrap=True)
            _print_wrapped(console, Text(_INDENT * 2), value, len(_INDENT) * 2)
    console.print()


def print_words(console: Console, text: Text) -> None:
    """Prints a sentence, folded between words; a word that is longer than the terminal is not broken."""
    _print_wrapped(console, Text(), text, 0)


def visible_text(console: Console, value: str, style: str = "") -> Text:
    """Text that is shown as it is: no markup, no control characters, nothing the terminal cannot encode."""
    # An escape character in somebody's module name must not reach the terminal as one.
    visible = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in with_prompts(value))
    return Text(visible.encode(console.encoding, "backslashreplace").decode(console.encoding), style)


def _column_widths(columns: Sequence[str], cells: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """How wide each column is: as its longest cell where there is room, never less than its longest word.

    Returns:
        None where the longest words alone do not fit.
    """
    least, wanted = [], []
    for index, name in enumerate(columns):
        texts = [name, *(row[index] for row in cells)]
        wanted.append(max(map(cell_len, texts)))
        least.append(max(map(_unbreakable, texts)))
    spare = room - _GAP * (len(columns) - 1) - sum(least)
    if spare < 0:
        return None
    missing = sum(wanted) - sum(least)
    if missing <= spare:
        return wanted
    return [low + (high - low) * spare // missing for low, high in zip(least, wanted, strict=True)]


def _unbreakable(text: str) -> int:
    return cell_len(text) if cell_len(text) <= _SHORT else _longest_word(text)


def _longest_word(text: str) -> int:
    return max(map(cell_len, text.split()), default=0)


def _print_rows_below_one_another(console: Console, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    for row in cells:
        print_words(console, Text(": ".join(filter(None, (columns[0], row[0]))), "bold"))
        pairs = zip(columns[1:], row[1:], strict=True)
        print_pairs(console, [(name, value or MISSING) for name, value in pairs if name or value])


def _print_wrapped(console: Console, start: Text, value: Text, indent: int) -> None:
    """Prints a text behind what stands before its first line; the others begin below its first letter."""
    breaks, used = [], 0
    for word in _WORD.finditer(value.plain):
        if used and used + cell_len(word.group().rstrip()) > console.width - indent:
            breaks.append(word.start())
            used = 0
        used += cell_len(word.group())
    for index, line in enumerate(value.divide(breaks)):
        line.rstrip()
        whole = Text.assemble(start if index == 0 else " " * indent, line)
        whole.rstrip()
        console.print(whole, soft_wrap=True)


def _print_lines(console: Console, renderable: RenderableType) -> None:
    """Prints without the spaces that fill every line of a table up to its width."""
    for segments in console.render_lines(renderable, pad=False):
        line = Text.assemble(*((segment.text, segment.style or "") for segment in segments))
        line.rstrip()
        console.print(line, soft_wrap=True)


def _is_number(value: str) -> bool:
    bare = value.removesuffix(" dB").removesuffix(" bytes")
    bare = bare[:-3] if bare[-3:] in (" kB", " MB", " GB", " TB") else bare
    return value == MISSING or (any(map(str.isdigit, bare)) and set(bare) <= _NUMERIC)
