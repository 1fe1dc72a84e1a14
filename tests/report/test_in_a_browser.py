"""Pages in a real browser, at the width of a phone and of a desktop, light and dark, without scripts and with them.

One start of the browser for everything: a page of ours holds the report in frames and looks into them. A frame may be
narrower than the browser's window can be, has the colours of whoever holds it, and can be kept from running scripts.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from in_chromium import Listener, needs_browser
from report_samples import (
    accuracy,
    artifact,
    bench,
    build,
    calibration,
    layer,
    layers,
    modules,
    on_noise,
    quantized_manifest,
    report,
    shifts,
)

from s2mlp_deploy.artifact import Hazard, SourceInfo
from s2mlp_deploy.evidence.bench import MeasuredElsewhere
from s2mlp_deploy.evidence.difference import (
    Change,
    DifferenceReport,
    FileDifference,
    GraphFacts,
    ModuleDifference,
    NodeDifference,
    NodeKind,
    WeightDifference,
)
from s2mlp_deploy.evidence.engine_layers import EngineLayer, EngineLayers, LayerFinding, LayerTensor
from s2mlp_deploy.evidence.modules import ModuleRecord
from s2mlp_deploy.report.html import write_difference, write_report
from s2mlp_deploy.shift.origin import Origin

pytestmark = needs_browser

WIDTHS, SCHEMES = (390, 1010, 1280), ("light", "dark")
"""A phone, just above the width where rows become cards, a desktop."""
TEXT, GRAPHICS = 4.5, 3.0
"""Contrast that WCAG 2 asks of text (1.4.3, AA) and of graphics that say something (1.4.11)."""

PROBE = """
const over = (top, below) => top.slice(0, 3).map((value, i) => value * top[3] + below[i] * (1 - top[3])).concat(1);
const parse = colour => {
  const found = colour.match(/[\\d.]+/g);
  return found ? [...found.slice(0, 3).map(Number), found.length > 3 ? Number(found[3]) : 1] : [0, 0, 0, 0];
};
const light = colour => colour.slice(0, 3).map(v => v / 255)
  .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const contrast = (a, b) => {
  const [x, y] = [light(a), light(b)];
  return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);
};
const into = frame => parseInt(frame.style.width) < 760 ? "ArrowRight" : "ArrowDown";
function look(frame) {
  const page = frame.contentDocument, view = page.defaultView;
  page.querySelectorAll("details").forEach(item => item.open = true);
  const style = item => view.getComputedStyle(item);
  const behind = item => {
    const layers = [];
    for (let at = item; at; at = at.parentElement) layers.push(parse(style(at).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const name = item => item.outerHTML.replace(/\\s+/g, " ").slice(0, 120);
  const pale = [], low = [];
  for (const item of page.querySelectorAll("body *")) {
    const own = [...item.childNodes].some(node => node.nodeType === 3 && node.nodeValue.trim());
    if (!own || !item.getClientRects().length || item.matches("title, desc, style, script")) continue;
    const drawn = item instanceof view.SVGElement;
    const ground = behind(drawn ? item.closest("svg").parentElement : item);
    const ratio = contrast(over(parse(drawn ? style(item).fill : style(item).color), ground), ground);
    if (ratio < TEXT) pale.push(ratio.toFixed(2) + " " + name(item));
  }
  // What drawings say: filled shapes and strokes; tints, grids and leads lie behind them and are faint on purpose.
  const says = "svg .fill, svg .shaft, svg .rounds, svg .segment, svg .frame, svg .outline";
  for (const item of page.querySelectorAll(says)) {
    if (!item.getClientRects().length || item.closest("defs")) continue;
    const ground = behind(item.closest("svg").parentElement), seen = style(item);
    const colour = seen.fill !== "none" && !seen.fill.startsWith("url") ? seen.fill : seen.stroke;
    const ratio = contrast(over(parse(colour), ground), ground);
    if (ratio < GRAPHICS) low.push(ratio.toFixed(2) + " " + name(item));
  }
  const edge = page.documentElement.clientWidth + 1;
  const sticksOut = item => item.getBoundingClientRect().right > edge ||
    item.clientWidth && item.scrollWidth > item.clientWidth + 1;
  // Boxes of charts shorten their names to what fits, and cannot be scrolled.
  const whole = "svg, thead, .boxes", every = [...page.querySelectorAll("body *")];
  const out = every.filter(item => !item.closest(whole) && sticksOut(item));
  const tree = page.querySelector(".boxes"), keys = [];
  if (tree) page.querySelector(".w-size").click();
  for (const key of tree ? ["Home", into(frame), "Enter", "Escape"] : []) {
    (page.activeElement === page.body ? tree.firstElementChild : page.activeElement)
      .dispatchEvent(new view.KeyboardEvent("keydown", {key, bubbles: true}));
    keys.push((page.activeElement.getAttribute("aria-label") || "").split(";")[0] + " " +
      (tree.style.getPropertyValue("--m") || "1"));
  }
  // A label of two lines is one that was broken within its only word.
  const labels = [...page.querySelectorAll(".line dt")];
  const lines = item => {
    const text = page.createRange();
    text.selectNodeContents(item);
    return new Set([...text.getClientRects()].map(line => Math.round(line.top))).size;
  };
  const broken = labels.filter(item => !item.textContent.includes(" ") && lines(item) > 1).map(name);
  return {width: view.innerWidth, keys, labels: labels.length, split: broken,
    panel: tree && page.querySelector(".panel").innerText,
    page: page.documentElement.scrollWidth, pale, low, out: out.map(name),
    dark: light(parse(style(page.body).backgroundColor)) < 0.5, text: page.body.innerText};
}
addEventListener("load", () => setTimeout(() => {
  const found = {};
  for (const frame of document.querySelectorAll("iframe")) {
    try { found[frame.id] = look(frame); } catch (error) { found[frame.id] = {broken: String(error)}; }
  }
  tell(found);
}, 200));
"""

HOSTILE = "<script>console.error('ran')</script>\"'\u202e\u2066" + "a_class_with_a_long_name" * 12
assert len(HOSTILE) > 300


def hostile_page(directory: Path) -> Path:
    """A page that has everything, with names that somebody chose to break it."""
    race = Hazard("race", f"net.py:18 {HOSTILE}", HOSTILE, 1, 72, {"1": 1.25})
    outputs = (*report().outputs, replace(report().outputs[0], name=HOSTILE))
    racing = replace(report(), outputs=outputs, eager=outputs, data=f"1000 images of {HOSTILE}", notes=(HOSTILE,))
    racing = replace(racing, reference=HOSTILE)
    (first, second) = accuracy().rows
    worst = (replace(second.worst[0], label=HOSTILE, name=HOSTILE), second.worst[1])
    scores = replace(accuracy(), data=HOSTILE, rows=(first, replace(second, worst=worst)))
    older = replace(bench(), scenario="offline")
    described = quantized_manifest(
        name=HOSTILE,
        source=SourceInfo(HOSTILE, {HOSTILE: HOSTILE}, HOSTILE, "c0ffee" * 10),
        hazards=(race,),
        notes=(HOSTILE,),
        shifts=(*shifts(), replace(shifts()[0], origin=Origin(HOSTILE, HOSTILE, HOSTILE, HOSTILE))),
        classes=(HOSTILE, "\u05d7\u05ea\u05d5\u05dc"),
        preprocessing={HOSTILE: HOSTILE},
        tools={HOSTILE: HOSTILE},
    )
    artifact(
        directory,
        described,
        parity_a=racing,
        parity_b=on_noise(),
        parity_c=replace(report(), file_sha256="1" * 64),
        layers_a=replace(layers(layer("stages.0"), layer(HOSTILE, 1.0, HOSTILE)), weights=None),
        layers_b=replace(layers(layer("stages.0"), layer("head")), weights=None, candidate=HOSTILE),
        modules_a=replace(modules(), modules=(*modules().modules, ModuleRecord(HOSTILE, {HOSTILE: 1}, {"fp32": 99}))),
        modules_b=modules("model.int8.onnx", "b" * 64, "int8"),
        build_a=replace(build(), layer_dtypes={f"a type of numbers {index}": 1000 for index in range(9)}),
        engine_layers_a=engine_layers(),
        bench_single_stream=replace(
            bench(), elsewhere=(MeasuredElsewhere(HOSTILE, "", 9, 2.5, 2.6, 2.7, 1.5, "", 1.25),)
        ),
        bench_offline=older,
        accuracy_a=scores,
        calibration=calibration(),
    )
    return write_report(directory)


def engine_layers() -> EngineLayers:
    """An engine whose layers somebody named to break a page, one of each type."""
    types = ("fp32", "fp16", "bf16", "int8", "fp8", "other")
    made = [
        EngineLayer(HOSTILE, HOSTILE, f"{HOSTILE}{dtype}", (HOSTILE,), f"{dtype}.{HOSTILE}", ms=0.5 + index)
        for index, dtype in enumerate(types)
    ]
    typed = [
        replace(item, outputs=(LayerTensor(HOSTILE, (4, 8), dtype, HOSTILE),))
        for item, dtype in zip(made, types, strict=True)
    ]
    finding = LayerFinding(HOSTILE, HOSTILE, (HOSTILE,) * 9, 1.5, HOSTILE)
    return EngineLayers(HOSTILE, "11.x", (HOSTILE,), tuple(typed), (HOSTILE,), (finding,), engine=HOSTILE)


def hostile_difference() -> DifferenceReport:
    """Two files whose modules, nodes, weights and metadata somebody named to break a page."""
    facts = GraphFacts(HOSTILE, "0" * 64, 1000, "fp32", 20, 10, HOSTILE, (), (), 10, 4, {"fp32": 900})
    change = Change(HOSTILE, HOSTILE, HOSTILE)
    kinds: tuple[NodeKind, ...] = ("added", "removed", "changed", "reshaped", "retyped")
    module = ModuleDifference(
        f"a.{HOSTILE}", 9, 9, *(1,) * 7, worst=0.5, bytes_before=9, ms_before=1.5, ms_after=2.5, error_after=0.1
    )
    file = FileDifference(
        facts,
        facts,
        interface=(change,),
        metadata=(change,),
        modules=(module, ModuleDifference("b", 1, 2, added=1)),
        nodes=tuple(NodeDifference(module.path, kind, HOSTILE, HOSTILE, (change,)) for kind in kinds),
        weights=(WeightDifference(module.path, "differs", HOSTILE, HOSTILE, "int8 8", 8, 3, 0.5, 0.1, 2.0, 12.0),),
        notes=(HOSTILE,),
    )
    return DifferenceReport(HOSTILE, HOSTILE, (file, file), (HOSTILE,), (HOSTILE,))


REPORTS = [f"{width} {scheme} report" for width in WIDTHS for scheme in SCHEMES]
EVERY = REPORTS + [f"{width} {scheme} difference" for width in (390, 1280) for scheme in SCHEMES]


@pytest.fixture(scope="module")
def browsed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, dict[str, Any]], str]:
    """What the probe found in each frame, and what the browser logged."""
    place = tmp_path_factory.mktemp("page")
    page = hostile_page(place / "artifact")
    pages = {"report": page, "difference": write_difference(place / "difference.html", hostile_difference())}
    frames = "".join(
        f'<iframe id="{frame}" src="{pages[frame.split()[2]].as_uri()}" style="width:{frame.split()[0]}px;'
        f'height:900px;border:0;color-scheme:{frame.split()[1]}"></iframe>'
        for frame in EVERY
    )
    # The probe may look inside, and no script of the page's own runs.
    frames += f'<iframe id="no script" sandbox="allow-same-origin" src="{page.as_uri()}" style="width:1280px"></iframe>'
    script = f"const TEXT = {TEXT}, GRAPHICS = {GRAPHICS};{PROBE}"
    with Listener() as listener:
        (place / "frames.html").write_text(f"<!DOCTYPE html><body>{frames}<script>{listener.script}{script}</script>")
        return listener.browse((place / "frames.html").as_uri(), place)


def test_no_script_fails_and_nobodys_name_is_one(browsed: tuple[dict[str, Any], str]) -> None:
    found, log = browsed
    assert set(found) == {*EVERY, "no script"}
    assert [frame["broken"] for frame in found.values() if "broken" in frame] == []
    told = [line for line in log.splitlines() if "CONSOLE" in line]
    # The page's own script, in the frame that may run none.
    assert [line.count("Blocked script execution") for line in told] == [1]


@pytest.mark.parametrize("frame", EVERY)
def test_nothing_sticks_out(browsed: tuple[dict[str, Any], str], frame: str) -> None:
    seen = browsed[0][frame]
    width = int(frame.split()[0])
    assert seen["out"] == []
    assert seen["width"] == width
    assert seen["page"] <= width
    assert seen["split"] == []
    assert seen["labels"] > 0 or "report" not in frame


@pytest.mark.parametrize("frame", EVERY)
def test_everything_can_be_read(browsed: tuple[dict[str, Any], str], frame: str) -> None:
    seen = browsed[0][frame]
    assert seen["dark"] == (frame.split()[1] == "dark"), "the frame has the colours that were asked for"
    assert seen["pale"] == []
    assert seen["low"] == []


@pytest.mark.parametrize("frame", REPORTS)
def test_keys_walk_through_the_modules_and_look_closer(browsed: tuple[dict[str, Any], str], frame: str) -> None:
    keys = browsed[0][frame]["keys"]
    assert [name.rpartition(" ")[0] for name in keys] == ["the whole network", *["stages.0, Linear"] * 3]
    factors = [float(name.rpartition(" ")[2]) for name in keys]
    assert factors[:2] == [1, 1]
    assert factors[2] > 1
    assert factors[3] == 1
    assert "stages.0" in browsed[0][frame]["panel"]


def test_without_scripts_the_main_facts_are_there(browsed: tuple[dict[str, Any], str]) -> None:
    text = browsed[0]["no script"]["text"].replace("\xa0", " ")
    for fact in (
        "Parity",
        "One image takes 2 ms",
        "Take model.fp32.onnx",
        "Beware: ",
        "Worst images",
        "Hazards",
        "mlp.fc1",
    ):
        assert fact in text


def test_names_that_turn_text_round_are_written_out(browsed: tuple[dict[str, Any], str]) -> None:
    text = browsed[0]["no script"]["text"]
    assert "\\u202e\\u2066a_class" in text
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", text)
    assert "\u05d7\u05ea\u05d5\u05dc" in text, "a name that is written from right to left by itself is left as it is"
