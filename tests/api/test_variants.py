"""The same network in another layout: float32 computes the same, int8 has the ranges of the artifact's own file."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from s2mlp_deploy import api
from s2mlp_deploy.api.variants import Variants
from s2mlp_deploy.artifact import read_manifest
from s2mlp_deploy.engines.registry import open_graph_file
from s2mlp_deploy.errors import ExportError
from s2mlp_deploy.graph.loading import load_graph

pytest.importorskip("torch")


def outputs(path, x):
    return open_graph_file(path, threads=1).run({"input": x})["logits"]


def decibels(wanted, given):
    return 10 * np.log10(np.square(wanted).sum() / np.square(wanted - given).sum())


def test_another_layout_is_the_same_network_with_the_same_ranges(tmp_path, images):
    from tiny_network import another

    root = tmp_path / "out"
    api.export(another(), root)
    api.quantize(root, api.PrecisionOptions(data=images, samples=8, eval_samples=8, speed_check=False))
    manifest = read_manifest(root)
    variants = Variants(root, manifest, tmp_path / "work")
    own = {variant.precision: variant for variant in variants.own}
    assert list(own) == ["fp32", "int8", "int8-trt"]
    assert variants.own is variants.own, "files are read once"
    assert variants.other_layouts() == ("channels-first",)
    made, notes = variants.of_layout("channels-first")
    assert [(item.precision, item.layout) for item in made] == [
        ("fp32", "channels-first"),
        ("int8-trt", "channels-first"),
    ]
    # Results of convolutions, which a calibration in channels-last has not measured.
    assert "int8 in channels-first was not tried: the calibration has not measured" in "".join(notes)
    assert "`export --layout channels-first --precision int8`" in "".join(notes)
    x = np.random.default_rng(0).standard_normal((4, *manifest.inputs[0].shape[1:])).astype(np.float32)
    wanted = outputs(own["fp32"].path, x)
    np.testing.assert_allclose(outputs(made[0].path, x), wanted, atol=1e-4)
    near = decibels(wanted, outputs(own["int8-trt"].path, x))
    assert decibels(wanted, outputs(made[1].path, x)) > near - 1
    # What stays in higher precision there is told of the new file.
    assert {item.file for item in made[1].exceptions} == {"model.int8-trt-tuned.onnx"}
    # It explains itself: a later tuning knows what it is.
    listed = replace(manifest.file("fp32"), path="model.fp32-tuned.onnx", sha256=made[0].sha256)
    made[0].path.replace(root / listed.path)
    again = Variants(root, replace(manifest, files=(*manifest.files, listed)), tmp_path / "work").own
    assert [(item.layout, item.file) for item in again if item.precision == "fp32"] == [
        ("channels-last", "model.fp32.onnx"),
        ("channels-first", "model.fp32-tuned.onnx"),
    ]


def test_a_network_of_ones_own_has_the_layout_of_its_code(artifact, tmp_path, monkeypatch):
    manifest = read_manifest(artifact)
    foreign = replace(manifest, source=replace(manifest.source, reference="net.py:make"))
    with pytest.raises(ExportError, match="in their code"):
        Variants(artifact, foreign, tmp_path).other_layouts()
    monkeypatch.setattr("s2mlp_deploy.api.variants.importlib.util.find_spec", lambda _: None)
    with pytest.raises(ExportError, match="torch, which is not installed"):
        Variants(artifact, manifest, tmp_path).other_layouts()


def operators(variant):
    return Counter(node.op_type for node in load_graph(variant.path).model.graph)


def test_passes_are_left_out_of_the_zoos_and_run_on_what_lacks_them(tmp_path, images, monkeypatch):
    from tiny_network import another

    root = tmp_path / "out"
    api.export(another(), root)
    api.quantize(root, api.PrecisionOptions(data=images, samples=8, eval_samples=8, speed_check=False))
    variants = Variants(root, read_manifest(root), tmp_path / "work")
    own = {variant.precision: variant for variant in variants.own}
    assert {variant.passes for variant in own.values()} == {"as exported"}
    none = variants.of_passes(own["fp32"])
    assert (none.passes, none.precision, none.layout, none.form) == (
        "none",
        "fp32",
        own["fp32"].layout,
        own["fp32"].form,
    )
    assert operators(own["fp32"])["Gemm"] > operators(none)["Gemm"]
    assert operators(none)["ReduceSum"] > operators(own["fp32"])["ReduceSum"], "sums are no products there"
    x = np.random.default_rng(0).standard_normal((4, *read_manifest(root).inputs[0].shape[1:])).astype(np.float32)
    wanted = outputs(own["fp32"].path, x)
    np.testing.assert_allclose(outputs(none.path, x), wanted, atol=1e-4)
    quantized = variants.of_passes(own["int8-trt"])
    assert (quantized.precision, quantized.passes) == ("int8-trt", "none")
    near = decibels(wanted, outputs(own["int8-trt"].path, x))
    assert decibels(wanted, outputs(quantized.path, x)) > near - 1
    monkeypatch.setattr("s2mlp_deploy.export.faster.FASTER", ())
    with pytest.raises(ExportError, match="no graph pass applies"):
        variants.of_passes(own["fp32"])
    monkeypatch.undo()
    # Programs hold the weights, and are built again when they are wanted.
    assert list(variants._captured) == ["channels-last"]
    variants.release(keep=["channels-first"])
    assert not variants._captured
    assert not variants._canonical
    # An ONNX file has had none of them, whatever is known of its network.
    foreign = tmp_path / "foreign"
    api.export(api.load(str(none.path)), foreign, shift_form="pad-slice")
    of_file = Variants(foreign, read_manifest(foreign), tmp_path / "more")
    (given,) = of_file.own
    every = of_file.of_passes(given)
    assert (every.passes, every.form) == ("all", "pad-slice")
    assert operators(every)["Gemm"] == operators(own["fp32"])["Gemm"]
    np.testing.assert_allclose(outputs(every.path, x), wanted, atol=1e-4)
    # It says so itself, and has nothing more to gain.
    manifest = read_manifest(foreign)
    listed = replace(manifest.file("fp32"), path="model.fp32-tuned.onnx", sha256=every.sha256)
    every.path.replace(foreign / listed.path)
    again = Variants(foreign, replace(manifest, files=(*manifest.files, listed)), tmp_path / "more").own
    assert [item.passes for item in again] == ["as exported", "all"]


def test_passes_that_cannot_be_left_out_are_told(artifact, tmp_path, monkeypatch):
    manifest = read_manifest(artifact)
    foreign = replace(manifest, source=replace(manifest.source, reference="net.py:make"))
    variants = Variants(artifact, foreign, tmp_path)
    with pytest.raises(ExportError, match="every graph pass that applies"):
        variants.of_passes(variants.own[0])
    monkeypatch.setattr("s2mlp_deploy.api.variants.importlib.util.find_spec", lambda _: None)
    with pytest.raises(ExportError, match="torch, which is not installed"):
        Variants(artifact, manifest, tmp_path).of_passes(variants.own[0])
