"""What other people wrote reaches the terminal as text, and a pipe that nobody reads is no failure."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import nano_artifact
import pytest
from plain_artifact import write_plain
from rich.table import Table

from s2mlp_deploy.cli import console as consoles
from s2mlp_deploy.cli.console import PlainConsole, emit
from s2mlp_deploy.text import harmless

HOSTILE = "cat\x1b[2J\x1b]0;owned\x07\x9b31m\u202egnp.exe\x7f"


@pytest.mark.parametrize("terminal", [True, False])
def test_no_control_character_of_a_text_reaches_the_terminal(terminal):
    stream = io.StringIO()
    console = PlainConsole(
        file=stream, force_terminal=terminal, width=200, color_system="truecolor", legacy_windows=False
    )
    table = Table(HOSTILE)
    table.add_row(HOSTILE, style="red")
    for printed in (HOSTILE, table, f"[bold]{HOSTILE}[/]"):
        console.print(printed)
    console.print(HOSTILE, markup=False, highlight=False, soft_wrap=True)
    told = stream.getvalue()
    assert "\\x1b[2J" in told
    assert "\\x9b31m" in told
    for bad in ("\x1b[2J", "\x1b]", "\x07", "\x9b", "\u202e", "\x7f"):
        assert bad not in told
    # Styles of our own are there all the same.
    assert "\x1b[31m" in told or not terminal


def test_what_is_readable_stays_as_it_is():
    for text in ("Katze ü 猫 🐈", "a\tb\nc", ""):
        assert harmless(text) == text


def test_json_holds_no_control_character_and_the_same_text(capsys):
    emit({"name": HOSTILE}, as_json=True, render=lambda console: None)
    out = capsys.readouterr().out
    assert all(letter.isprintable() or letter == "\n" for letter in out)
    assert json.loads(out) == {"name": HOSTILE}


def test_class_names_and_files_of_an_artifact_are_printed_as_text(cli, tmp_path):
    directory = tmp_path / HOSTILE.replace("/", "")
    write_plain(directory)
    result = cli("inspect", directory / "model.fp32.onnx")
    assert result.code == 0
    missing = cli("inspect", directory / "none.onnx")
    assert missing.code == 2
    for text in (result.out, missing.err):
        assert "\x1b" not in text
        assert "\x9b" not in text


@pytest.mark.parametrize("arguments", [["models"], ["models", "--json"]])
def test_a_pipe_that_nobody_reads_is_no_failed_check(arguments):
    code = f"import sys; sys.argv = {['s2mlp-deploy', *arguments]!r}; from s2mlp_deploy.cli.main import main; main()"
    read, write = os.pipe()
    os.close(read)
    # A size that is none ends nothing either: rich would make a number of it.
    env = os.environ | {"PYTHONPATH": nano_artifact.PACKAGE_ROOT, "COLUMNS": "9" * 5000, "LINES": "\u00b2"}
    done = subprocess.run([sys.executable, "-c", code], env=env, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert done.returncode == 141
    assert b"rror" not in done.stderr


def test_a_size_of_the_terminal_that_is_none_is_not_read(monkeypatch):
    environment = {"COLUMNS": "9" * 5000, "LINES": "\u00b2", "TERM": "dumb"}
    consoles.drop_unusable_sizes(environment)
    assert environment == {"TERM": "dumb"}
    environment = {"COLUMNS": "60", "LINES": "1" * 18}
    consoles.drop_unusable_sizes(environment)
    assert environment == {"COLUMNS": "60"}
    console = PlainConsole(file=io.StringIO(), _environ=environment)
    for columns in ("9" * 5000, "9" * 18, "\u00b2"):
        monkeypatch.setenv("COLUMNS", columns)
        assert console.width == 10_000


def test_too_little_memory_is_said(cli, tmp_path, monkeypatch):
    write_plain(tmp_path / "a")

    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr("s2mlp_deploy.api.inspecting_files.load_graph", full)
    result = cli("inspect", tmp_path / "a" / "model.fp32.onnx")
    assert result.code == 2
    assert "not enough memory" in result.err
    assert "Traceback" not in result.err


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("environment", "stream", "coloured", "draws", "wide"),
    [
        ({}, io.StringIO, False, False, True),
        ({}, Screen, True, True, False),
        ({"NO_COLOR": "1"}, Screen, False, True, False),
        # As in a pipeline that shows colours: whole names, and nothing that is drawn over.
        ({"FORCE_COLOR": "1"}, io.StringIO, True, False, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, io.StringIO, False, False, True),
        ({"TERM": "dumb"}, Screen, False, False, False),
        ({"FORCE_COLOR": "1", "COLUMNS": "60"}, io.StringIO, True, False, False),
    ],
)
def test_colours_bars_and_width_follow_terminal_and_environment(
    monkeypatch, environment, stream, coloured, draws, wide
):
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    console = PlainConsole(file=stream(), stderr=True)
    console.print("[red]red[/]", "x" * 50, "y" * 100)
    told = console.file.getvalue()
    assert ("\x1b[31m" in told) is coloured
    assert (console.width > 200) is wide
    assert (told.count("\n") == 1) is wide
    assert console.draws is draws
    monkeypatch.setattr(consoles, "ERR", console)
    monkeypatch.setattr(consoles, "_EVERY", 0.01)
    with consoles.progress() as report:
        report("measuring", 1, 2)
    after = console.file.getvalue()[len(told) :]
    assert ("\x1b[" in after) is draws
