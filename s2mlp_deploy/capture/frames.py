"""Whose code a stack frame is."""

from __future__ import annotations

import linecache
import re
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PACKAGE = str(Path(__file__).parents[1])
_FRAME = re.compile(r'File "(?P<file>.+?)", line (?P<line>\d+), in .*\n\s*(?P<code>.*)')
_INSTALLED = re.compile(r"[/\\](site|dist)-packages[/\\](?P<package>[^/\\]+)")
_LIBRARIES = tuple(str(Path(path)) for path in {sys.prefix, sys.base_prefix, sys.exec_prefix})


@dataclass(frozen=True)
class UserLine:
    """A line of the user's code.

    Attributes:
        file: Its path as Python knows it.
        number: Of the line.
        code: The line.
    """

    file: str
    number: int
    code: str

    @property
    def short(self) -> str:
        """``file.py:12``, without the folders of the machine."""
        return f"{Path(self.file).name}:{self.number}"

    def __str__(self) -> str:
        return f"{self.file}:{self.number}: {self.code}"


def is_user_file(filename: str) -> bool:
    """Whether a file is the user's: not torch's, not this package's tools. The zoo's networks read like a user's."""
    if filename.startswith("<") or _installed_package(filename) == "torch":
        return False
    if filename.startswith(_PACKAGE):
        return "models" in Path(filename).parts
    # An installed package is the user's too where it defines modules, but never the standard library.
    return not (filename.startswith(_LIBRARIES) and "site-packages" not in filename)


def in_forward(frames: Iterable[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    """The user's frames from the outermost ``forward`` down to the line that a reader would call the operator's.

    Below the innermost ``forward`` that is a helper of the user's, or of the package that defines the module: not what
    another installed package (einops, for example) does inside.
    """
    mine = [frame for frame in frames if is_user_file(frame.filename)]
    forwards = [index for index, frame in enumerate(mine) if frame.name == "forward"]
    if not forwards:
        return []
    first, last = forwards[0], forwards[-1]
    own = (None, _installed_package(mine[last].filename))
    return [*mine[first : last + 1], *(f for f in mine[last + 1 :] if _installed_package(f.filename) in own)]


def _installed_package(filename: str) -> str | None:
    """The name of the package below ``site-packages`` that a file belongs to; None where it is not installed."""
    found = _INSTALLED.search(filename)
    return found["package"] if found else None


def last_user_line(frames: Iterable[traceback.FrameSummary]) -> UserLine | None:
    """The innermost frame that is the user's."""
    mine = [frame for frame in frames if is_user_file(frame.filename)]
    if not mine:
        return None
    number = mine[-1].lineno or 0
    return UserLine(mine[-1].filename, number, (mine[-1].line or linecache.getline(mine[-1].filename, number)).strip())


def line_of_stack(stack: str | None) -> UserLine | None:
    """The innermost frame that is the user's, of a stack as torch notes it for a node of a graph."""
    mine = [match for match in _FRAME.finditer(stack or "") if is_user_file(match["file"])]
    return UserLine(mine[-1]["file"], int(mine[-1]["line"]), mine[-1]["code"].strip()) if mine else None
