"""What README and docs show is what there is: commands, options, names of the API, files, extras.

Nothing is run: ``test_snippets.py`` does that.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
import tomllib
from pathlib import Path

import doc_pages
import pytest
import typer
from doc_pages import LANGUAGES, ROOT, SHOWN, Block
from doc_places import COMMANDS as MADE_BY_COMMANDS
from doc_places import GIVEN, MADE
from doc_shell import commands

from s2mlp_deploy import api
from s2mlp_deploy.cli.main import app

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
    named = {(page.name, name) for page in PAGES for name in re.findall(r"(?<!\.)\bapi\.(\w+)", page.read_text())}
    assert sorted((page, name) for page, name in named if name not in api.__all__) == []
    assert len(named) > 20


def test_every_option_of_trtexec_that_lost_its_meaning_has_its_line():
    lines = re.findall(r"^# trtexec (.*)$", (ROOT / "docs" / "how-to" / "trtexec.md").read_text(), re.MULTILINE)
    for option in ("--fp16", "--int8", "--calib", "--best", "--layerPrecisions", "--minShapes", "--saveEngine"):
        assert any(option in line for line in lines), option


BLOCKS = [(page, block) for page in doc_pages.pages() for block in doc_pages.blocks(page)]


def where(page: Path, block: Block) -> str:
    return f"{page.relative_to(ROOT)}:{block.line}"


def test_every_block_says_what_it_holds():
    assert [where(page, block) for page, block in BLOCKS if block.language not in LANGUAGES] == []
    assert len(BLOCKS) > 60


def test_every_block_that_does_not_run_says_why():
    skipped = [(page, *found) for page in doc_pages.pages() for found in doc_pages.skipped(page)]
    assert [where(page, block) for page, block, reason in skipped if len((reason or "").strip("'\" ")) < 10] == []


def test_every_shown_output_is_of_a_block():
    found = []
    for page in doc_pages.pages():
        ran = False
        for block in doc_pages.blocks(page):
            if block.language == SHOWN and not ran:
                found.append(where(page, block))
            ran = ran or block.language in ("bash", "python")
    assert found == []


def test_every_script_is_one_that_the_shell_understands():
    for page, block in BLOCKS:
        if block.language in ("bash", "console"):
            text = block.text if block.language == "bash" else "\n".join(doc_pages.command_lines(block.text))
            assert commands(text), where(page, block)


def local_module(name: str) -> bool:
    """Whether an example is called so, or a page says that the reader's file is."""
    return any((ROOT / "examples").rglob(f"{name}.py")) or f"{name}.py" in MADE


def test_python_of_the_pages_compiles_and_what_it_imports_is_there():
    pytest.importorskip("torch")
    imported = 0
    for page, block in BLOCKS:
        if block.language != "python":
            continue
        for statement in ast.walk(compile(block.text, where(page, block), "exec", ast.PyCF_ONLY_AST)):
            if isinstance(statement, ast.Import):
                named = {alias.name: None for alias in statement.names}
            elif isinstance(statement, ast.ImportFrom):
                named = {f"{statement.module}": [alias.name for alias in statement.names]}
            else:
                continue
            for module, names in named.items():
                top = module.partition(".")[0]
                if top == "s2mlp_deploy":
                    imported += 1
                    for name in names or ():
                        assert hasattr(importlib.import_module(module), name) or importlib.util.find_spec(
                            f"{module}.{name}"
                        ), (where(page, block), name)
                else:
                    assert local_module(top) or importlib.util.find_spec(top), (where(page, block), module)
    assert imported > 5


def test_every_page_that_is_named_is_there():
    """In the text of pages, and by messages and comments of the code."""
    named = re.compile(r"(?<![\w/])docs/(?!user_guide)[\w./-]+\.(?:md|ipynb|svg|png)\b")  # That is one of Triton's.
    texts = [*PAGES, *(ROOT / "s2mlp_deploy").rglob("*.py"), *(ROOT / "examples").rglob("*.py")]
    found = {(path, page) for path in texts for page in named.findall(path.read_text())}
    assert sorted((str(path), page) for path, page in found if not (ROOT / page).exists()) == []
    assert len(found) > 20


def test_every_extra_and_every_target_of_make_is_there():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = [(page, names) for page in PAGES for names in re.findall(r"s2mlp-deploy\[([\w,-]+)\]", page.read_text())]
    assert [(page, name) for page, names in asked for name in names.split(",") if name not in extras] == []
    made = [(page, name) for page in PAGES for name in re.findall(r"`make ([\w-]+)", page.read_text())]
    for page, block in BLOCKS:
        if block.language == "bash":
            made += [(page, name) for name in re.findall(r"^make ([\w-]+)", block.text, re.MULTILINE)]
    assert [(page, name) for page, name in made if name not in targets] == []
    assert len(asked) > 5
    assert len(made) > 5


def test_what_pages_take_for_granted_is_on_them():
    for page, names in GIVEN.items():
        path = ROOT / page if page == "README.md" else ROOT / "docs" / page
        text = path.read_text()
        assert [name for name in names if name not in text] == [], page
        assert set(names) <= {*MADE, *MADE_BY_COMMANDS}, page
