"""Pages in a real browser: nothing sticks out at the width of a phone or a desktop, and no script is needed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from report_samples import accuracy, artifact, bench, build, calibration, on_noise, quantized_manifest, report, shifts

from s2mlp_deploy.artifact import Hazard
from s2mlp_deploy.report.html import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium here: apt-get install chromium")

# What is wider than the page, or can be scrolled sideways, with all that is folded unfolded.
PROBE = """<script>
document.querySelectorAll("details").forEach(item => item.open = true);
const edge = document.documentElement.clientWidth + 1;
const sticksOut = item => item.getBoundingClientRect().right > edge ||
  item.clientWidth && item.scrollWidth > item.clientWidth + 1;
const out = [...document.querySelectorAll("body *")].filter(item => !item.closest("svg, thead") && sticksOut(item));
document.title = JSON.stringify({width: innerWidth, page: document.documentElement.scrollWidth,
  out: out.map(item => item.outerHTML.slice(0, 120))});
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    long = "a_folder_with_a_long_name." * 4 + "photos"
    race = Hazard("race", "net.py:18", "x[1:] = x[:-1]", 1, 72, {"1": 1.25})
    outputs = (*report().outputs, replace(report().outputs[0], name="features." * 12))
    racing = replace(report(), outputs=outputs, eager=outputs, data=f"1000 images of {long}")
    directory = artifact(
        tmp_path_factory.mktemp("page"),
        quantized_manifest(hazards=(race,), shifts=shifts()),
        parity_a=racing,
        parity_b=on_noise(),
        parity_c=replace(report(), file_sha256="1" * 64),
        build_a=replace(build(), layer_dtypes={f"a type of numbers {index}": 1000 for index in range(9)}),
        bench_single_stream=bench(),
        accuracy_a=accuracy(),
        calibration=calibration(),
    )
    return write_report(directory).read_text("utf-8")


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out(page: str, width: int, tmp_path: Path) -> None:
    # Chromium's own window has a least width: a frame has any.
    (tmp_path / "page.html").write_text(page.replace("</body>", PROBE + "</body>"))
    (tmp_path / "frame.html").write_text(
        f'<iframe src="page.html" style="width:{width}px;height:900px;border:0" onload="document.title=this.'
        'contentDocument.title"></iframe>'
    )
    done = subprocess.run(
        [
            *(str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"),
            *(f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=5000", "--window-size=1400,1000"),
            *("--dump-dom", f"file://{tmp_path}/frame.html"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None, done.stdout
    found = json.loads(title[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert found["width"] == width
    assert found["out"] == []
    assert found["page"] <= width
