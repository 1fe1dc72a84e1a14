"""Manifest and evidence by their records: every field with its JSON type, its default and what the docstring says."""

from __future__ import annotations

import dataclasses
import json
import re
from functools import cache
from typing import Any

import msgspec
from wording import attributes_of, code, summary_of, table

from s2mlp_deploy.artifact import Manifest
from s2mlp_deploy.evidence.store import KINDS

PAGES = {"manifest": "docs/reference/manifest", "evidence": "docs/reference/evidence"}


def manifest() -> str:
    """The records of ``manifest.json``."""
    return "\n".join(_section(record) for record in _records(Manifest))


def kinds() -> str:
    """A table of the kinds of evidence."""
    rows = [
        (
            f"[`{kind.name}`](#{_anchor(kind.record)})",
            code(kind.file_name("…")),
            str(kind.version),
            summary_of(kind.record).partition("\n\n")[0],
        )
        for kind in KINDS
    ]
    return table(("kind", "file", "version", "holds"), rows)


def evidence() -> str:
    """The records of all kinds of evidence."""
    return "\n".join(_section(record) for record in _own_records("evidence"))


def place_of(name: str) -> tuple[str, str] | None:
    """Page and anchor of the record of a full name; None where it is none."""
    for page in PAGES:
        for record in _own_records(page):
            if name == f"{record.__module__}.{record.__qualname__}":
                return PAGES[page], _anchor(record)
    return None


@cache
def _own_records(page: str) -> tuple[type, ...]:
    """The records that a page describes: evidence names those of manifests, and does not describe them again."""
    if page == "manifest":
        return _records(Manifest)
    return tuple(
        dict.fromkeys(found for kind in KINDS for found in _records(kind.record) if found not in _records(Manifest))
    )


@cache
def _records(root: type) -> tuple[type, ...]:
    """A record and those in its fields, in the order in which they are met."""
    found, waiting = [], [root]
    while waiting:
        record = waiting.pop(0)
        if record not in found:
            found.append(record)
            waiting += [kind for field in _fields(record) for kind in _classes(field.type)]
    return tuple(found)


def _fields(record: type) -> tuple[Any, ...]:
    info = msgspec.inspect.type_info(record)
    return tuple(info.fields) if isinstance(info, msgspec.inspect.DataclassType) else ()


def _classes(kind: Any) -> list[type]:
    """The records in a type, of its elements and alternatives too."""
    if isinstance(kind, msgspec.inspect.DataclassType):
        return [kind.cls]
    parts = []
    for name in ("item_type", "item_types", "types", "key_type", "value_type"):
        value = getattr(kind, name, ())
        parts += value if isinstance(value, tuple) else [value]
    return [found for part in parts for found in _classes(part)]


def _section(record: type) -> str:
    said = attributes_of(record)
    rows = [
        (code(field.encode_name), _words(field.type), _default(field), said.get(field.name, ""))
        for field in _fields(record)
    ]
    return "\n".join(
        (f"## {_title(record)}", "", summary_of(record), "", table(("field", "type", "default", "holds"), rows))
    )


def _anchor(record: type) -> str:
    return re.sub(r"[^\w ]", "", _title(record).lower()).replace(" ", "-")


def _title(record: type) -> str:
    """A record's name; with its module's where another has the same."""
    name = record.__name__
    same = [other for page in PAGES for other in _own_records(page) if other.__name__ == name]
    return name if len(same) == 1 else f"{name} ({record.__module__.rpartition('.')[2]})"


def _link(record: type) -> str:
    page = next(page for page in PAGES if record in _own_records(page))
    return f"[{_title(record)}]({page}.md#{_anchor(record)})"


def _words(kind: Any) -> str:
    """A type, in the words of JSON."""
    simple = {
        "AnyType": "anything", "NoneType": "null", "BoolType": "true or false", "IntType": "integer",
        "FloatType": "number", "StrType": "string",
    }  # fmt: skip
    name = type(kind).__name__
    if name in simple:
        return simple[name]
    if name == "LiteralType":
        return ", ".join(code(json.dumps(value)) for value in kind.values)
    if name == "UnionType":
        return " or ".join(
            _words(part) for part in sorted(kind.types, key=lambda part: type(part).__name__ == "NoneType")
        )
    if name in ("VarTupleType", "ListType", "SetType", "FrozenSetType", "CollectionType"):
        return f"list of {_words(kind.item_type)}"
    if name == "TupleType":
        return f"[{', '.join(_words(part) for part in kind.item_types)}]"
    if name in ("DictType", "MappingType"):
        return f"object of {_words(kind.value_type)}"
    if name == "DataclassType":
        return _link(kind.cls)
    raise TypeError(f"no words for {kind}")


def _default(field: Any) -> str:
    """A field's default as JSON; nothing where there must be a value."""
    if field.required:
        return ""
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    return code(json.dumps(dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value))
