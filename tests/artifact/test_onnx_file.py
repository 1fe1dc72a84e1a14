"""An ONNX file is looked at before a library loads it."""

from __future__ import annotations

import os
import time
import tracemalloc
from pathlib import Path

import onnx
import onnx_graphs as og
import pytest
from onnx import helper
from plain_artifact import perceptron

from s2mlp_deploy.artifact import check_onnx, onnx_file
from s2mlp_deploy.errors import ArtifactError


def refused(path: Path) -> str:
    with pytest.raises(ArtifactError) as caught:
        check_onnx(path)
    assert caught.value.where
    assert caught.value.fix
    return caught.value.problem


def field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


@pytest.fixture
def external(tmp_path):
    """A graph whose weights lie beside it."""

    def make(location: str = "weights.data") -> Path:
        path = tmp_path / "model" / "model.onnx"
        path.parent.mkdir(exist_ok=True)
        made = perceptron()
        onnx.save(made, path, save_as_external_data=True, location="weights.data", size_threshold=100)
        made = onnx.load(path, load_external_data=False)
        for tensor in made.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        return og.save(made, path)

    return make


def test_a_graph_passes_and_names_the_files_of_its_weights(tmp_path, external):
    assert check_onnx(og.save(perceptron(), tmp_path / "one.onnx")) == ()
    assert check_onnx(external()) == ("weights.data",)


def test_weights_in_attributes_of_nodes_of_subgraphs_are_seen(tmp_path, external):
    tensor = next(t for t in onnx.load(external(), load_external_data=False).graph.initializer if t.external_data)
    inner = helper.make_graph(
        [og.node("Constant", [], ["y"], value=tensor)], "inner", [], [og.value("y", og.FLOAT, [])]
    )
    outer = og.node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    made = og.model([outer], [og.value("c", onnx.TensorProto.BOOL, [])], [og.value("y", og.FLOAT, [])])
    assert "missing" in refused(og.save(made, tmp_path / "if.onnx"))
    made = og.model([], [], [])
    made.functions.append(helper.make_function("d", "f", [], ["y"], [outer], [helper.make_opsetid("", 20)]))
    made.graph.node.append(og.node("f", [], ["y"], domain="d"))
    assert "missing" in refused(og.save(made, tmp_path / "function.onnx"))


@pytest.mark.parametrize(
    "location", ["../out.data", "sub/../../out.data", "link/out.data", "/etc/passwd", "a\0b", "loop"]
)
def test_weights_outside_of_the_folder_are_refused(tmp_path, external, location):
    path = external(location)
    (tmp_path / "out.data").write_bytes(bytes(10_000))
    (path.parent / "link").symlink_to("..")
    (path.parent / "loop").symlink_to("loop")
    assert "outside of its folder" in refused(path)


def test_weights_that_are_a_link_to_elsewhere_are_refused(tmp_path, external):
    path = external()
    (path.parent / "weights.data").rename(tmp_path / "out.data")
    (path.parent / "weights.data").symlink_to(tmp_path / "out.data")
    assert "outside of its folder" in refused(path)
    (path.parent / "weights.data").unlink()
    assert "missing: weights.data" in refused(path)
    os.mkfifo(path.parent / "weights.data")
    assert "missing: weights.data" in refused(path)


BROKEN = {
    "empty": b"",
    "text": b"no protobuf at all, just some text",
    "cut": field(7, field(1, b"\x22\x04Relu"))[:-2],
    "no graph": b"\x08\x0a",
    "group": b"\x0b",
    "endless varint": b"\x80" * 2_000_000,
    "long varint": field(7, b"\x08" + b"\xff" * 11),
    "length": b"\x3a\xff\xff\xff\xff\x7f",
    "fixed": b"\x3a\x00\x0d\x00",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_onnx_is_said(tmp_path, kind):
    (tmp_path / "x.onnx").write_bytes(BROKEN[kind])
    assert "no" in refused(tmp_path / "x.onnx")


def test_pipes_devices_folders_and_endless_links_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "loop.onnx").symlink_to("loop.onnx")
    for path in (tmp_path / "pipe.onnx", tmp_path / "loop.onnx", tmp_path, Path("/dev/zero"), tmp_path / "none.onnx"):
        refused(path)


BOMBS = {
    "nodes": lambda n: field(7, b"\x0a\x00" * n),
    "tensors": lambda n: field(7, b"\x2a\x00" * n),
    "attributes": lambda n: field(7, field(1, b"\x2a\x00" * n)),
    "dimensions": lambda n: field(7, field(5, b"\x08\x01" * n)),
    "metadata": lambda n: field(7, b"") + b"\x72\x00" * n,
}


@pytest.mark.parametrize("kind", BOMBS)
def test_very_many_empty_parts_are_refused_without_making_them(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(onnx_file, "MAX_PARTS", 10_000)
    (tmp_path / "x.onnx").write_bytes(BOMBS[kind](200_000))
    tracemalloc.start()
    assert "more than 10,000 parts" in refused(tmp_path / "x.onnx")
    assert tracemalloc.get_traced_memory()[1] < 200_000
    tracemalloc.stop()


def test_the_real_limit_is_reached_within_seconds(tmp_path):
    (tmp_path / "x.onnx").write_bytes(BOMBS["tensors"](4_000_000))
    start = time.process_time()
    assert "more than 1,000,000 parts" in refused(tmp_path / "x.onnx")
    assert time.process_time() - start < 10


def test_graphs_in_graphs_end_somewhere(tmp_path):
    graph = b""
    for _ in range(200):
        graph = field(1, field(5, field(6, graph)))
    (tmp_path / "x.onnx").write_bytes(field(7, graph))
    assert "nested more than 64 deep" in refused(tmp_path / "x.onnx")


def chain(tmp_path, calls: dict[str, list[str]]) -> Path:
    made = og.model([og.node("f0", ["x"], ["y"], domain="d")], [og.value("x", 1, [])], [og.value("y", 1, [])])
    for name, called in calls.items():
        nodes = [og.node(other, ["x"], ["y"], domain="d") for other in called] or [og.node("Relu", ["x"], ["y"])]
        made.functions.append(helper.make_function("d", name, ["x"], ["y"], nodes, [helper.make_opsetid("d", 1)]))
    return og.save(made, tmp_path / "x.onnx")


def test_functions_that_double_forty_times_are_refused(tmp_path):
    assert check_onnx(chain(tmp_path, {f"f{i}": [f"f{i + 1}"] for i in range(5000)} | {"f5000": []})) == ()
    assert check_onnx(chain(tmp_path, {f"f{i}": [f"f{i + 1}"] * 2 for i in range(19)} | {"f19": []})) == ()
    start = time.process_time()
    text = refused(chain(tmp_path, {f"f{i}": [f"f{i + 1}"] * 2 for i in range(40)} | {"f40": []}))
    assert "more than 1,000,000 nodes" in text
    assert time.process_time() - start < 2


@pytest.mark.parametrize("calls", [{"f0": ["f0"]}, {"f0": ["f1"], "f1": ["f2"], "f2": ["f1"]}])
def test_functions_that_call_themselves_are_refused(tmp_path, calls):
    assert "calls itself" in refused(chain(tmp_path, calls))


def test_weights_in_very_many_files_are_refused(tmp_path, monkeypatch, external):
    monkeypatch.setattr(onnx_file, "MAX_WEIGHT_FILES", 0)
    assert "more than 0 files" in refused(external())
