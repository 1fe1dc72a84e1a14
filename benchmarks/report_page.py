"""Size of an artifact's report and how soon Chromium shows it.

    python benchmarks/report_page.py build/medium

Bytes of the page, and over several starts the milliseconds until the first paint and until the page is ready
(``PerformancePaintTiming``, ``PerformanceNavigationTiming``). An image that answers late keeps the page open until it
was painted.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from s2mlp_deploy import api

_OPEN_FOR = 3.0
_TIMES = """<img width=1 height=1 src="http://127.0.0.1:{port}/"><script>addEventListener("load", () => {{
const paint = performance.getEntriesByType("paint").map(entry => [entry.name, entry.startTime]);
const page = performance.getEntriesByType("navigation")[0];
document.title = JSON.stringify(Object.fromEntries([...paint, ["ready", page.domContentLoadedEventEnd]]));
}})</script>"""


class _Late(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Answers with nothing, late."""
        time.sleep(_OPEN_FOR)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--starts", type=int, default=5)
    given = parser.parse_args()
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        print("needs Chromium: apt-get install chromium", file=sys.stderr)
        return 2
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Late)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        api.report(given.artifact, page)
        text = page.read_text()
        size = len(text.encode())
        page.write_text(text.replace("</body>", _TIMES.format(port=server.server_port) + "</body>"))
        runs = [_times(browser, page, Path(folder) / "profile") for _ in range(given.starts)]
    print("| report | bytes | first paint, ms: min, median | ready, ms: min, median |\n|---|---|---|---|")
    cells = [[run[name] for run in runs] for name in ("first-contentful-paint", "ready")]
    shown = " | ".join(f"{min(values):.0f}, {statistics.median(values):.0f}" for values in cells)
    print(f"| {given.artifact.name} | {size:,} | {shown} |")
    return 0


def _times(browser: str, page: Path, profile: Path) -> dict[str, float]:
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,900", f"--user-data-dir={profile}")
    done = subprocess.run(
        [browser, *flags, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    found = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert found is not None, done.stderr
    times: dict[str, float] = json.loads(found[1])
    return times


if __name__ == "__main__":
    sys.exit(main())
