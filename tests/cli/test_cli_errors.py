"""How a command ends: errors in words or as a document, wrong command lines, Ctrl-C."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import nano_artifact
import pytest

COMMANDS = (
    "models",
    "doctor",
    "demo",
    "export",
    "quantize",
    "build",
    "inspect",
    "parity",
    "predict",
    "bench",
    "report",
)


def error_of(result):
    """The error of a command that was asked for JSON: the one document on stdout."""
    error = json.loads(result.out)["error"]
    assert list(error) == ["message", "where", "fix", "exit_code"]
    assert error["exit_code"] == result.code
    assert error["message"].splitlines()[0].removeprefix("internal error: ") in result.err
    return error


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_command_line_is_a_document_too(cli, command):
    error = error_of(cli(command, "--nonsense", "--json"))
    assert error["exit_code"] == 2
    assert "--nonsense" in error["message"]
    assert error["where"] == f"s2mlp-deploy {command}"
    assert cli(*error["fix"].split()[1:]).code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "nothing", "-o", "out"),
        ("quantize", "nothing", "--data", "nothing"),
        ("build", "nothing.onnx"),
        ("build", "nothing.onnx", "--dry-run"),
        ("inspect", "nothing"),
        ("inspect", "nothing.onnx"),
        ("inspect", "nothing.engine"),
        ("parity", "s2mlpv2_nano", "nothing.onnx"),
        ("predict", "nothing", "nothing.png"),
        ("demo", "--images", "nothing"),
        ("report", "nothing"),
    ],
    ids=" ".join,
)
def test_an_error_is_the_one_document(cli, tmp_path, monkeypatch, arguments):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    error = error_of(cli(*arguments, "--json"))
    assert error["exit_code"] == 2
    assert error["fix"]
    assert cli(*arguments).out == ""


@pytest.mark.parametrize(
    ("raised", "code"),
    [(ValueError("odd"), 70), (MemoryError(), 2), (KeyboardInterrupt(), 130), (OSError(28, "No space left"), 2)],
    ids=lambda value: type(value).__name__,
)
def test_whatever_ends_a_command_is_in_the_document(cli, monkeypatch, raised, code):
    from s2mlp_deploy import api

    def fail():
        raise raised

    monkeypatch.setattr(api, "models", fail)
    result = cli("models", "--json")
    assert result.code == code
    error_of(result)
    assert cli("models").out == ""


def test_the_result_of_a_check_that_fails_stays_the_one_document(cli, tmp_path):
    from plain_artifact import write_plain

    write_plain(tmp_path / "a")
    result = cli("build", tmp_path / "a" / "model.fp32.onnx", "--dry-run", "--json", "--target", "sm50")
    assert result.code in (1, 2)
    document = json.loads(result.out)
    assert ("error" in document) == (result.code == 2)


def test_an_option_after_two_dashes_is_no_option(cli):
    result = cli("inspect", "--nonsense", "--", "--json")
    assert result.code == 2
    assert result.out == ""


def test_control_characters_of_a_command_line_are_written_out(cli):
    result = cli("inspect", "--non\x1b[2Jsense")
    assert result.code == 2
    assert "\x1b" not in result.err
    assert "\\x1b[2J" in result.err


# Ctrl-C

INTERRUPTING = """
import sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            raise {raised}
sys.meta_path.insert(0, Interrupting())
"""
STARTS = {
    "python -m": "import runpy; sys.argv[0] = 's2mlp_deploy'; runpy.run_module('s2mlp_deploy', run_name='__main__')",
    "console script": "from s2mlp_deploy.__main__ import main; main()",
}


@pytest.mark.parametrize("name", ["typer", "rich.console", "s2mlp_deploy.cli.main", "s2mlp_deploy.api.zoo"])
@pytest.mark.parametrize("start", STARTS)
def test_an_interruption_of_imports_is_one_word(name, start):
    code = INTERRUPTING.format(name=name, raised="KeyboardInterrupt") + STARTS[start]
    env = os.environ | {"PYTHONPATH": nano_artifact.PACKAGE_ROOT}
    done = subprocess.run([sys.executable, "-c", code, "models"], env=env, capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr == "interrupted\n"
    assert done.stdout == ""


def test_an_interruption_that_a_library_makes_another_error_of_is_one(cli, monkeypatch):
    from s2mlp_deploy import api

    def fail():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise ImportError("numpy cannot be imported")  # noqa: B904

    monkeypatch.setattr(api, "models", fail)
    result = cli("models")
    assert result.code == 130
    assert result.err == "interrupted\n"


def test_the_console_script_is_the_entry_that_stays_quiet():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(nano_artifact.PACKAGE_ROOT) / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"s2mlp-deploy": "s2mlp_deploy.__main__:main"}


# Completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_printed(cli, monkeypatch, shell):
    # Typer asks which shell it was started from; make starts it from one that it does not know.
    monkeypatch.setattr("shellingham.detect_shell", lambda *_: (shell, f"/bin/{shell}"))
    result = cli("--show-completion")
    assert result.code == 0
    assert "_S2MLP_DEPLOY_COMPLETE" in result.out
