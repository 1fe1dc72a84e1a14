"""The picture of a terminal: small, of these commands, and without anything from elsewhere."""

from __future__ import annotations

import html
import importlib.util
import re
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "pictures" / "terminal.svg"


def test_it_shows_its_commands_and_loads_nothing() -> None:
    spec = importlib.util.spec_from_file_location("terminal_picture", PICTURE.with_suffix(".py"))
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text = PICTURE.read_text()
    shown = " ".join(html.unescape("".join(ElementTree.fromstring(text).itertext())).replace("\\", " ").split())
    for command in script.COMMANDS:
        assert command in shown
    assert "Parity of model.fp32.onnx: holds" in shown
    assert re.findall(r"https?://(?!www\.w3\.org/)", text) == []
    assert "@import" not in text
    assert len(text) < 40_000
    assert PICTURE.relative_to(ROOT).as_posix() in (ROOT / "README.md").read_text()
