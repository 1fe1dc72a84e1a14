"""Executes the notebooks of this folder in place: ``make notebooks``, or ``python execute.py [NOTEBOOK...]``.

What differs between two runs is taken out: times, process numbers, versions of Python. An output that says the same as
the committed one, but for the last digits of a measurement, is left as it was, so that a diff shows what changed.
"""

from __future__ import annotations

import argparse
import html
import math
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

_TAG = re.compile(r"<[^>]*>")
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
_VARYING = (
    (re.compile(r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?(?:Z| UTC)?"), "2026-01-01 00:00 UTC"),
    (re.compile(r"/tmp/ipykernel_\d+/\d+\.py"), "cell.py"),
    (re.compile(r"-[0-9a-f]{8}\.json"), "-0a1b2c3d.json"),
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:8000"),
)


def notebooks() -> list[Path]:
    """The notebooks of this folder, in the order of their names."""
    return sorted(HERE.glob("*.ipynb"))


def execute(path: Path, *, timeout: int = 300) -> NotebookNode:
    """A notebook with fresh outputs; its file stays as it is, and what it writes goes to a folder that is removed.

    Args:
        path: The notebook.
        timeout: Seconds that a cell may take.

    Raises:
        CellExecutionError: A cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory(prefix="tutorials-") as name:
        # The checkout as the notebook sees it: its own folder, and what lies beside the documentation.
        here = Path(name) / HERE.relative_to(ROOT)
        shutil.copytree(HERE, here, ignore=shutil.ignore_patterns("build", "__pycache__", "*.ipynb"))
        (Path(name) / "examples").symlink_to(ROOT / "examples")
        NotebookClient(
            notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": here}}
        ).execute()
        return tidied(notebook, (name, str(ROOT)))


def tidied(notebook: NotebookNode, folders: tuple[str, ...] = ()) -> NotebookNode:
    """A notebook without what differs between two runs.

    Args:
        notebook: Is changed.
        folders: Of this machine; their names are taken out of texts.
    """
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number:02d}", {}
        if cell.cell_type != "code":
            continue
        cell.outputs = [_changed(output, folders) for output in _joined(cell.outputs)]
    return notebook


def texts(cell: NotebookNode) -> list[str]:
    """What a cell printed or gave back, as text."""
    return [
        output.text if output.output_type == "stream" else output.data.get("text/plain", "") for output in cell.outputs
    ]


def alike(before: str, after: str) -> bool:
    """Whether two texts say the same.

    Words and whole numbers must be equal. Measurements, which have a point or an exponent, may differ as much as two
    processors do: a tenth, or in exponents one power of ten.
    """
    if _NUMBER.sub("#", _spaced(before)) != _NUMBER.sub("#", _spaced(after)):
        return False
    return all(map(_near, _NUMBER.findall(before), _NUMBER.findall(after)))


def _spaced(text: str) -> str:
    """Columns and rules of tables are as wide as the figures in them."""
    return re.sub(r"\s+", " ", re.sub("─+", "-", text)).strip()


def _near(first: str, second: str) -> bool:
    if first == second:
        return True
    if not any(letter in number for number in (first, second) for letter in ".e"):
        return False
    a, b = (float(number.replace(",", "")) for number in (first, second))
    if "e" in first + second:
        return a * b > 0 and abs(math.log10(abs(a)) - math.log10(abs(b))) <= 1
    return math.isclose(a, b, rel_tol=0.1, abs_tol=0.02)


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Outputs of which those of one stream that follow each other are one: how they are cut is chance."""
    joined: list[NotebookNode] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last is not None and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def _changed(output: NotebookNode, folders: tuple[str, ...]) -> NotebookNode:
    def plain(text: Any) -> Any:
        if not isinstance(text, str):
            return text
        for folder in folders:
            text = text.replace(folder, "…")
        for pattern, word in _VARYING:
            text = pattern.sub(word, text)
        return text

    if output.output_type == "stream":
        output.text = plain(output.text)
    elif "data" in output:
        output.data = {
            kind: value if kind.startswith("image/") else plain(value) for kind, value in output.data.items()
        }
        output.metadata = {}
    return output


def _kept(before: NotebookNode, after: NotebookNode) -> None:
    """Puts committed outputs back that say the same as the new ones."""
    for old, new in zip(before.cells, after.cells, strict=True):
        if new.cell_type == "code" and old.cell_type == "code" and old.source == new.source and _same(old, new):
            new.outputs = old.outputs


def _same(old: NotebookNode, new: NotebookNode) -> bool:
    kinds = [[sorted(output.get("data", ())) for output in cell.outputs] for cell in (old, new)]
    pages = [[output.get("data", {}).get("text/html", "") for output in cell.outputs] for cell in (old, new)]
    # Of pages and tables their words count; what is drawn follows from the figures that stand beside it.
    words = [[_TAG.sub(" ", html.unescape(page)) for page in cell] for cell in pages]
    return kinds[0] == kinds[1] and all(map(alike, texts(old), texts(new))) and all(map(alike, *words))


def main() -> None:
    """Executes the notebooks that are named, or all."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path)
    for path in parser.parse_args().notebooks or notebooks():
        before, after = nbformat.read(path, as_version=4), execute(path)
        _kept(before, after)
        nbformat.validate(after)
        nbformat.write(after, path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
