"""Words of messages that several rooms need: an error in one line, names in a sentence, commands, others' text."""

from __future__ import annotations

import linecache
import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters but tab and line feed, and those that turn the direction of text round."""


def harmless(text: str) -> str:
    r"""Text whose control characters are written out.

    >>> harmless("cat\x1b[2J")
    'cat\\x1b[2J'
    """
    return UNSAFE.sub(lambda found: ascii(found.group())[1:-1], text)


def first_line_of(error: BaseException) -> str:
    r"""The first line of an error's message that is not blank; the name of its type where there is none.

    >>> first_line_of(ValueError("\nno such axis\nbacktrace ..."))
    'no such axis'
    """
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def problem_of(error: Exception) -> str:
    """What went wrong, in one line: of what the system refused the reason, without the path."""
    return (error.strerror if isinstance(error, OSError) else None) or first_line_of(error)


def join_names(names: Iterable[object], *, limit: int | None = 8, last: str = "and", separator: str = ", ") -> str:
    """Names in a sentence, the first of them where there are many.

    >>> join_names(["fp32", "fp16", "int8"], last="or")
    'fp32, fp16 or int8'
    >>> join_names(range(100), limit=3)
    '0, 1, 2 and 97 more'

    Args:
        names: Anything whose ``str`` says what it is.
        limit: How many are shown; None for all.
        last: The word before the last one.
        separator: Between the others; ``"; "`` where a name itself holds commas.
    """
    texts = [str(name) for name in names]
    rest = len(texts) - limit if limit is not None else 0
    if rest > 0:
        return f"{separator.join(texts[:limit])} and {rest} more"
    return f" {last} ".join([separator.join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def first_of(places: Iterable[str]) -> str:
    """Places of a fault that ``inspect`` lists, in a line of an error.

    >>> first_of(["net.py:3", "net.py:3"]), first_of(["net.py:3", "net.py:7"])
    ('net.py:3', '2 places, the first: net.py:3; all: inspect')
    """
    first, *others = dict.fromkeys(places)
    return f"{len(others) + 1} places, the first: {first}; all: inspect" if others else first


_DIGITS = 18


def command_line(*words: object) -> str:
    """A command of this package as a shell takes it.

    Args:
        words: What follows the program's name.
    """
    return shlex.join(["s2mlp-deploy", *map(str, words)])


def whole_number(text: str) -> int | None:
    """The whole number that a text of others is; None for any other text.

    ``str.isdigit`` takes characters that ``int`` refuses, and ``int`` refuses thousands of digits.

    >>> whole_number("37"), whole_number("-1"), whole_number("\u00b2"), whole_number("9" * 5000)
    (37, None, None, None)
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS else None


IPYTHON_INPUT = "<ipython-input-"
"""How the name of a cell begins that is typed into IPython; Jupyter gives a cell a file below the temporary folder."""

_LINE_OF_CODE = re.compile(r"(?<![\w./-])(?P<name>[\w-]+(?:\.py)?)(?=:\d)")


def saved_name(filename: str) -> str:
    """A file of code as it is saved: without the machine's folders, nor the number of an IPython cell.

    >>> saved_name("/home/me/net.py"), saved_name("<ipython-input-3-0c5a1e>")
    ('net.py', 'ipython-input-0c5a1e')
    """
    if filename.startswith(IPYTHON_INPUT):
        return f"ipython-input-{filename.rstrip('>').rpartition('-')[2]}"
    return Path(filename).name


def with_prompts(text: str) -> str:
    """Text in which lines of IPython's cells are named as their reader sees them: ``In[3]:7``.

    Cells of the session that runs; everywhere else the text is returned as it is.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not _LINE_OF_CODE.search(text):
        return text
    # IPython puts every cell where tracebacks look for lines.
    known = {saved_name(file): shell.compile.format_code_name(file) for file in list(linecache.cache)}
    prompts: dict[str, str] = {name: found[1] for name, found in known.items() if found}
    return _LINE_OF_CODE.sub(lambda found: prompts.get(str(found["name"]), str(found["name"])), text)
