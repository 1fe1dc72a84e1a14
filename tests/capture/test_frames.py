"""Whose code a frame is, and which line a reader would call the operator's."""

from __future__ import annotations

import sys
from traceback import FrameSummary

import pytest

from s2mlp_deploy.capture import frames

SITE = "/venv/lib/python3.11/site-packages"


def frame(file: str, name: str, line: int = 1) -> FrameSummary:
    return FrameSummary(file, line, name, lookup_line=False, line="")


def kept(*stack: FrameSummary) -> list[tuple[str, str]]:
    return [(summary.filename, summary.name) for summary in frames.in_forward(stack)]


@pytest.mark.parametrize(
    ("file", "mine"),
    [
        ("/home/me/net.py", True),
        ("/home/me/torch/net.py", True),
        (f"{SITE}/timm/layers/mlp.py", True),
        (f"{SITE}/torch/nn/modules/module.py", False),
        ("C:\\venv\\Lib\\site-packages\\torch\\functional.py", False),
        ("<string>", False),
        (f"{sys.base_prefix}/lib/python3.11/contextlib.py", False),
        (frames._PACKAGE + "/shift/op.py", False),
        (frames._PACKAGE + "/models/layers.py", True),
    ],
)
def test_files_are_the_users_or_not(file: str, mine: bool) -> None:
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
