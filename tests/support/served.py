"""A service in a process of its own, as its clients see it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import nano_artifact


class Server:
    """What runs.

    Attributes:
        process: Of the service.
        log: The file that it logs to.
        port: Of HTTP.
        http: A client.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path, headers: dict[str, str]) -> None:
        self.process, self.log = process, log
        self.port: int = self.said("listening")["port"]
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=30)

    def lines(self) -> list[dict[str, Any]]:
        """What it logged so far."""
        text = self.log.read_text() if self.log.exists() else ""
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def said(self, words: str, seconds: float = 60) -> dict[str, Any]:
        """The first line of the log with these words in its message, once there is one."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = [line for line in self.lines() if words in line["message"]]
            return bool(found) or self.process.poll() is not None

        until(look, seconds)
        assert found, f"{words!r} is not in the log: {self.lines()}"
        return found[0]

    def ready(self) -> bool:
        """Whether it says so."""
        return self.http.get("/v2/health/ready").status_code == 200

    def end(self) -> int:
        """Its exit status after SIGTERM."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def workers(self) -> list[int]:
        """The processes of its workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children]


def until(done: Any, seconds: float = 30) -> None:
    """Waits until something holds.

    Raises:
        AssertionError: It did not in this time.
    """
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


@contextlib.contextmanager
def serving(
    place: Path, *arguments: object, wait: bool = True, environment: dict[str, str] | None = None
) -> Iterator[Server]:
    """The command ``serve``, on any free port.

    Args:
        place: A folder for its log.
        arguments: Of the command.
        wait: Whether until it is ready.
        environment: Variables besides.
    """
    log = place / "log.jsonl"
    command = [
        sys.executable,
        "-m",
        "s2mlp_deploy",
        "serve",
        *map(str, arguments),
        "--port",
        "0",
        "--log-file",
        str(log),
    ]
    variables = {"PYTHONPATH": nano_artifact.PACKAGE_ROOT, "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    token = (environment or {}).get("S2MLP_TOKEN")
    process = subprocess.Popen(command, env=variables | (environment or {}), stderr=subprocess.PIPE)
    try:
        server = Server(process, log, {"Authorization": f"Bearer {token}"} if token else {})
        if wait:
            until(server.ready)
        yield server
        server.http.close()
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
