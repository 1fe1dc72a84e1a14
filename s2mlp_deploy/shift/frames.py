"""Whose code a stack frame is."""

from __future__ import annotations

import linecache
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PACKAGE = str(Path(__file__).parents[1])
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


def is_user_file(filename: str) -> bool:
    """Whether a file is the user's: not torch's, not this package's tools. The zoo's networks read like a user's."""
    if filename.startswith("<") or "/torch/" in filename.replace("\\", "/"):
        return False
    if filename.startswith(_PACKAGE):
        return "models" in Path(filename).parts
    # An installed package is the user's too where it defines modules, but never the standard library.
    return not (filename.startswith(_LIBRARIES) and "site-packages" not in filename)


def last_user_line(frames: Iterable[traceback.FrameSummary]) -> UserLine | None:
    """The innermost frame that is the user's."""
    mine = [frame for frame in frames if is_user_file(frame.filename)]
    if not mine:
        return None
    number = mine[-1].lineno or 0
    return UserLine(mine[-1].filename, number, (mine[-1].line or linecache.getline(mine[-1].filename, number)).strip())
