"""Every block of README and of the pages for users does what the page says.

The blocks of a page run in their order, in a folder of the page's own; a page and all that is wrong with it is a test.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from unittest import SkipTest

import pytest
from doc_commands import command_server
from doc_output import difference
from doc_pages import RUN, SHOWN, Block, blocks, pages_that_run, parse, transcript
from doc_places import GIVEN, ROOT, Workshop, lay_out
from doc_shell import Shell, commands
from sybil import Example

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

PAGES = [page for page in pages_that_run() if any(block.language in RUN for block in blocks(page))]
# What `head` leaves of a command before it.
_SIGPIPE = 141
_STATUS = re.compile(r"# exit status (\d+)\s*$")
_ON_GPU = re.compile(r"# on the GPU\s*$")
# Engines of TensorRT-RTX, which has wheels for some platforms only.
_BUILDS = re.compile(r"^ *(?:\$ )?s2mlp-deploy build\b.* --target ", re.MULTILINE)
# Which would change the environment that everything runs in: test_pages.py looks at what they name.
_INSTALLS = re.compile(r"^(?:\S*/)?(?:pip|python3? -m pip) install")


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with command_server(tmp_path_factory.mktemp("commands")) as env:
        yield env


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Workshop:
    room = tmp_path_factory.mktemp("workshop")
    return Workshop(room / "files", environment | {"XDG_CACHE_HOME": str(room / "cache")})


class PageRun:
    """A page while its blocks run."""

    def __init__(self, page: Path, shell: Shell, transcript: Path) -> None:
        self.wrong: list[str] = []
        self._transcript = transcript
        self._page, self._shell = str(page.relative_to(ROOT)), shell
        self._printed: str | None = None
        self._names: dict[str, object] = {"__name__": "__main__"}

    def all_of(self, page: Path) -> None:
        for example in parse(page, self._evaluate):
            try:
                example.evaluate()
            except SkipTest:
                self._printed = None

    def _evaluate(self, example: Example) -> None:
        block: Block = example.parsed
        try:
            if block.language == "python":
                self._printed = self._run_python(block)
            elif block.language == "bash":
                self._printed = "".join(self._run(line) for line in commands(block.text))
            elif block.language == "console":
                for command, shown in transcript(block.text):
                    self._compare(shown, self._run(command), command, block.line)
            elif block.language == SHOWN and self._printed is not None:
                self._compare(block.text, self._printed, "the block above", block.line)
        except Exception as error:
            self._printed = None
            told = (
                str(error) if type(error) is AssertionError and block.language != "python" else traceback.format_exc()
            )
            self.wrong.append(f"{self._page}:{block.line}: {told}")

    def _run(self, command: str) -> str:
        """Runs a command as the page shows it; returns what it printed."""
        if _INSTALLS.match(command):
            return ""
        if _ON_GPU.search(command):  # What it names is there.
            command = shlex.join(["ls", *shlex.split(command, comments=True)[2:]])
        status = _STATUS.search(command)
        ended, printed = self._shell.run(command)
        with self._transcript.open("a") as file:
            file.write(f"$ {command}\n{printed}")
        if ended not in ((int(status[1]),) if status else (0, _SIGPIPE)):
            raise AssertionError(f"{command}\nended with status {ended}:\n{printed}")
        return printed

    def _run_python(self, block: Block) -> str:
        text = self._shell.with_ports(block.text)
        code = compile("\n" * (block.line - 1) + text, self._page, "exec")
        out = io.StringIO()
        with contextlib.chdir(self._shell.folder), contextlib.redirect_stdout(out):
            sys.path.insert(0, str(self._shell.folder))
            try:
                exec(code, self._names)
            finally:
                sys.path.pop(0)
        return out.getvalue()

    def _compare(self, shown: str, printed: str, command: str, line: int) -> None:
        if shown.strip() and (told := difference(shown, printed)):
            self.wrong.append(f"{self._page}:{line}: {command}\n{told}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page(
    page: Path, tmp_path: Path, environment: dict[str, str], workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    if _BUILDS.search(page.read_text()):
        pytest.importorskip("tensorrt_rtx")
    place = lay_out(tmp_path / "checkout")
    name = str(page.relative_to(ROOT)).removeprefix("docs/")
    workshop.give(GIVEN.get(name, ()), place)
    room = tmp_path / "room"
    room.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(room / "cache"))
    before = set(sys.modules)
    try:
        with Shell(place, room, environment | {"XDG_CACHE_HOME": str(room / "cache")}) as shell:
            run = PageRun(page, shell, room / "transcript")
            run.all_of(page)
    finally:
        # What the page's own files are called, another page may call its own.
        for module in set(sys.modules) - before:
            if (getattr(sys.modules[module], "__file__", None) or "").startswith(str(tmp_path)):
                del sys.modules[module]
    assert not run.wrong, "\n\n".join([*run.wrong, f"All that was printed: {room / 'transcript'}"])
