"""Pages in a real browser, which tell what they found over a socket, when they have found it.

Not ``--dump-dom`` with ``--virtual-time-budget``: the browser's own clock runs ahead while frames still load from
files, so a busy machine gets the document from before the probe was done.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium here: apt-get install chromium")

_SCRIPT = """
const tell = found => fetch("http://127.0.0.1:%d/", {method: "POST", mode: "no-cors", body: JSON.stringify(found)});
addEventListener("error", event => tell({failed: event.message}));
addEventListener("unhandledrejection", event => tell({failed: String(event.reason)}));
"""


class Listener:
    """What a page sends with ``tell(found)``, a function of :attr:`script`.

    The page holds what it looks at in frames: a frame may be narrower than the browser's window can be.
    """

    def __init__(self) -> None:
        told: queue.Queue[Any] = queue.Queue()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._told = told
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.script = _SCRIPT % self._server.server_port

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def browse(self, page: str, place: Path, patience: float = 200) -> tuple[dict[str, Any], str]:
        """What the page told, and what the browser logged until then.

        Args:
            page: Its address; pages from files may look into frames from files.
            place: A folder for the browser's profile and log.
            patience: Seconds after which a page that is silent has failed.
        """
        log = place / "browser.log"
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--no-first-run")
        with log.open("wb") as stderr:
            browser = subprocess.Popen(
                [
                    *(str(BROWSER), *flags, "--enable-logging=stderr", "--window-size=1400,1000"),
                    *(f"--user-data-dir={place}/profile", "--remote-debugging-port=0", page),
                ],
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
            try:
                found = self._told.get(timeout=patience)
            except queue.Empty:
                found = {"failed": f"the page said nothing within {patience} s"}
            finally:
                # The browser is a tree of processes.
                for how in (signal.SIGTERM, signal.SIGKILL):
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(browser.pid, how)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        browser.wait(10)
        said = log.read_text(errors="replace")
        assert "failed" not in found, f"{found}\n{said[-2000:]}"
        return found, said
