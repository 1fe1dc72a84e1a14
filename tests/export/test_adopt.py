"""ONNX files of anybody's on their way to the canonical graph."""

from __future__ import annotations

from pathlib import Path

import foreign_graphs
import numpy as np
import onnx
import pytest
from onnx_sources import DYNAMO, TORCHSCRIPT, adopted, parsed, written

from s2mlp_deploy.api.adopting import adopt_model, runtime
from s2mlp_deploy.errors import ExportError
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.graph.modules import SCOPES
from s2mlp_deploy.sources.onnx_file import open_onnx


@pytest.mark.parametrize("text", [DYNAMO, TORCHSCRIPT], ids=["dynamo", "torchscript"])
def test_code_in_place_is_one_shift_again(text: str, tmp_path: Path) -> None:
    path = written(tmp_path / "net.onnx", text)
    found = adopted(path)
    (shift,) = found.shifts
    assert [(group.channels, group.offsets) for group in shift.spec.groups] == [(2, (1,)), (2, (0,))]
    assert (shift.spec.axes, shift.spec.channel_axis, shift.spec.border) == ((1,), 3, "keep")
    assert shift.origin.sizes > 2
    lowered, _ = lower_shifts(found.model)
    assert not {"ScatterND", "Range", "Shape"} & {node.op_type for node in lowered.graph}
    assert [value.name for value in (*lowered.graph.inputs, *lowered.graph.outputs)] == ["x", "y"]
    for batch in (1, 3, 7):
        x = np.random.default_rng(0).standard_normal((batch, 6, 5, 4)).astype(np.float32)
        (wanted,) = runtime(open_onnx(path, overrides={}).model)({"x": x}).values()
        np.testing.assert_array_equal(runtime(lowered)({"x": x})["y"], wanted)


def test_an_old_opset_is_converted_and_said(tmp_path: Path) -> None:
    text = """
        <ir_version: 6, opset_import: ["": 11]> net (float[N,4] x) => (float[M,4] y) <int64[1] axis = {1}>
        { s = ReduceSum <axes = [1], keepdims = 1> (x) a = Sub(x, s) b = Squeeze <axes = [0]> (a)
          c = Unsqueeze <axes = [0]> (b) y = Softmax <axis = 1> (c) }
    """
    path = written(tmp_path / "old.onnx", text.replace("<int64[1] axis = {1}>", "").replace("N,4", "1,4"))
    found = adopt_model(open_onnx(path, overrides={}))
    assert found.model.opset_imports[""] == 20
    assert found.notes == ("converted from opset 11 to 20",)


def test_names_come_from_the_paths_in_the_file(tmp_path: Path) -> None:
    model = parsed(DYNAMO)
    for node in model.graph.node:
        node.name = f"/stages/stages.0/mixer/{node.op_type}_{node.output[0]}"
    onnx.save(model, tmp_path / "net.onnx")
    found = adopted(tmp_path / "net.onnx")
    assert found.shifts[0].origin.module == "stages.0.mixer"
    assert [node.name for node in found.model.graph if node.domain] == ["stages.0.mixer/Shift"]


def test_a_shift_that_ends_with_a_node_of_no_module_is_named_after_the_code_that_made_it(tmp_path: Path) -> None:
    model = parsed(DYNAMO)
    for node in model.graph.node:
        if node.op_type == "ScatterND":
            entry = node.metadata_props.add()
            entry.key, entry.value = SCOPES, repr(["", "mixer.shifts.0", "slice_scatter"])
    onnx.save(model, tmp_path / "net.onnx")
    found = adopted(tmp_path / "net.onnx")
    assert [node.name for node in found.model.graph if node.domain] == ["mixer.shifts.0/Shift"]


def test_the_code_in_the_file_is_the_origin_of_the_shift(tmp_path: Path) -> None:
    model = parsed(DYNAMO)
    for node in model.graph.node:
        entry = node.metadata_props.add()
        entry.key = "pkg.torch.onnx.stack_trace"
        entry.value = 'File "/home/user/net.py", line 12, in forward\n    x[:, 1:] = x[:, :-1]\n'
    onnx.save(model, tmp_path / "net.onnx")
    origin = adopted(tmp_path / "net.onnx").shifts[0].origin
    assert (origin.line, origin.code) == ("net.py:12", "x[:, 1:] = x[:, :-1]")


def test_a_table_that_the_input_decides_stays(tmp_path: Path) -> None:
    text = DYNAMO.replace("(float[N,6,5,4] x)", "(float[N,6,5,4] x, int64[2,1] table)").replace(
        "table = Unsqueeze(chosen, last)", ""
    )
    found = adopted(written(tmp_path / "net.onnx", text))
    assert not found.shifts
    assert "ScatterND" in {node.op_type for node in found.model.graph}


VENDOR = DYNAMO.replace('["": 20]', '["": 20, "vendor": 1]')


def test_an_operator_of_another_domain_stays(tmp_path: Path) -> None:
    text = VENDOR.replace("y = Sigmoid(b)", "y = vendor.Special(b)")
    found = adopt_model(open_onnx(written(tmp_path / "net.onnx", text), overrides={}))
    # Behind the shift it is in nobody's way.
    assert len(found.shifts) == 1
    lowered, _ = lower_shifts(found.model, others=True)
    assert "vendor" in {node.domain for node in lowered.graph}
    with pytest.raises(ExportError, match="vendor"):
        lower_shifts(found.model)


def test_what_cannot_be_run_is_taken_without_its_shifts(tmp_path: Path) -> None:
    text = VENDOR.replace("a = Relu(x)", "v = vendor.Special(x) a = Relu(v)")
    model = open_onnx(written(tmp_path / "net.onnx", text), overrides={})
    assert model.notes == ("operators of vendor are left as they are",)
    found = adopt_model(model)
    assert not found.shifts
    assert "ScatterND" in {node.op_type for node in found.model.graph}


def test_an_opset_that_nothing_can_be_converted_to_is_refused(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["": 23]> net (float[2,8] x, float[8] w) => (float[2,8] y)
        { y = RMSNormalization <axis = -1> (x, w) }"""
    path = written(tmp_path / "new.onnx", text)
    with pytest.raises(ExportError, match="cannot be converted to 20") as raised:
        adopt_model(open_onnx(path, overrides={}), opset=20)
    assert raised.value.fix is not None
    assert "--opset 23" in raised.value.fix


# Those with outputs without a shape are not valid, and no engine gives text.
REFUSED = {"no shapes", "string output", "TopK", "boolean output", "integer output", "two activations"}


@pytest.mark.parametrize("name", sorted({*foreign_graphs.GRAPHS} - REFUSED))
def test_what_other_exporters_write_computes_the_same(name: str, tmp_path: Path) -> None:
    onnx.save(foreign_graphs.GRAPHS[name](), tmp_path / "net.onnx")
    adopt_model(open_onnx(tmp_path / "net.onnx", overrides={}))
