"""Every command with nothing but its required arguments: defaults pass through the parser and reach the API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from s2mlp_deploy import api
from s2mlp_deploy.errors import CheckFailedError

COMMANDS: dict[str, tuple[tuple[str, ...], str]] = {
    "export": (("s2mlpv2_nano", "--output", "out"), "export"),
    "quantize": (("artifact", "--data", "images"), "quantize"),
    "build": (("model.fp32.onnx",), "build"),
    "inspect": (("s2mlpv2_nano",), "inspect_source"),
    "parity": (("s2mlpv2_nano", "model.fp32.onnx"), "parity"),
    "bench": (("model.fp32.onnx",), "bench"),
    "diff": (("model.fp32.onnx", "model.fp16.onnx"), "diff"),
    "report": (("artifact",), "report"),
    "predict": (("artifact", "a.png"), "predict"),
    "batch": (("images", "--model", "artifact", "--output", "out"), "batch"),
    "serve": (("artifact",), "serve"),
    "tune": (("artifact",), "tune"),
    "package": (("artifact", "--format", "triton", "--output", "out"), "package"),
    "doctor": ((), "doctor"),
    "models": ((), "models"),
}


class ReachedError(CheckFailedError):
    """The function behind the command was called."""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_reaches_its_function(cli, monkeypatch, unchecked, command):
    pytest.importorskip("torch")
    arguments, name = COMMANDS[command]
    calls: list[tuple[Any, ...]] = []

    def reached(*positional: Any, **_: Any) -> None:
        calls.append(positional)
        raise ReachedError("reached")

    monkeypatch.setattr(api, name, reached)
    result = cli(command, *arguments)
    assert result.code == 1, result.err
    assert result.text == "error: reached"
    (positional,) = calls
    if command in ("export", "quantize", "predict"):
        place = positional[1] if command == "export" else positional[0]
        assert place == Path(arguments[-1] if command == "export" else arguments[0])


def test_the_demo_writes_into_its_default_folder(cli, monkeypatch):
    pytest.importorskip("torch")
    from s2mlp_deploy.demo import run

    def reached(output: Path, **_: Any) -> None:
        raise ReachedError(f"into {output.as_posix()}")

    monkeypatch.setattr(run, "run_demo", reached)
    result = cli("demo")
    assert result.code == 1, result.err
    assert result.text == "error: into build/demo"


def test_every_command_is_tried():
    from s2mlp_deploy.cli.main import app

    assert {*COMMANDS, "demo"} == {command.callback.__name__ for command in app.registered_commands}
