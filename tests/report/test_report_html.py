"""Pages are parsed, not searched for luck: what a reader sees must be what was saved."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_samples import (
    DOWN,
    FILE,
    LEFT,
    ONNX,
    RIGHT,
    SHA,
    STAY,
    UP,
    Page,
    artifact,
    bench,
    build,
    manifest,
    page_of,
    report,
    shifts,
    tone,
)

from s2mlp_deploy.artifact import FileRecord, ShiftRecord, SourceInfo, TensorInfo, is_own_report
from s2mlp_deploy.errors import ArtifactError, InputError, OutputError
from s2mlp_deploy.evidence.parity import OutputParity, ParityReport
from s2mlp_deploy.evidence.store import encode
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.html import write_overview, write_report
from s2mlp_deploy.shift.origin import Origin
from s2mlp_deploy.shift.spec import ShiftGroup, ShiftSpec


def test_page_shows_the_saved_figures(tmp_path: Path) -> None:
    page = page_of(artifact(tmp_path, parity_fp32=report(), build_fp32=build()))
    cells = page.of("td")
    assert tone(page) == "good"
    assert "Parity holds" in page.body
    assert "7.63e-06allowed 0.0184" in cells
    assert "139.2 dBcosine 0.9999999" in cells
    assert "99.95 %top-5 100 %" in cells
    assert "97.10 %reference 97.20 %" in cells
    assert "image: 1x1x28x28 / 8x1x28x28 / 32x1x28x28min / opt / max" in cells
    assert "812801 float, 11 int64" in cells
    assert {"12.40 s", "4.6 MB", "sm86, sm89", "612", "18 bytes", SHA[:12]} <= set(cells)
    definitions = page.of("dd")
    assert {"s2mlpv2_nano", "28×28", "1/255", "imagefloat32, batch×1×28×28", "2.13.0"} <= set(definitions)
    assert f"digits.safetensorssha256 {('c0ffee' * 10)[:12]}" in definitions
    assert "random" not in page.body


def test_page_is_self_contained_and_the_same_each_time(tmp_path: Path) -> None:
    directory = artifact(tmp_path, parity_fp32=report())
    first = write_report(directory, title="Ours").read_bytes()
    assert write_report(directory, title="Ours").read_bytes() == first
    text = first.decode()
    page = Page(text)
    assert page.of("title")[0] == page.of("h1")[0] == "Ours"
    assert not [tag for tag, attrs in page.elements if tag in ("link", "img", "iframe") or "src" in attrs]
    assert not any(scheme in text for scheme in ("http:", "https:", "@import"))
    assert [attrs["href"] for tag, attrs in page.elements if tag == "a"] == [f"./{FILE}"]
    assert str(tmp_path.parent) not in text


def test_equal_shifts_are_drawn_once(tmp_path: Path) -> None:
    page = page_of(artifact(tmp_path))
    assert len(page.drawings) == 2
    assert len(page.with_class("arrow")) == 8
    assert page.with_class("stay") == []
    assert [text for text in page.of("h3") if "×" in text] == [
        "18 × right, left, down, up",
        "18 × down, up, right, left",
    ]
    assert [text for text in page.of("summary") if "places" in text] == ["and 15 more places"] * 2
    assert "stages.0.17.shift2" in page.of("li")[-1]
    assert page.body.count("vacated elements keep their value") == 3 * 2  # in words, drawn, in the text alternatives


def test_same_spec_in_another_form_is_another_row(tmp_path: Path) -> None:
    page = page_of(artifact(tmp_path, manifest(shifts=shifts()[:2] + shifts("gather")[:1])))
    assert len(page.drawings) == 3


def arrow_angles(page: Page) -> list[float]:
    return [
        float((attrs["transform"] or "").rpartition("rotate(")[2].rstrip(")")) for _, attrs in page.with_class("arrow")
    ]


def draw(directory: Path, spec: ShiftSpec) -> Page:
    return page_of(
        artifact(
            directory,
            manifest(shifts=(ShiftRecord(spec, Origin("net.shift", "net.py:7", idiom="roll"), "gather", 3),)),
        )
    )


def test_arrows_point_where_the_content_moves(tmp_path: Path) -> None:
    groups = (ShiftGroup(60, DOWN), ShiftGroup(20, UP), ShiftGroup(10, RIGHT), ShiftGroup(5, LEFT), ShiftGroup(5, STAY))
    page = draw(tmp_path, ShiftSpec(groups, (2, 3), 1, "zero"))
    # SVG turns clockwise, and 0 is to the right.
    assert arrow_angles(page) == [90, -90, 0, 180]
    assert len(page.with_class("stay")) == 1
    widths = [float(attrs["width"] or 0) for _, attrs in page.with_class("segment")]
    assert widths == [288, 96, 48, 24, 24]
    assert "vacated elements become 0" in page.of("dd")
    assert page.of("title")[-1] == "A shift of 100 channels in 5 groups: down, up, right, left, stays"
    assert "channels 95 to 99: stays" in page.of("desc")[-1]


def test_axes_in_reverse_order_turn_the_arrows(tmp_path: Path) -> None:
    page = draw(tmp_path, ShiftSpec((ShiftGroup(3, (1, 0)), ShiftGroup(3, (0, 1))), (3, 2), 1))
    assert arrow_angles(page) == [0, 90]
    assert "rows: axis 2, columns: axis 3, channels: axis 1" in page.of("dd")


@pytest.mark.parametrize(
    ("offsets", "axes", "labels", "arrows"),
    [
        ((3, 0), (1, 2), ["down 3"], 1),
        ((-1, 2), (1, 2), ["up 1", "right 2"], 1),
        ((-2,), (1,), ["axis 1: -2"], 1),
        ((0, 0, 4), (1, 2, 3), ["axis 3: +4"], 0),
        ((), (), ["stays"], 0),
    ],
)
def test_labels(
    tmp_path: Path, offsets: tuple[int, ...], axes: tuple[int, ...], labels: list[str], arrows: int
) -> None:
    page = draw(tmp_path, ShiftSpec((ShiftGroup(7, offsets),), axes, 9, "circular"))
    texts = page.of("text")
    assert texts[-len(labels) - 1 :] == [*labels, "circular: elements that leave come back in on the other side"]
    assert "7 ch" in texts
    assert len(page.with_class("arrow")) == arrows
    assert "elements that leave come back in on the other side" in page.of("dd")


def test_many_groups_stand_in_rows_that_a_phone_can_show(tmp_path: Path) -> None:
    page = draw(tmp_path, ShiftSpec.equal_groups(90, [DOWN, UP] * 4 + [STAY], axes=(1, 2), channel_axis=3))
    (drawing,) = page.drawings
    assert float((drawing["viewbox"] or "").split()[2]) <= 482
    frames = [(float(a["x"] or 0), float(a["y"] or 0)) for _, a in page.with_class("frame")]
    assert [sum(y == row for _, y in frames) for row in sorted({y for _, y in frames})] == [5, 4]
    assert len(set(frames)) == 9
    # Only squares of the first row stand below their piece of the bar.
    assert len(page.with_class("lead")) == 5


def test_many_groups_stay_legible(tmp_path: Path) -> None:
    page = draw(tmp_path, ShiftSpec.equal_groups(300, [DOWN] * 100, axes=(1, 2), channel_axis=3))
    assert len(page.with_class("segment")) == 100
    assert len(page.with_class("arrow")) == 24
    assert "76 more groups" in page.of("desc")[-1]


def test_failures_come_first_and_in_words(tmp_path: Path) -> None:
    failing = report(max_abs=3.1, cosine=0.93)
    page = page_of(artifact(tmp_path, parity_fp32=failing, parity_other=report()))
    assert tone(page) == "bad"
    assert "Parity FAILS" in page.of("section")[0]
    where = f"{FILE} on held-out digits (1,000 images)"
    assert page.of("li")[:2] == [f"{where}: {failure}" for failure in failing.failures]
    assert "3.1over 0.0184" in page.of("td")
    # The tile, the two comparisons, the table of files.
    assert [text for text in page.of("span") if text in ("holds", "FAILS")] == ["FAILS", "FAILS", "holds", "FAILS"]


def test_no_evidence_names_the_command(tmp_path: Path) -> None:
    page = page_of(artifact(tmp_path / "out dir"))
    assert tone(page) == "warn"
    assert "Parity was not measured yet" in page.body
    commands = page.of("pre")
    assert commands[:1] == ["s2mlp-deploy parity s2mlpv2_nano 'out dir'"]
    assert "Parity holds" not in page.body


def test_a_file_without_a_comparison_is_not_covered_by_another(tmp_path: Path) -> None:
    files = (*manifest().files, FileRecord("model.fp16.onnx", "fp16", "0" * 64, 9, 600))
    page = page_of(artifact(tmp_path, manifest(files=files), parity_fp32=report()))
    assert tone(page) == "warn"
    assert "Not measured: model.fp16.onnx." in page.body
    assert "model.fp16.onnxmissing on disk" in page.of("td")


@pytest.mark.parametrize("damage", [b"{", b"[1]", b"\xff\xfe", b"", b'"text"', b"[" * 100_000, b'{"failures": []}'])
def test_damaged_evidence_is_a_note_and_never_a_pass(tmp_path: Path, damage: bytes) -> None:
    page = page_of(artifact(tmp_path, parity_a=report(), parity_b=damage, build_c=damage))
    assert tone(page) == "warn"
    notes = [text for text in page.of("p") if "was left out" in text]
    assert [note.split()[0] for note in notes] == ["evidence/build-c.json", "evidence/parity-b.json"]
    assert f"s2mlp-deploy parity SOURCE {tmp_path.name} --data IMAGES." in notes[1]


def saved(**changes: Any) -> ParityReport:
    return replace(report(), **changes)


def document(**changes: Any) -> bytes:
    return json.dumps(json.loads(encode(report())) | changes).encode()


@pytest.mark.parametrize("changes", [{"failures": None}, {"outputs": "?"}, {"outputs": [3]}, {"schema_version": 1}])
def test_a_comparison_that_cannot_be_read_is_no_pass(tmp_path: Path, changes: dict[str, Any]) -> None:
    page = page_of(artifact(tmp_path, parity_fp32=document(**changes)))
    assert tone(page) == "warn"
    assert "1 saved comparison cannot be read." in page.body


@pytest.mark.parametrize(
    "outputs", [(), tuple(replace(o, tolerances=None) for o in report().outputs), report(max_abs=9.0).outputs]
)
def test_a_comparison_without_failures_is_no_pass_where_its_figures_say_otherwise(
    tmp_path: Path, outputs: tuple[OutputParity, ...]
) -> None:
    page = page_of(artifact(tmp_path, parity_fp32=saved(outputs=outputs)))
    assert tone(page) == "warn"
    assert "evidence/parity-fp32.json names no failure, and its figures are not all within limits." in page.body


def test_figures_that_are_not_finite_are_said(tmp_path: Path) -> None:
    page = page_of(artifact(tmp_path, parity_fp32=report(max_abs=math.nan, max_rel=math.inf, cosine=None, psnr=None)))
    assert tone(page) == "bad"
    assert "not finite" in page.of("td")
    assert "equal" not in page.of("b")


def test_equal_tensors_have_no_psnr(tmp_path: Path) -> None:
    page = page_of(artifact(tmp_path, parity_fp32=report(max_abs=0.0, max_rel=0.0, cosine=1.0, psnr=None)))
    assert tone(page) == "good"
    assert "equalcosine 1" in page.of("td")


def test_unknown_evidence_is_listed_by_name_and_unknown_fields_are_ignored(tmp_path: Path) -> None:
    page = page_of(artifact(tmp_path, tune_fp32=b"{}", parity_fp32=document(later={"layers": [1]}), paritylike=b"{}"))
    assert {"tune-fp32.json", "paritylike.json"} <= set(page.of("code"))
    assert tone(page) == "good"


def test_stale_engine_and_changed_file_are_said(tmp_path: Path) -> None:
    directory = artifact(tmp_path, build_a=replace(build(), onnx_sha256="1" * 64))
    (directory / FILE).write_bytes(ONNX + b"!")
    page = page_of(directory)
    assert any("has changed since: build again" in cell for cell in page.of("td"))
    assert any("changed since the export" in cell for cell in page.of("td"))


def test_a_comparison_of_an_older_file_counts_no_more(tmp_path: Path) -> None:
    for name, older in (("good", {}), ("bad", {"failures": ("max abs difference 1 > 0.1",)})):
        directory = artifact(tmp_path / name, parity_fp32=saved(file_sha256="1" * 64, **older))
        page = page_of(directory)
        assert tone(page) == "warn"
        assert "Parity was not measured yet" in page.body
        assert "Measured before the file changed, which counts no more: model.fp32.onnx." in page.body
        assert "s2mlp-deploy parity" in page.body
        assert "of an older file" in page.of("td")
        assert "FAILS" not in page.body
        assert "Max abs difference" not in page.body, "no headline figure comes from it"
        overview = Page(write_overview(tmp_path / "all.html", {"a": directory}, title="all").read_text())
        assert "of an older file" in overview.of("td")
        assert "Parity holds" not in overview.body
    # The same comparison of the file that is there counts; without a hash nobody can tell which file it was of.
    for name, digest, expected in (("same", SHA, "good"), ("none", "", "warn")):
        assert tone(page_of(artifact(tmp_path / name, parity_fp32=saved(file_sha256=digest)))) == expected


def test_an_older_comparison_beside_a_new_one_is_told_and_harms_nothing(tmp_path: Path) -> None:
    page = page_of(
        artifact(tmp_path, parity_a=saved(file_sha256=SHA), parity_b=saved(file_sha256="1" * 64, failures=("x",)))
    )
    assert tone(page) == "good"
    assert {"holds", "of an older file"} <= set(page.of("td"))


def test_text_of_others_is_escaped(tmp_path: Path) -> None:
    evil = '<script>alert("x")</script>'
    described = manifest(
        name=evil,
        source=SourceInfo(evil, {evil: evil}, evil, evil),
        classes=(evil,),
        preprocessing={evil: evil},
        shifts=(replace(shifts()[0], origin=Origin(evil, evil, evil, evil), form=evil),),
        tools={evil: evil},
        files=(FileRecord("javascript:alert(1)", evil, evil, 1, 1),),
    )
    (tmp_path / "javascript:alert(1)").write_bytes(b"x")
    page = page_of(
        artifact(
            tmp_path,
            described,
            parity_a=saved(candidate=evil, reference=evil, data=evil, failures=(evil,)),
            build_a=replace(build(), engine=evil, targets=(evil,)),
        )
    )
    assert "script" not in {tag for tag, _ in page.elements}
    assert page.body.count(evil) > 12
    assert {attrs["href"] for tag, attrs in page.elements if tag == "a"} == {"./javascript%3Aalert%281%29"}


def test_random_weights_are_said(tmp_path: Path) -> None:
    described = manifest(source=SourceInfo("s2mlp_deep", seed=7), preprocessing=None, classes=None, shifts=())
    page = page_of(artifact(tmp_path, described, parity_fp32=report()))
    assert "the weights are random (seed 7), so the predictions mean nothing" in page.body
    assert "Not stated" in page.body
    assert "No shift was found" in page.body


def test_no_manifest_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError):
        write_report(tmp_path)
    with pytest.raises(InputError):
        write_overview(tmp_path / "index.html", {}, title="Nothing")
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_is_none_of_ours_is_not_replaced(tmp_path: Path) -> None:
    directory = artifact(tmp_path / "a")
    assert is_own_report(write_report(directory))
    write_report(directory)
    for path in (directory / "report.html", tmp_path / "index.html"):
        path.write_text("<html>mine</html>")
    with pytest.raises(OutputError, match="did not write"):
        write_report(directory)
    with pytest.raises(OutputError, match="did not write"):
        write_overview(tmp_path / "index.html", {"a": directory}, title="All")
    assert (directory / "report.html").read_text() == (tmp_path / "index.html").read_text() == "<html>mine</html>"


def overview(root: Path, reports: dict[str, Any]) -> Page:
    artifacts = {
        form: artifact(
            root / "forms" / form,
            manifest(shifts=shifts(form), files=(replace(manifest().files[0], nodes=100 + index),)),
            **({"parity_fp32": compared, "build_fp32": build()} if compared else {}),
        )
        for index, (form, compared) in enumerate(reports.items())
    }
    write_report(artifacts["gather"])
    page = Page(write_overview(root / "index.html", artifacts, title="Four forms").read_text("utf-8"))
    assert page.mistakes == []
    return page


def rows_of(page: Page) -> list[list[str]]:
    """The cells of the first table, row by row."""
    width = page.of("th").index("Accuracy, file") + 1
    cells = page.of("td")
    return [cells[start : start + width] for start in range(0, len(cells), width)]


def test_overview_compares_the_forms(tmp_path: Path) -> None:
    page = overview(tmp_path, {"pad-slice": report(), "gather": report(max_abs=1e-6, psnr=150.0)})
    rows = rows_of(page)
    figures = ["18 bytes", "7.63e-06", "139.2 dB", "99.95 %", "97.20 %", "97.10 %"]
    assert rows[0] == ["pad-slice" + FILE, "holds", "100", *figures]
    assert rows[1][:5] == ["gather" + FILE, "holds", "101", "18 bytes", "1e-06"]
    assert page.of("section")[0] == "Parity holds for both artifacts"
    assert "Details: pad-slice" in page.of("h2")
    assert "./forms/gather/report.html" in {attrs.get("href") for _, attrs in page.elements}
    # The other artifact has no report yet, and a link to nothing is worse than none.
    assert "./forms/pad-slice/report.html" not in {attrs.get("href") for _, attrs in page.elements}
    assert page.of("td").count(f"model.fp32.tensorrt-rtx.sm86.enginesha256 {'ab' * 6}, from {FILE}") == 3


def test_overview_says_who_fails(tmp_path: Path) -> None:
    page = overview(tmp_path, {"pad-slice": report(), "gather": report(max_abs=3.0), "slice-concat": None})
    assert "Parity FAILS for gather" in page.of("section")[0]
    assert [row[1] for row in rows_of(page)[:3]] == ["holds", "FAILS", "not measured"]
    assert page.of("li")[0].startswith(
        f"gather: {FILE} on held-out digits (1,000 images): output 'logits': max abs difference 3 > "
    )


def test_overview_without_evidence_is_no_pass(tmp_path: Path) -> None:
    page = overview(tmp_path, {"pad-slice": report(), "gather": None})
    assert "Parity is not shown for every artifact" in page.of("section")[0]
    assert "s2mlp-deploy parity s2mlpv2_nano gather" in page.of("pre")


def test_numbers_never_round_to_perfection() -> None:
    assert fmt.percent(1.0) == "100 %"
    assert fmt.percent(0.999999) == "99.99 %"
    assert fmt.percent(0.000001) == "0.01 %"
    assert fmt.percent(0) == "0 %"
    assert fmt.cosine(0.99999999999) == "0.9999999"
    assert fmt.cosine(-1e308) == "-1e+308", "of a damaged record"
    assert [fmt.size(value) for value in (999, 999_960, 2_000_000_000)] == ["999 bytes", "1.0 MB", "2.0 GB"]
    assert [fmt.seconds(value) for value in (0.5, 61)] == ["0.50 s", "1 min 01 s"]


def test_long_names_break_at_their_joints_and_short_words_never(tmp_path: Path) -> None:
    long = replace(build(), engine="model.int8-trt.openvino.cpu.engine", version="2026")
    text = write_report(artifact(tmp_path, build_a=long, parity_a=report())).read_text("utf-8")
    assert '<td data-label="Engine">model.<wbr>int8-trt.<wbr>openvino.<wbr>cpu.<wbr>engine<' in text
    assert f'.json">{FILE}<span class="note">' in text, "it is short"
    hostile = replace(long, engine="a" * 40 + "<b>")
    text = write_report(artifact(tmp_path, build_a=hostile)).read_text("utf-8")
    assert f'<td data-label="Engine" class="long">{"a" * 40}&lt;b&gt;<' in text


def test_no_line_ends_within_a_number_a_date_or_an_option(tmp_path: Path) -> None:
    doubt = "other programs took 3.0 % and 7 samples: more --rounds"
    text = write_report(artifact(tmp_path, parity_a=report(), bench_x=replace(bench(), warnings=(doubt,)))).read_text()
    assert "99.95&nbsp;%" in text
    assert 'took 3.0&nbsp;% and 7 samples: more <span class="unbroken">--rounds</span>' in text
    assert '<span class="unbroken">2026-11-27</span> 21:55 UTC' in text
    assert '<span class="unbroken">7.63e-06</span>' in text


def test_an_engine_without_profiles_whose_batch_is_free_is_not_called_fixed(tmp_path: Path) -> None:
    free = TensorInfo("image", "float32", ("batch", 1, 28, 28))
    for inputs, told in (((free,), "image: batch×1×28×28any size where named"), ((), "fixed")):
        page = page_of(artifact(tmp_path, build_a=replace(build(), profiles=(), inputs=inputs)))
        assert told in page.of("td")
