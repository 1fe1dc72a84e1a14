"""Bad input at the command line, beside the examples, ends with status 2."""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A copy of the examples, because commands write beside them."""
    place = tmp_path_factory.mktemp("root")
    shutil.copytree(ROOT / "examples", place / "examples")
    return place


@pytest.fixture
def there(folder, monkeypatch) -> Path:
    """The examples' folder as the current one; what is imported from it does not outlive the test."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder.parent)):
            del sys.modules[name]


def run(*arguments: str) -> tuple[int, str]:
    """Runs the command line in this process; status and everything it printed, with single spaces."""
    from s2mlp_deploy.cli.main import main

    before, sys.argv = sys.argv, ["s2mlp-deploy", *arguments]
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.argv = before
    assert isinstance(code, int)
    return code, " ".join(f"{err.getvalue()} {out.getvalue()}".split())


NET = """
import torch
from torch import nn

def weights():
    raise ValueError("no [bold]weights here")

def make():
    return weights()

class Deciding(nn.Module):
    def forward(self, x):
        return x + 1 if x.sum() > 0 else x

def deciding():
    return Deciding(), torch.ones(2, 3)

def misfit():
    return nn.Linear(4, 2), torch.ones(2, 3)

def nothing():
    return None
"""


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        (
            "make",
            ("line 6, in weights", "line 9, in make", "error: the factory raised ValueError: no [bold]weights here"),
        ),
        ("deciding", ("Deciding decides by the values", "if x.sum() > 0", "torch.where")),
        ("misfit", ("Linear does not run on its example inputs", "float32 [2, 3]")),
        ("nothing", ("returned NoneType", "returns an nn.Module")),
    ],
)
def test_what_the_user_got_wrong_is_told_with_status_2(there, factory, says):
    (there / "net.py").write_text(NET)
    code, printed = run("export", f"net.py:{factory}", "--output", "build/none")
    assert code == 2
    for piece in (*says, "fix:"):
        assert piece in printed
    assert "site-packages" not in printed
    assert "factory.py" not in printed
    assert not (there / "build" / "none").exists()


def test_a_syntax_error_is_shown_with_its_line(there):
    (there / "broken.py").write_text("def make(:\n    pass\n")
    code, printed = run("inspect", "broken.py:make")
    assert code == 2
    assert 'broken.py", line 1 def make(:' in printed
    assert "error: importing it raised SyntaxError" in printed


def test_one_json_document_even_where_the_module_warns(there, capsys):
    code, printed = run("inspect", "examples/bring_your_own/detector.py:make", "--json")
    assert code == 0
    assert printed.endswith("}")
    assert '"kind": "race"' in printed
