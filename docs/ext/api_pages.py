"""The Python API, from the docstrings of ``s2mlp_deploy.api``."""

from __future__ import annotations

import ast
import importlib
import inspect
from typing import Literal, get_args, get_origin

from wording import code, plain, table

from s2mlp_deploy import api
from s2mlp_deploy.api.door import HOME_OF


def entries(*names: str) -> str:
    """Functions and classes: names of the API, or full ones of what its results hold."""
    parts = [".. currentmodule:: s2mlp_deploy.api"]
    for name in names:
        module, _, last = name.rpartition(".")
        value = getattr(importlib.import_module(module) if module else api, last)
        parts.append(f".. autoclass:: {name}\n   :members:" if inspect.isclass(value) else f".. autofunction:: {name}")
    return "```{eval-rst}\n" + "\n\n".join(parts) + "\n```\n"


def choices(*names: str) -> str:
    """A table of names that are no classes and no functions: what they may be, and what they are for."""
    rows = []
    for name in names:
        written, said = _documented(name)
        value = getattr(api, name)
        options = get_args(value) if get_origin(value) is Literal else ()
        rows.append((code(name), ", ".join(code(option) for option in options) or code(written), said))
    return table(("name", "values", "what it is"), rows)


def _documented(name: str) -> tuple[str, str]:
    """What is assigned to a name of the API, as it is written, and the string under it as Markdown."""
    body = ast.parse(inspect.getsource(importlib.import_module(HOME_OF[name]))).body
    for statement, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign | ast.Assign) and statement.value is not None:
            target = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
            if isinstance(target, ast.Name) and target.id == name:
                said = (
                    after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
                )
                return ast.unparse(statement.value), plain(str(said))
    raise KeyError(name)
