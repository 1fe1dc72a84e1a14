"""The text format of protocol buffers, as far as a Triton configuration needs it.

Written here so that a service needs no definition of Triton's; the tests read what it writes with Triton's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

Value: TypeAlias = "str | int | bool | Name | Message | Sequence[Value]"
Message: TypeAlias = "dict[str, Value]"


class Name(str):
    """A name of an enumeration: written without quotes."""

    __slots__ = ()


def text_of(message: Message) -> str:
    """A message, field by field in the order of the dictionary; sequences are repeated fields."""
    return "".join(f"{line}\n" for line in _lines(message, ""))


def _lines(message: Message, indent: str) -> Iterator[str]:
    for name, value in message.items():
        for item in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(item, dict):
                yield f"{indent}{name} {{"
                yield from _lines(item, indent + "  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{name}: {_scalar(item)}"


def _scalar(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (Name, int)):
        return str(value)
    # Byte by byte in octal whatever is not plain: https://protobuf.dev/reference/protobuf/textformat-spec/#string
    return (
        '"' + "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\{b:03o}" for b in str(value).encode()) + '"'
    )
