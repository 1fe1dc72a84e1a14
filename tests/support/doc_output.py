"""Whether a command printed what a page shows of it.

White space, rules of tables, times, hashes and versions may differ. Numbers with a fraction are compared within 5 %, in
scientific notation by their power of ten, whole numbers exactly. ``…`` stands for anything within a line, and for any
lines where it is all that a line has; ``...`` likewise. A number before it is the beginning of one.
"""

from __future__ import annotations

import math
import re

_UNITS = r"(?:ns|us|µs|ms|s|seconds?|min|minutes?|h|hours?|images/s|samples/s|requests/s|tokens/s|/s)"
_ANYBODYS = [
    (re.compile(r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?"), "<time>"),
    (re.compile(rf"(?<![\w.])\d+(?:,\d{{3}})*(?:\.\d+)?(?:e[-+]?\d+)? ?{_UNITS}(?![\w/])"), "<time>"),
    (re.compile(r"\b(?=[0-9a-f]*[a-f])(?=[0-9a-f]*\d)[0-9a-f]{8,64}\b"), "<hash>"),
    (re.compile(r"(?<![\w.])\d+\.\d+\.\d+(?:\.\d+)*(?:[+.-]?(?:rc|dev|post|cpu|cu)\w*)?"), "<version>"),
    (re.compile("[─━═┄-]{2,}"), "─"),
]
_NUMBER = r"[-−+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?"
_ELLIPSIS = re.compile(r"…|\.\.\.")
_FRACTION, _POWER = 0.05, 1.0


def difference(shown: str, printed: str) -> str | None:
    """What is shown and was not printed, in words; None where all of it was."""
    parts: list[list[str]] = [[]]
    for line in _lines(shown):
        if _ELLIPSIS.fullmatch(line):
            parts.append([])
        else:
            parts[-1].append(line)
    lines, place = _lines(printed), 0
    for number, part in enumerate(parts):
        is_first, is_last = number == 0, number == len(parts) - 1
        earliest = len(lines) - len(part) if is_last and not is_first else place
        latest = place if is_first else len(lines) - len(part)
        at = next((i for i in range(max(earliest, place), latest + 1) if _all_match(part, lines[i:])), None)
        if at is None:
            return _told(part, lines[place:], "as its first lines" if is_first else "")
        place = at + len(part)
        if is_last and is_first and place < len(lines):
            return _told(part, lines, "alone; a line of … stands for what is left out")
    return None


def _told(part: list[str], lines: list[str], how: str) -> str:
    wrong = part
    for start in range(len(lines)):
        fits = 0
        while fits < len(part) and start + fits < len(lines) and _matches(part[fits], lines[start + fits]):
            fits += 1
        wrong = min(wrong, part[fits:], key=len)
    first = f"\nof it, first not found: {wrong[0]}" if wrong and len(part) > 1 else ""
    return f"shown {how}:\n  " + "\n  ".join(part) + first + "\nprinted:\n  " + "\n  ".join(lines)


def _lines(text: str) -> list[str]:
    """The lines that are not empty, with what may differ between runs replaced."""
    found = []
    for line in text.splitlines():
        for pattern, name in _ANYBODYS:
            line = pattern.sub(name, line)
        if line := " ".join(line.split()):
            found.append(line)
    return found


def _all_match(part: list[str], lines: list[str]) -> bool:
    return len(part) <= len(lines) and all(map(_matches, part, lines))


def _matches(shown: str, printed: str) -> bool:
    """Whether a printed line is what a shown one says."""
    pattern, expected = "", []
    for part in re.split(f"(…|\\.\\.\\.|{_NUMBER}(?!\\d*[….]))", shown):
        if _ELLIPSIS.fullmatch(part):
            pattern += ".*?"
        elif re.fullmatch(_NUMBER, part):
            pattern += f"({_NUMBER})"
            expected.append(part)
        else:
            pattern += re.escape(part)
    match = re.fullmatch(pattern, printed)
    return match is not None and all(map(_is_near, expected, match.groups()))


def _is_near(shown: str, printed: str) -> bool:
    if not re.search("[.e]", shown):
        return shown == printed
    first, second = (float(number.replace("−", "-")) for number in (shown, printed))
    if "e" in shown and first and second:
        return abs(math.log10(abs(first)) - math.log10(abs(second))) <= _POWER
    return abs(first - second) <= _FRACTION * max(abs(first), abs(second))
