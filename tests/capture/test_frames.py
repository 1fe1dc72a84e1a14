"""Whose code a frame is, and which line a reader would call the operator's."""

from __future__ import annotations

import contextlib
import linecache
import sys
from traceback import FrameSummary
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from s2mlp_deploy.capture import frames
from s2mlp_deploy.models import layers
from s2mlp_deploy.report.tables import visible_text
from s2mlp_deploy.shift import op
from s2mlp_deploy.text import with_prompts

SITE = "/venv/lib/python3.11/site-packages"


def frame(file: str, name: str, line: int = 1) -> FrameSummary:
    return FrameSummary(file, line, name, lookup_line=False, line="")


def kept(*stack: FrameSummary) -> list[tuple[str, str]]:
    return [(summary.filename, summary.name) for summary in frames.in_forward(stack)]


def places(package: str, standard: str, torch: str = f"{SITE}/torch") -> frames.Places:
    return frames.Places(frames._parts(package), frames._parts(torch), (frames._parts(standard),))


USUAL = places(f"{SITE}/s2mlp_deploy", "/usr/lib/python3.11")
BELOW_MODELS = places("/home/me/models/deploy/s2mlp_deploy", "/usr/lib/python3.11")
TORCH_CHECKOUT = places(f"{SITE}/s2mlp_deploy", "/usr/lib/python3.11", "/home/me/pytorch/torch")
WINDOWS = places(
    "C:\\venv\\Lib\\site-packages\\s2mlp_deploy", "C:\\Python311\\Lib", "C:\\venv\\Lib\\site-packages\\torch"
)


@pytest.mark.parametrize(
    ("file", "where", "mine"),
    [
        ("/home/me/net.py", USUAL, True),
        ("/home/me/torch/net.py", USUAL, True),
        ("/home/me/site-packages.py", USUAL, True),
        (f"{SITE}/timm/layers/mlp.py", USUAL, True),
        (f"{SITE}/torch/nn/modules/module.py", USUAL, False),
        (f"{SITE}/torchvision/ops/misc.py", USUAL, True),
        ("<string>", USUAL, False),
        ("<frozen runpy>", USUAL, False),
        ("<ipython-input-3-0a1b2c>", USUAL, True),
        # The zoo's networks read like a user's; a checkout below a folder called models is no network.
        (f"{SITE}/s2mlp_deploy/models/layers.py", USUAL, True),
        (f"{SITE}/s2mlp_deploy/shift/op.py", USUAL, False),
        ("/home/me/models/deploy/s2mlp_deploy/shift/op.py", BELOW_MODELS, False),
        ("/home/me/models/deploy/s2mlp_deploy/models/layers.py", BELOW_MODELS, True),
        ("/home/me/models/deploy/s2mlp_deploy_extra/net.py", BELOW_MODELS, True),
        ("/home/me/models/net.py", BELOW_MODELS, True),
        # A system Python below /usr, with the user's code below /usr too.
        ("/usr/lib/python3.11/contextlib.py", USUAL, False),
        ("/usr/lib/python3.11/importlib/__init__.py", USUAL, False),
        ("/usr/src/app/net.py", USUAL, True),
        ("/usr/lib/python3.11-nets/net.py", USUAL, True),
        ("/usr/lib/python3/dist-packages/nets/block.py", USUAL, True),
        ("/usr/lib/python3/dist-packages/torch/_ops.py", USUAL, False),
        # A virtual environment whose path is the beginning of the user's.
        ("/venv/net.py", USUAL, True),
        ("/venv-nets/net.py", USUAL, True),
        ("/home/me/pytorch/torch/nn/functional.py", TORCH_CHECKOUT, False),
        ("/home/me/pytorch/net.py", TORCH_CHECKOUT, True),
        ("C:\\venv\\Lib\\site-packages\\torch\\functional.py", WINDOWS, False),
        ("C:\\Python311\\Lib\\contextlib.py", WINDOWS, False),
        ("C:\\Python311\\Lib\\site-packages\\nets\\block.py", WINDOWS, True),
        ("C:\\Users\\me\\net.py", WINDOWS, True),
    ],
)
def test_files_are_the_users_or_not(file: str, where: frames.Places, mine: bool) -> None:
    assert frames.is_user_file(file, where) is mine


@pytest.mark.parametrize(
    ("file", "mine"),
    [
        (contextlib.__file__, False),
        (torch.nn.functional.__file__, False),
        (op.__file__, False),
        (layers.__file__, True),
        (pytest.__file__, True),
        (__file__, True),
    ],
)
def test_files_of_this_interpreter(file: str, mine: bool) -> None:
    assert frames.is_user_file(file) is mine


def test_script_around_the_forward_is_left_out_and_helpers_below_it_stay() -> None:
    net = "/home/me/net.py"
    stack = [
        frame("/home/me/script.py", "<module>"),
        frame(f"{SITE}/torch/export/_trace.py", "forward"),
        frame(net, "forward"),
        frame(f"{SITE}/torch/nn/modules/module.py", "_call_impl"),
        frame(net, "forward"),
        frame("/home/me/shifts.py", "shift"),
    ]
    assert kept(*stack) == [(net, "forward"), (net, "forward"), ("/home/me/shifts.py", "shift")]


def test_another_packages_insides_are_left_out_but_not_the_modules_own() -> None:
    einops = frame(f"{SITE}/einops/_backends.py", "reshape")
    mine, net, helper = "/home/me/net.py", f"{SITE}/nets/block.py", f"{SITE}/nets/shifts.py"
    assert kept(frame(mine, "forward"), einops) == [(mine, "forward")]
    assert kept(frame(mine, "forward"), frame(net, "forward"), frame(helper, "shift"), einops) == [
        (mine, "forward"),
        (net, "forward"),
        (helper, "shift"),
    ]


def test_stack_without_a_forward_says_nothing() -> None:
    assert kept(frame("/home/me/script.py", "main")) == []


def test_line_of_a_stack_is_the_innermost_of_the_user() -> None:
    stack = f'File "/home/me/net.py", line 3, in forward\n    y = f(x)\n  File "{SITE}/torch/_ops.py", line 9, in g\n'
    line = frames.line_of_stack(stack)
    assert line is not None
    assert (line.short, line.code, str(line)) == ("net.py:3", "y = f(x)", "/home/me/net.py:3: y = f(x)")
    assert frames.line_of_stack(None) is None


def test_a_cell_of_a_notebook_has_one_name_whenever_it_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = "/tmp/ipykernel_71/3405691582.py"
    shell = SimpleNamespace(compile=SimpleNamespace(format_code_name={cell: ("Cell", "In[3]")}.get))
    ipython = SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(linecache.cache, cell, (1, None, ["x"], cell))
    line = frames.UserLine(cell, 7, "x[:, 1:] = x[:, :-1]")
    assert line.short == "3405691582.py:7"
    assert with_prompts(f"a race ({line.short}), net.py:7") == "a race (In[3]:7), net.py:7"
    assert visible_text(Console(), line.short).plain == "In[3]:7"
    assert with_prompts("/tmp/3405691582.py:7") == "/tmp/3405691582.py:7"
    ipython.get_ipython = lambda: None  # Imported by something, and no notebook.
    assert with_prompts(line.short) == line.short
    names = [frames.UserLine(f"<ipython-input-{number}-0c5a1e>", 7, "").short for number in (3, 4)]
    assert names == ["ipython-input-0c5a1e:7"] * 2
