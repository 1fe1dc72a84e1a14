"""Whose code a stack frame is."""

from __future__ import annotations

import linecache
import os
import re
import sysconfig
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from s2mlp_deploy.text import IPYTHON_INPUT, saved_name

_FRAME = re.compile(r'File "(?P<file>.+?)", line (?P<line>\d+), in .*\n\s*(?P<code>.*)')
_INSTALLS = frozenset({"site-packages", "dist-packages"})


def _parts(path: str) -> tuple[str, ...]:
    """The components of a path of this system or of Windows: "/usr" is no prefix of "/usr2", and "models" no suffix."""
    return tuple(part for part in re.split(r"[/\\]", os.path.normcase(path)) if part)


@dataclass(frozen=True)
class Places:
    """Where code that is not the user's lies.

    Attributes:
        package: This package.
        torch: torch, which may be a checkout and not installed.
        standard: Folders of Python's standard library.
    """

    package: tuple[str, ...]
    torch: tuple[str, ...]
    standard: tuple[tuple[str, ...], ...]

    @classmethod
    def here(cls) -> Places:
        """Those of the running interpreter: sysconfig knows them, whatever the prefix is called."""
        paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
        return cls(
            package=_parts(str(Path(__file__).parents[1])),
            torch=_parts(str(Path(torch.__file__).parent)),
            standard=tuple(sorted(_parts(path) for path in paths)),
        )


_HERE = Places.here()


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
        """``file.py:12``, without the folders of the machine, and of a notebook's cell without its number.

        A cell has the hash of its text for a name, so that what is saved of the same code is the same, whenever it ran;
        :func:`~s2mlp_deploy.text.with_prompts` makes ``In[3]:12`` of it where it is shown.
        """
        return f"{saved_name(self.file)}:{self.number}"

    def __str__(self) -> str:
        return f"{self.file}:{self.number}: {self.code}"


def is_user_file(filename: str, places: Places = _HERE) -> bool:
    """Whether a file is the user's: not torch's, not this package's tools. The zoo's networks read like a user's.

    An installed package is the user's too, where it defines modules, but never the standard library.
    """
    if filename.startswith("<"):
        return filename.startswith(IPYTHON_INPUT)
    parts = _parts(filename)
    if _below(parts, places.package):
        return parts[len(places.package) :][:1] == ("models",)
    if _below(parts, places.torch) or _installed_package(filename) == "torch":
        return False
    return _installed_package(filename) is not None or not any(_below(parts, folder) for folder in places.standard)


def _below(parts: tuple[str, ...], folder: tuple[str, ...]) -> bool:
    return parts[: len(folder)] == folder


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
    parts = _parts(filename)
    places = [index for index, part in enumerate(parts[:-1]) if part in _INSTALLS]
    return parts[places[-1] + 1] if places else None


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
