"""One shell for the commands of a page, which keeps folder, variables and jobs from block to block."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

_SERVE = re.compile(r"^(\s*(?:\w+=\S+\s+)*s2mlp-deploy +serve\b)([^#&|>]*)(&?)\s*(#.*)?$", re.DOTALL)
_PORT, _GRPC_PORT = "8000", "8001"


def commands(text: str) -> list[str]:
    """The commands of a script, each with the lines that it goes on in: backslashes, quotes, loops, here-documents."""
    found: list[str] = []
    waiting = ""
    for line in text.splitlines():
        if not waiting and (not line.strip() or line.lstrip().startswith("#")):
            continue
        waiting += line + "\n"
        checked = subprocess.run(["bash", "-n"], input=waiting, capture_output=True, text=True)
        if not line.endswith("\\") and not checked.stderr:
            found.append(waiting.rstrip("\n"))
            waiting = ""
    if waiting:
        raise SyntaxError(f"the shell waits for more after:\n{waiting}")
    return found


class Shell:
    """A ``bash`` in a folder.

    ``serve`` in the foreground goes on until the next one, or until the shell is left. Its ports, 8000 and 8001, stand
    for some that are free.
    """

    def __init__(self, folder: Path, room: Path, env: dict[str, str]) -> None:
        self._output = room / "printed"
        self._answers, theirs = os.pipe()
        self._bash = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-o", "pipefail"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=env,
            pass_fds=[theirs],
            start_new_session=True,
            text=True,
        )
        os.close(theirs)
        self._theirs, self._room = theirs, room
        self._ports = {port: str(_free_port()) for port in (_PORT, _GRPC_PORT)}
        self._is_serving = False

    def __enter__(self) -> Shell:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bash.poll() is None:
            self._stop_serving()
            self._ask("kill $(jobs -p); wait", 30)
            os.killpg(self._bash.pid, signal.SIGKILL)
            self._bash.wait()
        os.close(self._answers)

    @property
    def folder(self) -> Path:
        """Where it is."""
        return Path(self._ask("pwd", 10)[1].rstrip("\n"))

    def run(self, command: str, timeout: float = 180) -> tuple[int, str]:
        """Runs a command of any lines; returns its status and what it printed on both streams.

        Raises:
            TimeoutError: It did not end, or the service did not answer.
        """
        if match := _SERVE.match(command):
            return self._serve(match, timeout)
        status, printed = self._ask(self.with_ports(command), timeout)
        for port, ours in self._ports.items():
            printed = printed.replace(f":{ours}", f":{port}")
        return status, printed

    def with_ports(self, text: str) -> str:
        """A text with the ports that stand for those in it."""
        for port, ours in self._ports.items():
            text = re.sub(rf"(?<=:){port}\b", ours, text)
        return text

    def _serve(self, match: re.Match[str], timeout: float) -> tuple[int, str]:
        self._stop_serving()
        start, rest, _, _ = match.groups()
        for option, port in (("--port", _PORT), ("--grpc-port", _GRPC_PORT)):
            asked = re.search(rf"{option}[ =](\d+)", rest)
            if asked:
                self._ports.setdefault(asked[1], str(_free_port()))
                rest = rest.replace(asked[0], f"{option} {self._ports[asked[1]]}")
                number = asked[1]
            elif option == "--port":
                rest, number = f"{rest.rstrip()} --port {self._ports[port]}", port
            if option == "--port":
                address = f"http://127.0.0.1:{self._ports[number]}/v2/health/ready"
        log = self._room / "served"
        self._ask(f"{start}{rest} >'{log}' 2>&1 & served=$!", 10)
        self._is_serving = True
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            time.sleep(0.1)
            if self._ask("kill -0 $served", 10)[0]:
                self._is_serving = False
                return self._ask("wait $served", 10)[0], log.read_text(errors="replace")
            try:
                urllib.request.urlopen(address, timeout=5).close()
            except (urllib.error.URLError, OSError):
                continue
            return 0, ""
        raise TimeoutError("the service does not get ready")

    def _stop_serving(self) -> None:
        if self._is_serving:
            status, _ = self._ask("kill -TERM $served; wait $served", 60)
            self._is_serving = False
            if status:
                raise AssertionError(f"the service ended with status {status} after SIGTERM")

    def _ask(self, command: str, timeout: float) -> tuple[int, str]:
        assert self._bash.stdin is not None
        self._output.unlink(missing_ok=True)
        self._bash.stdin.write(f"{{ {command}\n}} >'{self._output}' 2>&1 </dev/null\necho $? >&{self._theirs}\n")
        self._bash.stdin.flush()
        if not select.select([self._answers], [], [], timeout)[0]:
            os.killpg(self._bash.pid, signal.SIGKILL)
            self._bash.wait()
            raise TimeoutError(f"{command} did not end within {timeout:.0f} s")
        status = os.read(self._answers, 16)
        return int(status), self._output.read_text(errors="replace")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])
