"""Completion, really installed: in an interactive bash; zsh and fish by the files and answers that they are given."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nano_artifact
import pytest
import typer.main

from s2mlp_deploy.cli.main import app
from s2mlp_deploy.cli.options import FILE_PRECISIONS
from s2mlp_deploy.precision.options import FILES_OF

BASH = shutil.which("bash")
NEEDS_BASH = pytest.mark.skipif(BASH is None, reason="there is no bash here")


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """The environment of somebody whose home is new and whose shells are called bash, zsh and fish."""
    tools = tmp_path / "tools"
    tools.mkdir()
    program = tools / "s2mlp-deploy"
    code = "from s2mlp_deploy.cli.main import main; main()"
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -c '{code}' \"$@\"\n")
    program.chmod(0o755)
    for shell in ("bash", "zsh", "fish"):  # It is the name of the process that tells which shell asks.
        (tools / shell).symlink_to(BASH or "/bin/sh")
    path = f"{tools}:{os.environ['PATH']}"
    return os.environ | {"HOME": str(tmp_path), "PATH": path, "PYTHONPATH": nano_artifact.PACKAGE_ROOT}


def ask(environment: dict[str, str], **question: str) -> list[str]:
    """What the program answers to a shell."""
    done = subprocess.run(["s2mlp-deploy"], env=environment | question, capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.split("\n")


@NEEDS_BASH
@pytest.mark.parametrize(
    ("shell", "file"),
    [
        ("bash", ".bash_completions/s2mlp-deploy.sh"),
        pytest.param("zsh", ".zfunc/_s2mlp-deploy", marks=pytest.mark.slow),
        pytest.param("fish", ".config/fish/completions/s2mlp-deploy.fish", marks=pytest.mark.slow),
    ],
)
def test_it_installs_and_shows_what_a_shell_needs(home, shell, file) -> None:
    # With a second command, or the shell would be replaced by the first.
    done = subprocess.run(
        [shell, "-c", "s2mlp-deploy --install-completion && s2mlp-deploy --show-completion; true"],
        env=home,
        capture_output=True,
        text=True,
        executable=Path(home["HOME"]) / "tools" / shell,
    )
    assert f"{shell} completion installed in {home['HOME']}/{file}" in done.stdout.replace("\n", ""), done.stderr
    script = (Path(home["HOME"]) / file).read_text().strip()
    assert script in done.stdout
    assert f"_S2MLP_DEPLOY_COMPLETE=complete_{shell}" in script
    # Where no shell can be found out, in a Dockerfile say, the same is had by name.
    assert "\n".join(ask(home, _S2MLP_DEPLOY_COMPLETE=f"source_{shell}")).strip() == script


@NEEDS_BASH
def test_bash_completes_commands_options_choices_models_and_files(home, tmp_path) -> None:
    subprocess.run(
        ["bash", "-c", "s2mlp-deploy --install-completion; true"], env=home, check=True, stdout=subprocess.DEVNULL
    )
    (tmp_path / "artifact").mkdir()
    (tmp_path / "artifact" / "model.fp32.onnx").touch()
    typed = {
        "quant": "quantize",
        "export --check": "export --checkpoint",
        "export s2mlpv2_n": "export s2mlpv2_nano",
        "export x --precision fp16,i": "export x --precision fp16,int8",
        "inspect artifact/mod": "inspect artifact/model.fp32.onnx",
    }
    assert in_bash(home, tmp_path, list(typed)) == list(typed.values())


def in_bash(environment: dict[str, str], directory: Path, typed: list[str]) -> list[str]:
    """Types words and a tab into an interactive bash, then has it print the line."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(directory)
        os.execve(str(BASH), ["bash", "-i"], environment | {"PS1": "> ", "TERM": "dumb", "HISTFILE": "/dev/null"})
    told = b""

    def wait_for(text: bytes) -> None:
        nonlocal told
        end = time.monotonic() + 60
        while text not in told and time.monotonic() < end:
            if select.select([terminal], [], [], 0.5)[0]:
                told += os.read(terminal, 65536)
        assert text in told, told

    os.write(terminal, b"bind 'set enable-bracketed-paste off'; stty -echo; echo rea''dy\r")
    wait_for(b"ready")
    lines = []
    for index, words in enumerate(typed):
        # Ctrl-A and an echo: the line is printed, not run.
        os.write(terminal, f"s2mlp-deploy {words}\t\x01echo begin{index} \x05 end''{index}\r".encode())
        wait_for(f"end{index}\r\n".encode())
        printed = told.decode().rpartition(f"begin{index} s2mlp-deploy ")[2]
        lines.append(printed.partition(f" end{index}")[0].strip())
    os.write(terminal, b"exit\r")
    os.waitpid(child, 0)
    os.close(terminal)
    return lines


def test_zsh_and_fish_are_answered_in_their_own_form(home) -> None:
    zsh = ask(home, _S2MLP_DEPLOY_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="s2mlp-deploy export s2mlpv2_n")
    assert zsh[0] == "_arguments '*: :((\"s2mlpv2_nano\"))'"
    files = ask(home, _S2MLP_DEPLOY_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="s2mlp-deploy inspect out/mo")
    assert files[0] == "_files"
    fish = ask(
        home,
        _S2MLP_DEPLOY_COMPLETE="complete_fish",
        _TYPER_COMPLETE_FISH_ACTION="get-args",
        _TYPER_COMPLETE_ARGS="s2mlp-deploy export x --layout ch",
    )
    assert fish[:2] == ["channels-last", "channels-first"]


def test_a_wrong_line_is_completed_without_a_word_of_it(home) -> None:
    line = "s2mlp-deploy export x --precision int9 --set = --layout channels-f"
    assert ask(home, _S2MLP_DEPLOY_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS=line)[0].count("channels-first") == 1


def test_engines_are_offered_that_the_command_takes() -> None:
    offered = {
        name: next(option for option in command.params if option.name == "engine").shell_complete(
            command.context_class(command), "t"
        )
        for name, command in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
        if name in ("tune", "parity", "bench", "predict")
    }
    names = {name: [item.value for item in items] for name, items in offered.items()}
    built = ["tensorrt-rtx", "tensorrt"]
    assert names == {"tune": [], "parity": [], "bench": built, "predict": built}


def test_precisions_of_files_are_those_that_are_made() -> None:
    assert ("fp32", *(name for files in FILES_OF.values() for name in files)) == FILE_PRECISIONS
