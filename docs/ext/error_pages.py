"""Errors: every class with its exit status, and every message of it with its fix, read off the source."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from wording import plain

import s2mlp_deploy
from s2mlp_deploy import errors as hierarchy
from s2mlp_deploy.errors import S2MLPDeployError

_PACKAGE = Path(s2mlp_deploy.__file__).parent


@dataclass(frozen=True, order=True)
class Message:
    """What an error says.

    Attributes:
        problem: What is wrong; ``…`` stands for what differs.
        fix: What to do about it; empty where the message has none of its own.
    """

    problem: str
    fix: str


def errors() -> str:
    """A section for each class."""
    parts = []
    for kind in classes():
        parts += [
            f"## {kind.__name__}\n",
            "```{eval-rst}",
            ".. currentmodule:: s2mlp_deploy.api",
            f".. autoexception:: {kind.__name__}\n   :show-inheritance:",
            "```\n",
            f"Exit status {kind.exit_code}.\n",
        ]
        parts += [f"- {_shown(message.problem)}{_fix(message.fix)}" for message in messages().get(kind.__name__, ())]
        parts.append("")
    return "\n".join(parts)


def classes() -> list[type[S2MLPDeployError]]:
    """The public hierarchy, in the order of the file."""
    return [
        kind
        for kind in vars(hierarchy).values()
        if isinstance(kind, type) and issubclass(kind, S2MLPDeployError) and kind.__module__ == hierarchy.__name__
    ]


@cache
def messages() -> dict[str, list[Message]]:
    """What is raised of each class anywhere in the package, sorted."""
    names = {kind.__name__ for kind in classes()}
    found: dict[str, set[Message]] = defaultdict(set)
    for path in sorted(_PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names and node.args:
                problem = _text(node.args[0])
                fix = next((_text(word.value) for word in node.keywords if word.arg == "fix"), "")
                if len(re.findall(r"[^\W\d_]{2,}", problem)) > 1:
                    found[node.func.id].add(Message(problem, fix.strip("… ") and fix))
    return {name: sorted(texts, key=lambda message: message.problem.lower()) for name, texts in found.items()}


def _text(node: ast.expr) -> str:
    """A message as it is written in the source, with ``…`` for what is computed."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return "…"


def _shown(text: str) -> str:
    """A message as code, in which nothing is Markdown."""
    line = " ".join(text.split())
    fence = "``" if "`" in line else "`"
    return f"{fence} {line} {fence}" if len(fence) > 1 else f"`{line}`"


def _fix(text: str) -> str:
    return f"\\\n  {plain(' '.join(text.split()))}" if text else ""
