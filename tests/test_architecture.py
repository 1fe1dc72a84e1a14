"""The room table of docs/architecture.md against the import graph."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "s2mlp_deploy"
_ROW = re.compile(r"^\| (?P<rooms>`[^|]+) \|[^|]*\| (?P<arrows>[^|]+) \|$", re.MULTILINE)


def _documented() -> dict[str, set[str]]:
    """For each room of the table the rooms that it may import."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    table: dict[str, set[str]] = {}
    for row in _ROW.finditer(text):
        arrows = set(re.findall(r"`(\w+)", row["arrows"]))
        for room in re.findall(r"`(\w+)(?:\.py|/)`", row["rooms"]):
            table[room] = arrows
    return table


def _imported() -> dict[str, set[str]]:
    """For each room the rooms that one of its modules imports, for types too."""
    graph = grimp.build_graph(PACKAGE)
    found: dict[str, set[str]] = {}
    for module in graph.modules:
        parts = module.split(".")
        if len(parts) < 2:
            continue
        room = found.setdefault(parts[1], set())
        for imported in graph.find_modules_directly_imported_by(module):
            target = imported.split(".")
            if len(target) > 1 and target[1] != parts[1]:
                room.add(target[1])
    return found


IMPORTED = _imported()


def test_every_room_is_in_the_table() -> None:
    assert set(_documented()) == set(IMPORTED)


@pytest.mark.parametrize("room", sorted(IMPORTED))
def test_the_arrows_of_a_room_are_the_imports_of_its_modules(room: str) -> None:
    assert _documented()[room] == IMPORTED[room]


def test_no_test_file_needs_another_one() -> None:
    # Which is found where both are collected, and not where one runs alone; what several need is in tests/support.
    imports = re.compile(r"^ *(?:from|import) +(?:\w+\.)*test_\w+", re.MULTILINE)
    found = {path.name: imports.findall(path.read_text()) for path in (ROOT / "tests").rglob("*.py")}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_no_two_test_files_have_one_name() -> None:
    # Files without packages are modules of their bare name: collected together, the second one is an error.
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
