"""The page for people, in a real browser that chooses an image as a person would."""

from __future__ import annotations

import base64
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from in_chromium import Listener, needs_browser

pytestmark = needs_browser

WIDTHS = (390, 1280)
"""A phone and a desktop."""

PROBE = """
const bytes = Uint8Array.from(atob("%s"), c => c.charCodeAt(0));
const wait = milliseconds => new Promise(done => setTimeout(done, milliseconds));
async function look(frame) {
  const page = frame.contentDocument, view = page.defaultView, $ = id => page.getElementById(id);
  for (let i = 0; i < 400 && !$("card").children.length; i++) await wait(50);
  const files = new view.DataTransfer();
  files.items.add(new view.File([bytes], "red.png", {type: "image/png"}));
  $("drop").dispatchEvent(new view.DragEvent("drop", {dataTransfer: files, bubbles: true, cancelable: true}));
  for (let i = 0; i < 400 && !$("classes").children.length && !$("problem").textContent; i++) await wait(50);
  const every = [...page.querySelectorAll("body *")].filter(item => item.id !== "file");
  return {classes: [...$("classes").children].map(item => item.innerText), latency: $("latency").innerText,
    problem: $("problem").innerText, card: $("card").innerText, models: $("model").innerText,
    out: every.filter(item => item.getBoundingClientRect().right > page.documentElement.clientWidth + 1)
      .map(item => item.outerHTML.slice(0, 100)),
    requests: view.performance.getEntriesByType("resource").map(entry => entry.name)};
}
addEventListener("load", async () => {
  const found = {};
  for (const frame of document.querySelectorAll("iframe")) {
    try { found[frame.id] = await look(frame); } catch (error) { found[frame.id] = {broken: String(error)}; }
  }
  tell(found);
});
"""


@pytest.fixture(scope="module")
def browsed(server, red, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, dict], str]:
    """What was seen at each width, and what the browser logged."""
    place = tmp_path_factory.mktemp("page")
    frames = "".join(f'<iframe id="{w}" src="/" style="width:{w}px;height:900px;border:0"></iframe>' for w in WIDTHS)
    listener = Listener()
    script = listener.script + PROBE % base64.b64encode(red).decode()
    whole = f"<!DOCTYPE html><link rel=icon href=data:,><body>{frames}<script>{script}</script>".encode()

    class Beside(BaseHTTPRequestHandler):
        """The service, and the page with the frames at the same origin, so that the probe may look inside."""

        def do_GET(self) -> None:
            if self.path == "/frames.html":
                self.answer(200, {"content-type": "text/html"}, whole)
            else:
                self.forward(None)

        def do_POST(self) -> None:
            self.forward(self.rfile.read(int(self.headers["content-length"])))

        def forward(self, body: bytes | None) -> None:
            kind = {"content-type": self.headers.get("content-type", "")} if body is not None else {}
            found = server.http.request(self.command, self.path, content=body, headers=kind)
            kept = ("content-type", "content-security-policy", "server-timing")
            self.answer(
                found.status_code, {key: found.headers[key] for key in kept if key in found.headers}, found.content
            )

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    beside = ThreadingHTTPServer(("127.0.0.1", 0), Beside)
    threading.Thread(target=beside.serve_forever, daemon=True).start()
    with listener:
        seen = listener.browse(f"http://127.0.0.1:{beside.server_port}/frames.html", place)
    beside.shutdown()
    beside.server_close()
    return seen


@pytest.mark.parametrize("width", WIDTHS)
def test_a_dropped_image_shows_classes_latency_and_the_card(browsed, width):
    seen = browsed[0][str(width)]
    assert "broken" not in seen, seen
    assert seen["problem"] == ""
    assert seen["classes"][0].startswith("red")
    assert len(seen["classes"]) == 4
    assert "infer" in seen["latency"]
    assert "model.fp32.onnx" in seen["card"]
    assert "perceptron-0, version 2" in seen["models"]
    assert seen["out"] == []


def test_nothing_fails_and_nothing_comes_from_elsewhere(browsed):
    found, log = browsed
    assert [line for line in log.splitlines() if "CONSOLE" in line] == []
    for seen in found.values():
        assert all(name.startswith(("http://127.0.0.1:", "data:", "blob:")) for name in seen["requests"])
