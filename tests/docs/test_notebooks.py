"""The tutorials: what is committed is whole, and running them again says the same."""

from __future__ import annotations

import itertools
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

TUTORIALS = Path(__file__).resolve().parents[2] / "docs" / "tutorials"
NOTEBOOKS = sorted(TUTORIALS.glob("*.ipynb"))
NAMES = {"a-race-in-public-code", "from-checkpoint-to-service", "int8-with-a-budget", "reading-the-report"}
WARNED = "eager PyTorch does not define these 4 overlapping in-place copies"
"""What a notebook is about."""
_OF_A_MACHINE = re.compile(
    rf"{re.escape(str(TUTORIALS.parents[1]))}/"
    r"|/tmp/|/home/|/root/|/Users/|/usr/|site-packages|ipykernel|[A-Z]:\\\\|20\d\d-\d\d-\d\dT\d\d:\d\d"
)


def code_cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def test_they_are_there():
    assert {path.stem for path in NOTEBOOKS} == NAMES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs_are_of_one_run_from_top_to_bottom(path: Path):
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        kinds = [output["output_type"] for output in cell["outputs"]]
        assert "error" not in kinds
        told = ["".join(output["text"]) for output in cell["outputs"] if output.get("name") == "stderr"]
        assert [text for text in told if not text.startswith(WARNED)] == []
        last = "".join(cell["source"]).rstrip().split("\n")[-1]
        # A line that begins on the left and assigns, imports or calls nothing gives something back.
        if re.match(r"(\w+(\.\w+)*|(show|worst|report\.display|HTML|SVG)\(.*)$", last):
            assert kinds, last
    assert sum(bool(cell["outputs"]) for cell in cells) > len(cells) / 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_of_the_machine_is_in_them(path: Path):
    text = path.read_text()
    assert path.stat().st_size < 300_000
    assert (found := _OF_A_MACHINE.search(text)) is None, text[found.start() - 80 : found.end() + 80] if found else ""
    assert set(json.loads(text)["metadata"]["language_info"]) == {"name"}, "no version of Python"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_begins_with_a_heading_and_ends_with_exercises(path: Path):
    cells = json.loads(path.read_text())["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    assert texts[0].startswith("# ")
    assert "## Exercises\n\n1. " in texts[-1]
    assert cells[-1]["cell_type"] == "markdown"
    code = [index for index, cell in enumerate(cells) if cell["cell_type"] == "code"]
    assert all(later - earlier <= 2 for earlier, later in itertools.pairwise(code)), "one text between cells"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_are_notebooks(path: Path):
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.nbformat_minor >= 5
    assert path.read_text() == nbformat.writes(notebook) + "\n", "as `make notebooks` writes it"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch):
    """The script that executes them."""
    for package in ("nbclient", "nbformat", "ipykernel"):
        pytest.importorskip(package)
    monkeypatch.syspath_prepend(str(TUTORIALS))
    import execute

    yield execute
    sys.modules.pop("execute")


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("max abs  4.53e-06", "max abs 7.1e-06", True),
        ("max abs  4.53e-06", "max abs 4.5e-02", False),
        ("SQNR 36.9 dB", "SQNR 37.2 dB", True),
        ("SQNR 36.9 dB", "SQNR 3.3 dB", False),
        ("16 shifts", "15 shifts", False),
        ("1,893 nodes", "1,894 nodes", False),
        ("parity holds", "parity FAILS", False),
        ("Drop\n────\n+0.00", "Drop \n──────\n  +0.00", True),
    ],
)
def test_texts_are_alike_where_only_a_measurement_moves(tool, before: str, after: str, same: bool):
    assert tool.alike(before, after) is same


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_running_them_again_says_the_same(tool, path: Path):
    pytest.importorskip("mlxtend")
    committed = tool.nbformat.read(path, as_version=4)
    for before, after in zip(committed.cells, tool.execute(path).cells, strict=True):
        assert after.source == before.source
        if before.cell_type == "code":
            was, now = tool.texts(before), tool.texts(after)
            assert len(was) == len(now), before.source
            for first, second in zip(was, now, strict=True):
                assert tool.alike(first, second), f"{before.source}\n--- committed\n{first}\n--- now\n{second}"
