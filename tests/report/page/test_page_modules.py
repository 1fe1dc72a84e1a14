"""The modules of a file as a tree and as an icicle chart: what is put together, what is said, what is left out."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from report_samples import FILE, SHA, artifact, bench, build, layer, layers, manifest, modules, page_of

from s2mlp_deploy.artifact import NETWORK
from s2mlp_deploy.evidence.layers import LayerParity, LayersReport
from s2mlp_deploy.evidence.modules import ModuleRecord, ModulesReport
from s2mlp_deploy.evidence.profile import UNATTRIBUTED, NodeTime, Profile
from s2mlp_deploy.evidence.store import read_evidence
from s2mlp_deploy.report.page.icicle import Icicle, view_icicles
from s2mlp_deploy.report.page.module_tree import Module, tree_of

PROFILE = Profile(
    3,
    9.0,
    (
        NodeTime("stages.0.blocks.0.mlp.fc1/MatMul", "MatMul", "stages.0.blocks.0.mlp.fc1", 6.0),
        NodeTime("stages.0.blocks.1.norm/LayerNormalization", "LayerNormalization", "stages.0.blocks.1.norm", 1.0),
        # Of no module of the file: the network's own, as what converts an input is.
        NodeTime("image/QuantizeLinear", "QuantizeLinear", "image", 1.0),
        NodeTime("BiasGelu", "BiasGelu", "", 2.0),
        NodeTime("odd", "Add", "head", float("inf")),
    ),
)


def paths(root: Module) -> list[tuple[int, str, str]]:
    return [(depth, module.path, module.name) for depth, module in root.walk()]


def test_containers_that_do_nothing_are_part_of_the_names_inside():
    root = tree_of(modules(), None, ())
    assert paths(root) == [
        (0, "", "network"),
        (1, "stages.0", "stages.0"),
        (2, "stages.0.blocks.0", "blocks.0"),
        (3, "stages.0.blocks.0.norm", "norm"),
        (3, "stages.0.blocks.0.mlp.fc1", "mlp.fc1"),
        (2, "stages.0.blocks.1", "blocks.1"),
        (3, "stages.0.blocks.1.norm", "norm"),
        (3, "stages.0.blocks.1.mlp.fc1", "mlp.fc1"),
        (1, "head", "head"),
    ]
    # What only the container had is not lost.
    assert root.bytes == 2 * (64 + 4096) + 1024 + 16
    assert root.matrix == {"fp32": 3}


def test_times_are_summed_upwards_and_none_is_lost():
    root = tree_of(modules(), PROFILE, ())
    times = {module.path: module.ms for _, module in root.walk()}
    assert root.ms == 10.0
    assert times["stages.0.blocks.0"] == times["stages.0.blocks.0.mlp.fc1"] == 6.0
    assert (times["head"], times[UNATTRIBUTED]) == (0.0, 2.0)
    assert (root.matrix_ms, root.children[0].children[0].matrix_ms) == (6.0, 6.0)


def test_errors_belong_to_every_module_that_ends_with_the_value():
    inside = replace(layer("stages.0.blocks.0.mlp.fc1", 2e-6), ends=("stages.0.blocks.0",))
    root = tree_of(modules(), None, (inside, layer("head", 1.0), layer("logits", kind="output"), layer("nowhere")))
    strains = {module.path: module.strain for _, module in root.walk()}
    assert strains["stages.0.blocks.0"] == strains["stages.0.blocks.0.mlp.fc1"]
    assert strains["stages.0.blocks.1"] is None
    assert strains["head"] > 1
    # What leaves the network itself are its outputs; where they were not compared, the worst inside is told.
    assert strains[""] < 1
    assert tree_of(modules(), None, (layer("head", 1.0),)).strain == strains["head"]


def test_a_path_of_thousands_of_parts_is_cut():
    deep = ModulesReport(FILE, "fp32", SHA, (ModuleRecord("a." * 5000 + "a", {"Add": 1}, {"fp32": 4}, {}),))
    assert len(list(tree_of(deep, None, ()).walk())) < 40


def compared(*found: LayerParity) -> LayersReport:
    """Whatever the weights."""
    return replace(layers(*found), weights=None)


def charts(directory: Path, **evidence: object) -> tuple[Icicle, ...]:
    path = artifact(directory, **evidence)
    return view_icicles(manifest(), read_evidence(path))


def test_width_is_time_where_there_are_times_else_size(tmp_path: Path):
    (timed,) = charts(tmp_path / "a", modules_a=modules(), bench_a=bench())
    assert timed.title == f"{FILE} on onnxruntime, batch 1"
    assert timed.timed
    assert "--u:100%" in timed.boxes[0].style
    assert any(note.startswith("Not GEMM or Conv: 25.0 %: BiasGelu") for note in timed.notes)
    assert any("25.0 % of the time is of nodes" in note for note in timed.notes)
    (sized,) = charts(tmp_path / "b", modules_a=modules())
    assert not sized.timed
    assert "--u" not in sized.boxes[0].style
    assert any("width is size" in note for note in sized.notes)
    assert sized.colourings == ("precision", "size")
    # An older version wrote the artifact: the times are drawn all the same.
    (old,) = charts(tmp_path / "c", bench_a=bench())
    assert [box.name for box in old.boxes] == ["network", "fc1", UNATTRIBUTED]
    assert charts(tmp_path / "d") == ()


def test_the_table_has_a_column_for_what_was_measured_and_no_other(tmp_path: Path):
    (sized,) = charts(tmp_path / "a", modules_a=modules())
    assert sized.modules.columns == ("Module", "Weights", "Computes in")
    assert sized.modules.numeric == {1}
    assert {len(row) for row in sized.modules.rows} == {3}
    (timed,) = charts(tmp_path / "b", bench_a=bench())
    assert timed.modules.columns == ("Module", "ms", "Share", "Of it GEMM or Conv")
    (both,) = charts(tmp_path / "c", modules_a=modules(), bench_a=bench(), layers_a=compared(layer("head")))
    assert both.modules.columns[-3:] == ("Weights", "Computes in", "Max abs")
    assert both.modules.numeric == {1, 2, 3, 4}


def test_times_of_other_threads_have_a_title_of_their_own(tmp_path: Path):
    (first, *_), run = bench().results, bench()
    more = replace(run, results=(replace(first, candidate=replace(first.candidate, threads=2)),))
    found = charts(tmp_path, modules_a=modules(), bench_a=run, bench_b=more)
    assert [chart.title for chart in found] == [
        f"{FILE} on onnxruntime, batch 1, {n}" for n in ("1 thread", "2 threads")
    ]


def test_what_is_of_other_bytes_is_not_drawn(tmp_path: Path):
    stale = replace(compared(layer("head", 1.0)), file_sha256="1" * 64)
    assert charts(tmp_path / "a", modules_a=modules(sha256="1" * 64)) == ()
    (chart,) = charts(tmp_path / "b", modules_a=modules(), layers_a=stale)
    assert "error" not in chart.colourings
    assert any("were not compared" in note for note in chart.notes)


def test_an_engine_has_its_own_times_and_its_own_errors(tmp_path: Path):
    (first, *_), run = bench().results, bench()
    elsewhere = replace(first, candidate=replace(first.candidate, engine="openvino"))
    here, there = charts(
        tmp_path,
        modules_a=modules(),
        bench_a=replace(run, results=(first, elsewhere)),
        layers_a=compared(layer("head")),
        layers_b=replace(compared(layer("head", 1.0)), candidate="openvino (CPU)"),
    )
    assert [here.title, there.title] == [f"{FILE} on onnxruntime, batch 1", f"{FILE} on openvino, batch 1"]
    assert "layers of onnxruntime (CPU) compared" in here.summary
    assert "layers of openvino (CPU) compared" in there.summary
    assert "every layer within its limit" in here.summary
    assert "first past its limit: head" in there.summary


def test_an_engine_is_drawn_with_the_modules_of_the_file_it_was_built_of(tmp_path: Path):
    (first, *_), run, made = bench().results, bench(), replace(build(), onnx=FILE, onnx_sha256=SHA)
    candidate = replace(first.candidate, file=made.engine, sha256=made.engine_sha256, engine="tensorrt-rtx")
    timed = replace(run, results=(replace(first, candidate=candidate),))
    (_, engine) = charts(tmp_path / "a", modules_a=modules(), bench_a=timed, build_a=made)
    assert engine.title == f"{made.engine} on tensorrt-rtx, batch 1"
    assert "size" in engine.colourings
    older = replace(made, onnx_sha256="1" * 64)
    (_, engine) = charts(tmp_path / "b", modules_a=modules(), bench_a=timed, build_a=older)
    assert engine.colourings == ("time",)


def test_boxes_lie_inside_of_the_one_around_them(tmp_path: Path):
    (chart,) = charts(tmp_path, modules_a=modules(), bench_a=bench(), layers_a=compared(layer("head", 1.0)))
    around: list[tuple[float, float]] = []
    for box in chart.boxes:
        left, width = (float(re.search(f"--{name}:([0-9.]+)%", box.style)[1]) for name in "sv")
        del around[box.depth :]
        assert all(low - 0.02 <= left and left + width <= high + 0.02 for low, high in around[-1:])
        around.append((left, left + width))
    assert {(box.prefix, box.name) for box in chart.boxes} >= {("", "network"), ("blocks.", "0"), ("mlp.", "fc1")}
    head = next(box for box in chart.boxes if box.name == "head")
    assert "e6" in head.colours.split()
    assert "Linear" in head.text
    assert "of its limit" in head.text


def test_small_modules_are_left_out_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("s2mlp_deploy.report.page.icicle._MOST_BOXES", 4)
    (chart,) = charts(tmp_path, modules_a=modules())
    assert len(chart.boxes) <= 4
    assert f"{9 - len(chart.boxes)} small modules are drawn as part of those around." in chart.notes


def test_names_of_others_are_escaped_in_drawings(tmp_path: Path):
    evil = '"><script>alert(1)</script>'
    record = ModulesReport(FILE, "fp32", SHA, (ModuleRecord(evil, {evil: 1}, {evil: 4}, {evil: 1}),))
    page = page_of(
        artifact(
            tmp_path, modules_a=record, layers_a=replace(compared(layer(evil, 1.0, evil)), candidate=evil, data=evil)
        )
    )
    (script,) = [attrs for tag, attrs in page.elements if tag == "script"]
    assert not script
    assert page.body.count(evil) > 5
    assert NETWORK not in page.body
