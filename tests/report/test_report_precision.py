"""Pages of quantized artifacts: what was saved is what is shown, and nothing that was saved can break them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_samples import (
    COSTS,
    ENVIRONMENT,
    FILE,
    INT8,
    SAMPLES,
    SHA,
    THUMBNAIL,
    Page,
    accuracy,
    artifact,
    calibration,
    manifest,
    page_of,
    quantized_manifest,
    regions,
)

from s2mlp_deploy.artifact import FileRecord, PrecisionException, TensorInfo
from s2mlp_deploy.errors import ArtifactError
from s2mlp_deploy.evidence.accuracy import AccuracyReport
from s2mlp_deploy.evidence.calibration import ActivationRange, CalibrationReport
from s2mlp_deploy.evidence.store import Evidence, Saved, decode, encode
from s2mlp_deploy.report.html import write_overview
from s2mlp_deploy.report.page.charts import draw_histogram, draw_sqnr
from s2mlp_deploy.report.page.precision import view_precision

EVIL = '"><script>alert(1)</script>'


def quantized(directory: Path, **changes: Any) -> Page:
    return page_of(artifact(directory, quantized_manifest(**changes), accuracy_a=accuracy(), calibration=calibration()))


def parsed(value: object) -> Any:
    return json.loads(encode(value))


def test_what_quantize_saves_is_read_back_whole() -> None:
    assert decode(encode(accuracy()), AccuracyReport) == accuracy()
    assert decode(encode(calibration()), CalibrationReport) == calibration()


def test_every_file_has_its_size_and_score(tmp_path: Path) -> None:
    half = FileRecord("model.fp16.onnx", "fp16", "c" * 64, 500, 600)
    beside = FileRecord("model.fp16.onnx.data", "fp16", "d" * 64, 20, 0)
    page = quantized(tmp_path, files=(*quantized_manifest().files, half, beside))
    cells = page.of("td")
    # In the table of files the name has a note: this sample's files are not on the disk in full.
    start = cells.index(FILE)
    assert cells[start : start + 21] == [
        *(FILE, "83.00", "-", "100 %", "-", "1.0 kB", "100 %"),
        *(INT8, "82.90rounded to float16", "+0.10allowed 0.5", "98.60 %", "31.9 dB", "260 bytes", "26 %"),
        # The weights beside a graph are part of its size.
        *("model.fp16.onnx", "not scored", "-", "-", "-", "520 bytes", "52 %"),
    ]
    assert "top-1 accuracy, in points, on 1000 photos" in page.body
    tiles = [text for text in page.of("section") if text.startswith(("fp32", "fp16", "int8"))]
    assert [tile.split()[:2] for tile in tiles] == [["fp32", "not"], ["int8", "not"], ["fp16", "not"]]
    assert "SQNR31.9 dB Accuracy82.90 %drop +0.10 Size260 bytes26 % of fp32" in tiles[1]
    assert "Accuracy" not in tiles[2]
    assert "Size520 bytes52 % of fp32" in tiles[2]


def test_files_that_were_only_compared_have_no_columns_of_scores(tmp_path: Path) -> None:
    rows = tuple(replace(row, score=None, agreement=None) for row in accuracy().rows)
    plain = replace(accuracy(), metric="", rows=rows, searches={})
    page = page_of(artifact(tmp_path, quantized_manifest(), accuracy_a=plain))
    cells = page.of("td")
    start = cells.index(INT8)
    assert cells[start : start + 4] == [INT8, "31.9 dBrounded to float16", "260 bytes", "26 %"]
    assert "SQNR: fp32's outputs over the error of this file's." in page.of("p")


def test_scores_on_other_data_stand_in_a_table_of_their_own(tmp_path: Path) -> None:
    half = FileRecord("model.fp16.onnx", "fp16", "c" * 64, 500, 600)
    described = quantized_manifest(files=(*quantized_manifest().files, half))
    first, second = accuracy().rows
    newer = replace(
        accuracy(),
        data="64 other photos",
        rows=(replace(first, score=70.0), replace(second, file=half.path, precision="fp16", score=69.0)),
        sha256=accuracy().sha256 | {half.path: half.sha256},
        searches={},
        sqnr={},
        environment=ENVIRONMENT,
    )
    page = page_of(artifact(tmp_path, described, accuracy_a=accuracy(), accuracy_b=newer))
    assert regions(page, "Size and accuracy") == ["Size and accuracy 1", "Size and accuracy 2"]
    told = [text for text in page.of("p") if text.startswith("Score: ")]
    assert told == [f"Score: top-1 accuracy, in points, on {data} photos." for data in ("64 other", "1000")]
    cells = page.of("td")
    assert [cells[i - 1] for i, cell in enumerate(cells) if cell == "70.00"] == [FILE]
    assert cells[cells.index("70.00") + 6] == half.path
    assert "+0.10allowed 0.5" in cells, "the older scores stay"
    assert "not scored" not in cells
    tiles = [text for text in page.of("section") if text.startswith(("fp32", "fp16", "int8"))]
    assert ["Accuracy70.00 %" in tiles[0], "Accuracy82.90 %" in tiles[1], "Accuracy69.00 %" in tiles[2]] == [True] * 3


def test_the_ladder_is_told(tmp_path: Path) -> None:
    page = quantized(tmp_path)
    assert "0.10 points below fp32 in top-1 accuracy, where 0.5 may be lost, with 1 of 4 layers" in page.body
    cells = page.of("td")
    trials = cells[cells.index("over") - 3 :]
    assert trials[:8] == ["0", "80.00", "+3.00", "over", "1", "82.90", "+0.10", "holds"]
    assert cells[cells.index("fc1") : cells.index("fc1") + 3] == ["fc1", "12.5 dB", "2.90"]
    over = replace(accuracy(), searches={"int8": replace(accuracy().searches["int8"], max_drop=0.05)})
    assert "+0.10over 0.05" in page_of(artifact(tmp_path, quantized_manifest(), accuracy_a=over)).of("td")


def test_the_worst_layer_is_numbered_and_kept_layers_are_hatched(tmp_path: Path) -> None:
    page = quantized(tmp_path)
    drawing = page.drawings[0]
    assert (drawing["aria-labelledby"] or "").startswith("sqnr1-")
    assert page.of("desc")[0] == "The worst: fc1 12.5 dB."
    assert "fc1 12.5 dB, kept in higher precision" in page.of("li")
    bars = [attrs for _, attrs in page.with_class("bar")]
    assert "1" in page.of("text")
    assert [attrs["class"] for attrs in bars] == ["bar c1", "bar c2", "bar c1", "bar c1"]
    rects = [a for tag, a in page.elements if tag == "rect" and a.get("fill", "") in ("url(#hatch1)", "url(#hatch2)")]
    assert len([a for a in rects if a["class"] == "outline"]) == 1


def test_bars_are_as_tall_as_their_decibels() -> None:
    plot = draw_sqnr(COSTS | {"exact": 200.0, "lost": -10.0, "unknown": None}, {"fc2"})
    assert plot is not None
    assert plot.unmeasured == 1
    by_layer = {bar.title.partition(":")[0]: bar for bar in plot.bars}
    assert list(by_layer) == [*COSTS, "exact", "lost"]
    assert by_layer["fc2"].height / by_layer["fc1"].height == pytest.approx(30 / 12.5, rel=1e-3)
    # All stand on 0; a layer whose noise is louder than its signal hangs below.
    floor = by_layer["stem"].y + by_layer["stem"].height
    assert by_layer["lost"].y == pytest.approx(floor)
    assert by_layer["exact"].title == "exact: no error"
    assert min(bar.y for bar in plot.bars) == by_layer["exact"].y
    assert [bar.title for bar in plot.bars if bar.kept] == ["fc2: 30.0 dB, kept in higher precision"]
    assert [layer for layer, _, _ in plot.worst] == ["lost", "fc1"]


def test_many_layers_keep_their_width() -> None:
    plot = draw_sqnr({f"layer{index}": 40 + index % 7 for index in range(600)}, frozenset())
    assert plot is not None
    assert len(plot.bars) == 600
    assert plot.wide
    assert plot.width == pytest.approx(600 * 3.4 + 44)
    assert len(plot.worst) == 5


def activation(**changes: Any) -> ActivationRange:
    return replace(calibration().activations[0], **changes)


def boxes(path: str) -> list[tuple[float, float]]:
    """Left side and height of every bar of a path."""
    return [(float(x), float(tall)) for x, tall in re.findall(r"M([\d.]+) [\d.]+v-([\d.]+)h", path)]


def test_what_a_range_cuts_off_is_drawn_as_such() -> None:
    plot = draw_histogram(activation())
    assert plot is not None
    bars = {fate: boxes(path) for fate, path in plot.paths}
    by_scheme = {kept.scheme: kept for kept in plot.ranges}
    unsigned, signed = by_scheme["uint8"], by_scheme["int8"]
    assert all(unsigned.left <= x < signed.right for x, _ in bars["kept"])
    assert all(signed.right <= x < unsigned.right for x, _ in bars["part"])
    assert [x for x, _ in bars["cut"]] == [pytest.approx(unsigned.right + (plot.width - 16) * 0.5 / 9.9, abs=0.02)]
    assert (len(bars["kept"]), len(bars["part"]), len(bars["cut"])) == (9, 2, 1)
    assert unsigned.clipped == "clips at most 0.0518 % of the values"  # 1 of 1931
    assert signed.clipped == "clips at most 0.311 % of the values"  # 3 + 2 + 1 of 1931
    assert plot.ends == ("-4", "5.9")
    # Logarithmic: 1000 is not a hundred times as tall as 10.
    heights = sorted((tall for fate in bars.values() for _, tall in fate), reverse=True)
    assert heights[0] / heights[7] < 4


def test_a_range_of_all_that_was_seen_cuts_nothing() -> None:
    # The last bin ends at 6, beyond what was seen.
    plot = draw_histogram(activation(ranges={"uint8": (-0.5, 5.9), "later": (-0.5, 3.0), "bad": (3.0, None)}))
    assert plot is not None
    assert [(kept.scheme, kept.clipped.startswith("clips nothing")) for kept in plot.ranges] == [
        ("uint8", True),
        ("later", False),
    ]
    assert "cut" not in dict(plot.paths)


@pytest.mark.parametrize(
    "changes",
    [
        {"counts": ()},
        {"counts": (0, 0)},
        {"counts": (3, -1)},
        {"width": 0.0},
        {"width": None},
        {"width": float("nan")},
        {"start": float("nan")},
        {"start": 1e308, "width": 1e308},
        {"ranges": {"int8": (-float("inf"), float("inf"))}},
    ],
)
def test_figures_that_make_no_histogram_are_not_drawn(changes: dict[str, Any]) -> None:
    assert draw_histogram(activation(**changes)) is None


def test_histograms_of_the_worst_layers_come_first_and_the_rest_is_folded(tmp_path: Path) -> None:
    page = quantized(tmp_path)
    histograms = [drawing["aria-label"] or "" for drawing in page.drawings if drawing.get("aria-label")]
    assert len(histograms) == 4
    assert histograms[0].startswith("Values from -0.5 to 5.9; uint8 keeps -0.5 to 5, clips at most")
    assert "3 more activations" in page.of("summary")
    heads = [text for text in page.of("h3") if text in COSTS]
    assert heads == ["fc1", "stem", "fc2", "head"]


def test_worst_images_show_both_predictions(tmp_path: Path) -> None:
    page = quantized(tmp_path)
    images = [attrs for tag, attrs in page.elements if tag == "img"]
    assert [(attrs["src"], attrs["alt"]) for attrs in images] == [(THUMBNAIL, "cat")]
    captions = page.of("figcaption")
    assert [" ".join(caption.split()) for caption in captions] == [
        "cat cats/0007.jpg fp32: cat 51.0 % file: dog 49.0 %, another class distance 2.50 %",
        "image 42 fp32: 3 90.0 % file: 3 80.0 % distance 1.25 %",
    ]
    assert "no image" in page.body
    assert f"{INT8}: 1 of the 2 worst has another first class" in page.of("summary")


@pytest.mark.parametrize(
    "thumbnail",
    [
        "http://example.com/x.png",
        "javascript:alert(1)",
        "data:text/html;base64,AA",
        "data:image/svg+xml;base64,AA",
        THUMBNAIL + '" onload="x',
    ],
)
def test_a_thumbnail_that_is_no_image_is_left_out(tmp_path: Path, thumbnail: str) -> None:
    data = parsed(accuracy())
    data["rows"][1]["worst"][0]["thumbnail"] = thumbnail
    page = page_of(artifact(tmp_path, quantized_manifest(), accuracy_a=data))
    assert [tag for tag, _ in page.elements if tag == "img"] == []


def test_a_photograph_is_a_jpeg_and_figures_of_an_older_file_say_so(tmp_path: Path) -> None:
    first, second = accuracy().rows
    jpeg = replace(second, worst=(replace(second.worst[0], thumbnail="data:image/jpeg;base64,AAAA"),))
    older = replace(accuracy(), rows=(first, jpeg), sha256={FILE: SHA, INT8: "9" * 64})
    page = page_of(artifact(tmp_path, quantized_manifest(), accuracy_a=older))
    assert [attrs["src"] for tag, attrs in page.elements if tag == "img"] == ["data:image/jpeg;base64,AAAA"]
    assert f"{INT8}, of an older file: 1 of the 1 worst has another first class" in page.of("summary")
    assert page.of("h3").count(f"{INT8}, of an older file") == 2, "its budget and its layers"


def test_exceptions_are_grouped_by_reason(tmp_path: Path) -> None:
    other = "model.int8-trt.onnx"
    exceptions = tuple(
        PrecisionException(f"blocks.{index}.softmax", "fp32", "exponentials", file)
        for file in (INT8, other)
        for index in range(5)
    )
    page = quantized(tmp_path, precision_exceptions=(*exceptions, PrecisionException("head", "fp16", "small", other)))
    assert [text for text in page.of("h3") if text in ("Exponentials", "Small")] == ["Exponentials", "Small"]
    assert f"{INT8}, {other}" in page.of("dd")
    assert "and 2 more layers" in page.of("summary")


def test_the_calibration_is_named(tmp_path: Path) -> None:
    definitions = quantized(tmp_path).of("dd")
    assert f"photossha256 {SAMPLES.sha256[:12]}" in definitions
    assert "5123 could not be decoded" in definitions
    assert "percentile" in definitions


def test_scores_and_ranges_of_older_files_are_told(tmp_path: Path) -> None:
    page = quantized(tmp_path)
    assert "older files" not in page.body
    assert "another calibration" not in page.body
    files = (quantized_manifest().files[0], FileRecord(INT8, "int8", "e" * 64, 260, 700))
    page = quantized(tmp_path, files=files, calibration=replace(SAMPLES, method="mse"))
    assert f"{INT8}scored before it changed: quantize again" in page.of("td")
    assert f"The scores of {INT8} were measured on older files" in page.body
    assert "The histograms are of another calibration" in page.body
    assert "drop +" not in " ".join(page.of("section")), "no tile shows an older score"
    page = quantized(tmp_path, files=files[:1])
    assert f"{INT8}no longer in the artifact" in page.of("td")


def test_float32_alone_has_no_such_section(tmp_path: Path) -> None:
    page = page_of(artifact(tmp_path, manifest()))
    assert "Size and accuracy" not in page.body


@pytest.mark.parametrize(
    ("changes", "says", "never"),
    [
        ({"calibration": None}, "Nothing was scored: the files were made without data.", "Ranges were"),
        ({}, "No scores are saved here. Ranges were measured on 512 samples: quantize again", "without data"),
        (
            {"outputs": (TensorInfo("boxes", "float32", ("batch", 4, 100)),)},
            "ranges were measured on 512 samples, but boxes is no list of scores per image.",
            "without data",
        ),
        ({"calibration": replace(SAMPLES, data="seeded noise", sha256="")}, "made without data", "Ranges were"),
    ],
)
def test_why_nothing_was_scored_is_said_truly(tmp_path: Path, changes: dict[str, Any], says: str, never: str) -> None:
    page = page_of(artifact(tmp_path, quantized_manifest(**changes)))
    assert says in page.body
    assert never not in page.body


def test_the_page_stays_self_contained(tmp_path: Path) -> None:
    page = quantized(tmp_path)
    text = (tmp_path / "report.html").read_text("utf-8")
    assert not any(scheme in text for scheme in ("http:", "https:", "@import", "<script"))
    assert {(a["src"] or "")[:5] for tag, a in page.elements if "src" in a} == {"data:"}
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_text_of_others_is_escaped(tmp_path: Path) -> None:
    data = json.loads(json.dumps(parsed(accuracy())).replace('"fc1"', json.dumps("fc1" + EVIL)))
    data |= {"metric": EVIL, "data": EVIL}
    row = data["rows"][1]
    row |= {"file": EVIL, "arithmetic": EVIL}
    row["worst"][0] |= {"label": EVIL, "reference": {"label": EVIL, "probability": None}}
    ranges = parsed(calibration())
    ranges["activations"][0] |= {"name": EVIL, "layers": [EVIL], "ranges": {EVIL: [-1, 1]}}
    described = quantized_manifest(
        precision_exceptions=(PrecisionException(EVIL, EVIL, EVIL, EVIL),),
        calibration=replace(SAMPLES, data=EVIL, method=EVIL, files=(EVIL,)),
    )
    page = page_of(artifact(tmp_path, described, accuracy_a=data, calibration=ranges))
    assert "script" not in {tag for tag, _ in page.elements}
    assert page.body.count(EVIL) > 12


@pytest.mark.parametrize(
    "damage",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"metric": 3}',
        b'{"metric": "x", "data": "x", "images": 1, "rows": []}',
        b'{"calibration": {}, "activations": []}',
        b"[" * 100_000,
    ],
)
def test_damaged_evidence_is_a_note(tmp_path: Path, damage: bytes) -> None:
    page = page_of(artifact(tmp_path, quantized_manifest(), accuracy_a=damage, calibration=damage))
    notes = [text.split()[0] for text in page.of("p") if "was left out" in text]
    assert notes == ["evidence/accuracy-a.json", "evidence/calibration.json"]
    assert "not scored" in page.of("td")


@pytest.mark.parametrize("value", [None, -1.0, 0.0, 1e30, -1e300])
def test_no_figure_breaks_the_page(value: float | None) -> None:
    """Every number of a record in turn, and every text empty: what JSON may hold of the right type."""
    for record in (accuracy(), calibration()):
        whole = parsed(record)
        for path in numbers(whole):
            data = json.loads(json.dumps(whole))
            place = data
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = value if isinstance(place[path[-1]], float) or value is None else int(value)
            try:
                changed = decode(json.dumps(data).encode(), type(record))
            except ArtifactError:
                continue  # A note on the page, like any damaged file.
            assert view_precision(quantized_manifest(), Evidence((Saved("x.json", changed),))) is not None, path


def numbers(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every number inside a JSON value; of a list only its first item."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [path]
    items = value.items() if isinstance(value, dict) else list(enumerate(value))[:1] if isinstance(value, list) else ()
    return [found for key, item in items for found in numbers(item, (*path, key))]


def test_overview_shows_the_first_in_full(tmp_path: Path) -> None:
    directory = artifact(tmp_path / "a", quantized_manifest(), accuracy_a=accuracy(), calibration=calibration())
    page = Page(write_overview(tmp_path / "index.html", {"a": directory}, title="One").read_text("utf-8"))
    assert page.mistakes == []
    assert "Accuracy budget" in page.of("h2")
