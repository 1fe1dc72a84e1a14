"""Help pages in words of the field, whose lines break between words alone."""

from __future__ import annotations

import re
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

_WHOLE = "\u2011"
"""A hyphen that looks like one, and at which no line is broken."""

_WORDS = (
    (re.compile(r"<list\[(\w+)\]>"), lambda found: f"<{found[1].lower()}>"),
    (re.compile(r"default: \((\w+)\)"), lambda found: f"default: {found[1]}"),
)


def _whole(value: Any) -> Any:
    """What is written, with names that no line is broken in; rows of a table too."""
    if isinstance(value, str):
        for pattern, words in _WORDS:
            value = pattern.sub(words, value)
        return value.replace("-", _WHOLE)
    return [tuple(map(_whole, row)) for row in value] if isinstance(value, list) else value


def _page(command: TyperCommand | TyperGroup, context: Any) -> str:
    """A help page; empty where typer prints it in panels itself."""
    formatter = context.make_formatter()
    for name in ("write_dl", "write_text", "write_usage"):
        # On the object: its class is click's or typer's own copy of it, by typer's version.
        write = getattr(formatter, name)
        setattr(formatter, name, lambda *args, _write=write, **more: _write(*map(_whole, args), **more))
    command.format_help(context, formatter)
    return str(formatter.getvalue()).rstrip("\n").replace(_WHOLE, "-")


def _once(pieces: list[str]) -> list[str]:
    """Of a usage line ``FILE...``, where typer says ``{FILE...}...``."""
    return [re.sub(r"^\{(.*\.\.\.)\}\.\.\.$", r"\1", piece) for piece in pieces]


class Command(TyperCommand):
    """A command with such a page."""

    def get_help(self, ctx: Any) -> str:
        """See :class:`typer.core.TyperCommand`."""
        return _page(self, ctx)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """See :class:`typer.core.TyperCommand`."""
        return _once(super().collect_usage_pieces(ctx))


class Group(TyperGroup):
    """The program with such a page."""

    def get_help(self, ctx: Any) -> str:
        """See :class:`typer.core.TyperGroup`."""
        return _page(self, ctx)


def use(app: typer.Typer) -> None:
    """Gives a program's commands such pages."""
    for info in app.registered_commands:
        info.cls = Command
