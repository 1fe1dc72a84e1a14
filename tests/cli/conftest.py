"""Running the command line: in this process for speed, in one of its own where imports and pipes matter."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fake_speed
import nano_artifact
import pytest


@dataclass(frozen=True)
class Run:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """The messages with all white space as single spaces, since the terminal's width breaks lines."""
        return " ".join(self.err.split())

    @property
    def told(self) -> str:
        """What was printed, likewise: where a line breaks depends on how long the name of a test's folder is."""
        return " ".join(self.out.split())


Cli = Callable[..., Run]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs the entry point in this process. Anything but an exit is a crash and fails the test."""
    from s2mlp_deploy.cli.main import main

    def run(*arguments: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["s2mlp-deploy", *map(str, arguments)])
        out, err = io.StringIO(), io.StringIO()
        code: object = 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as stop:
                code = stop.code or 0
        assert isinstance(code, int)
        return Run(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(autouse=True)
def speed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """No command of these tests times what it makes; called, it says how long files take beside float32."""

    def take(**how: Any) -> None:
        monkeypatch.setattr("s2mlp_deploy.bench.speed.measure_speed", fake_speed.fake_speed(**how))

    take()
    return take


@pytest.fixture
def process() -> Cli:
    """Runs the entry point in a process of its own, with the named modules made impossible to import."""

    def run(*arguments: object, blocked: tuple[str, ...] = (), cwd: Path | None = None) -> Run:
        code = (
            f"import sys; sys.modules.update(dict.fromkeys({list(blocked)!r})); "
            f"sys.argv = {['s2mlp-deploy', *map(str, arguments)]!r}; "
            "from s2mlp_deploy.cli.main import main; main()"
        )
        env = os.environ | {"PYTHONPATH": nano_artifact.PACKAGE_ROOT}
        done = subprocess.run([sys.executable, "-c", code], env=env, cwd=cwd, capture_output=True)
        return Run(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


@pytest.fixture
def refused(cli: Cli) -> Callable[..., str]:
    """Runs a command that must be refused: status 2, a fix, nothing on stdout. Returns the message."""

    def run(*arguments: object) -> str:
        result = cli(*arguments)
        assert result.code == 2, result.err
        assert result.out == ""
        assert "Traceback" not in result.err
        assert "fix:" in result.err or "Usage:" in result.err
        return result.text

    return run


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets arguments pass that name nothing, to see what becomes of them behind the checks."""
    from s2mlp_deploy.cli import export, inspect, parity, quantize

    for module in (export, inspect, parity, quantize):
        for name in ("check_source", "check_export", "check_quantize", "check_parity"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, lambda *_, **__: None)
