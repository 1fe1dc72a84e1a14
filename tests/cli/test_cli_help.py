"""What ``--help`` shows: examples that parse, choices whole, and completion."""

from __future__ import annotations

import re
import shlex
from typing import get_args

import numpy as np
import pytest
import typer

from s2mlp_deploy import choices
from s2mlp_deploy.cli import options
from s2mlp_deploy.cli.main import app
from s2mlp_deploy.errors import InputError

COMMANDS = {command.callback.__name__: command for command in app.registered_commands if command.callback}


@pytest.fixture
def wide(monkeypatch):
    """Help pages of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_example_is_a_command_line_that_parses(cli, monkeypatch, command):
    examples = [line.strip() for line in (COMMANDS[command].epilog or "").split("\n\n")][1:]
    assert examples
    ran = []
    kind = type(typer.main.get_command(app).commands[command])
    monkeypatch.setattr(kind, "invoke", lambda self, context: ran.append(self.name))
    for line in examples:
        assert len(line) <= 78
        words = shlex.split(line)
        assert words[:2] == ["s2mlp-deploy", command]
        result = cli(*words[1:])
        assert result.code == 0, result.err
    assert ran == [command] * len(examples)


def test_choices_are_shown_and_never_broken(cli, wide):
    shown = {
        "export": (choices.ShiftFormName, choices.Layout, choices.OnHazard, choices.CalibrationMethod),
        "build": (choices.EngineName, choices.RequiredPrecision, choices.HardwareCompatibility),
        "quantize": (choices.Precision,),
    }
    for command, types in shown.items():
        page = cli(command, "--help").out
        words = set(re.split(r"[\s|,.]+", page))
        assert {name for kind in types for name in get_args(kind)} <= words
    assert "\u2026" not in "".join(cli(command, "--help").out for command in COMMANDS), "something is cut"


def test_a_narrow_terminal_gets_pages_that_cut_off_nothing(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    pages = {command: cli(command, "--help").out for command in ("export", "bench")} | {None: cli("--help").out}
    pages |= {command: cli(command, "--help").out for command in ("build", "serve", "predict")}
    assert "docs/how-to/trtexec.md" in pages["build"]
    assert "[default: 20" in " ".join(pages["export"].split())
    for page in pages.values():
        assert re.findall(r"[a-z]-$", page, re.MULTILINE) == [], "a name is broken"
        assert re.findall(r"<list|\}\.\.\.|default:\s+\(", page) == [], "words of Python"
        assert "\u2026" not in page
        assert re.findall(r"(?<=[a-z])\.\.\.", page) == [], "a sentence is cut off"
        assert max(map(len, page.splitlines())) <= 60
    for parameter in typer.main.get_command(app).commands["export"].params:
        assert all(name in pages["export"] for name in parameter.opts if name.startswith("-"))
    assert "Export a model to ONNX with a manifest that describes it." in " ".join(pages[None].split())
    monkeypatch.setenv("COLUMNS", "80")
    assert "\u256d" in cli("export", "--help").out, "the panels are gone for good"


def test_precisions_are_separated_or_repeated():
    assert options.separated(["fp16, int8", "fp16"], "fp32") == ["fp16", "int8"]
    assert options.separated(None, "int8") == ["int8"]
    parse = options.choices(choices.Precision, "", several=True)["parser"]
    assert parse("fp16,int8") == "fp16,int8"
    with pytest.raises(InputError, match=r"no 'int9' here[\s\S]*fp32, fp16, int8 or fp8"):
        parse("fp16,int9")


def test_precisions_of_both_kinds_reach_the_api(cli, monkeypatch, tmp_path):
    pytest.importorskip("torch")
    from s2mlp_deploy import api
    from s2mlp_deploy.errors import CheckFailedError

    def reached(*_, precision, **__):
        raise CheckFailedError(" ".join(precision.precisions))

    monkeypatch.setattr(api, "export", reached)
    monkeypatch.chdir(tmp_path)
    np.save("d.npy", np.zeros((16, 3, 32, 32), np.float32))
    result = cli(
        "export",
        "s2mlpv2_nano",
        "-o",
        "out",
        "--precision",
        "fp16,int8",
        "--precision",
        "fp8",
        "--calibration-data",
        "d.npy",
    )
    assert result.text == "error: fp16 int8 fp8"


def test_completion_knows_choices_and_models():
    complete = options.choices(choices.Precision, "", several=True)["autocompletion"]
    assert complete("fp16,i") == ["fp16,int8"]
    assert options.choices(choices.Layout, "")["autocompletion"]("c") == ["channels-last", "channels-first"]
    assert options.complete_source("s2mlpv2_n") == ["s2mlpv2_nano"]
    assert options.complete_source("net.py") == []


def test_quantize_speaks_of_itself(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    page = cli("quantize", "--help").told
    for told in ("<checkpoint>.json", "random weights", "of the configuration"):
        assert told not in page
    assert "Default: int8." in page
    assert "Default: fp32." in cli("export", "--help").out


@pytest.mark.parametrize(
    ("name", "told"), [("w.safetensors", "--checkpoint w.safetensors"), ("README.md", "goes to --checkpoint")]
)
def test_a_file_that_is_no_model_is_told_as_one(cli, monkeypatch, tmp_path, name, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(b"")
    for command in (("inspect", name), ("export", name, "-o", "out")):
        result = cli(*command)
        assert result.code == 2
        assert "unknown model" not in result.text
        assert told in result.text
