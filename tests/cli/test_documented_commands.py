"""Command lines and options that README and docs show are those that the command line has."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from s2mlp_deploy import api
from s2mlp_deploy.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
ROOT_COMMAND = typer.main.get_command(app)
COMMANDS = ROOT_COMMAND.commands
NAMES = "|".join(COMMANDS)
LINE = re.compile(rf"^ *(?:\$ )?(s2mlp-deploy +(?:{NAMES})\b.*)$|`(s2mlp-deploy +(?:{NAMES})\b[^`]*)`", re.MULTILINE)
INLINE = re.compile(rf"`(?:s2mlp-deploy )?({NAMES})( [^`]*)`")
# A comment, the same in a column of its own, or what comes out.
REMARK = re.compile(r"\s(#|->).*|(?<=\S) {4,}[^-\s].*")


def lines_of(page: Path) -> list[list[str]]:
    """The command lines of a page, as words."""
    found = []
    for match in LINE.finditer(page.read_text().replace("\\\n", " ")):
        for line in re.sub(r"\s+", " ", REMARK.sub("", match[1] or match[2])).split(" && "):
            # What may be left out, and a number that is anybody's.
            words = [re.sub("^N$", "1", word) for word in shlex.split(re.sub(r" \[(-[^\]]*)\]", r" \1", line))]
            found.append(words[1:])
    return found


def test_every_command_line_of_the_pages_parses(monkeypatch):
    read, wrong = 0, []
    for page in PAGES:
        for name, *words in lines_of(page):
            read += 1
            try:
                COMMANDS[name].make_context(name, list(words))
            except Exception as error:
                wrong.append(f"{page.name}: {name} {' '.join(words)}: {error}")
    assert wrong == []
    assert read > 80


def test_every_option_that_the_pages_name_is_one_of_its_command():
    known = {name: {option for part in command.params for option in part.opts} for name, command in COMMANDS.items()}
    read, wrong = 0, []
    for page in PAGES:
        for name, rest in INLINE.findall(page.read_text()):
            named = set(re.findall(r"(?<=[\s/])--[a-z][a-z0-9-]*", rest)) - {"--help"}
            read += len(named)
            wrong += [f"{page.name}: {name} {option}" for option in sorted(named - known[name])]
    assert wrong == []
    assert read > 50


def test_every_name_of_the_api_that_the_pages_use_is_there():
    named = {(page.name, name) for page in PAGES for name in re.findall(r"\bapi\.(\w+)", page.read_text())}
    assert sorted((page, name) for page, name in named if name not in api.__all__) == []
    assert len(named) > 20


def test_what_python_on_the_pages_imports_is_there():
    pytest.importorskip("torch")
    lines = re.compile(r"^(?:from s2mlp_deploy[.\w]* import [\w, ]+|import s2mlp_deploy[.\w]*)", re.MULTILINE)
    imports = sorted({line for page in PAGES for line in lines.findall(page.read_text())})
    assert len(imports) > 5
    for line in imports:
        exec(line, {})
