"""Every form that this package writes, read back as a foreign file: the shift is found, and written in other forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from one_shift import Shape, model_of, one_shift, runner, shift_node
from onnx_sources import adopted

from s2mlp_deploy.export.forms import FORMS
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.shift.spec import BORDERS, Border, ShiftSpec

FOUR = [(1, 0), (-1, 0), (0, 1), (0, -1)]
HIGH, WIDE, CHANNELS = 5, 4, 64
LAYOUTS: dict[str, tuple[Shape, tuple[int, int], int]] = {
    "channels-last": ((HIGH, WIDE, CHANNELS), (1, 2), 3),
    "channels-first": ((CHANNELS, HIGH, WIDE), (2, 3), 1),
}


def spec_of(layout: str, border: Border = "keep", steps: list[tuple[int, int]] = FOUR) -> ShiftSpec:
    _, axes, channel_axis = LAYOUTS[layout]
    return ShiftSpec.equal_groups(CHANNELS, steps, axes=axes, channel_axis=channel_axis, border=border)


def in_rows(batch: int | str, spec: ShiftSpec) -> ir.Model:
    """A shift between operators on rows, as passes leave it between Gemms: nothing has the sizes of an image."""
    kind = ir.TensorType(ir.DataType.FLOAT)
    count = batch * HIGH * WIDE if isinstance(batch, int) else None
    shapes = {"rows": [count, CHANNELS], "image": [batch, HIGH, WIDE, CHANNELS]}

    def value(name: str, shape: str) -> ir.Value:
        return ir.Value(name=name, type=kind, shape=ir.Shape(shapes[shape]))

    def op(kind: str, source: ir.Value, target: ir.Value, *sizes: int) -> ir.Node:
        constants = [ir.Value(name=f"{target.name}.shape", const_value=ir.tensor(np.array(sizes)))] if sizes else []
        return ir.Node("", kind, [source, *constants], outputs=[target], name=str(target.name))

    x = ir.Value(name="input", type=kind, shape=ir.Shape([batch, CHANNELS, HIGH * WIDE]))
    turned = ir.Value(name="turned", type=kind, shape=ir.Shape([batch, HIGH * WIDE, CHANNELS]))
    rows, before, image = value("rows", "rows"), value("before", "rows"), value("image", "image")
    moved = shift_node(image, spec, "blocks.0.shift/Shift", "shifted")
    after, output = value("after", "rows"), value("output", "rows")
    nodes = [
        ir.Node("", "Transpose", [x], {"perm": ir.AttrInt64s("perm", [0, 2, 1])}, outputs=[turned], name="turned"),
        op("Reshape", turned, rows, -1, CHANNELS),
        op("Relu", rows, before),
        op("Reshape", before, image, -1, HIGH, WIDE, CHANNELS),
        moved,
        op("Reshape", moved.outputs[0], after, -1, CHANNELS),
        op("Relu", after, output),
    ]
    model = model_of(x, nodes, output)
    for node in nodes:
        for constant in node.inputs[1:]:
            assert constant is not None
            model.graph.register_initializer(constant)
    return model


def read_back(model: ir.Model, form: str, path: Path, shape: tuple[int, ...], others: tuple[str, ...]) -> ShiftSpec:
    """The shift of a file in a form; its numbers must stay in the other forms."""
    lowered, _ = lower_shifts(model, FORMS[form])
    ir.save(lowered, path)
    found = adopted(path)
    assert not [miss.reason for miss in found.near_misses]
    (record,) = found.shifts
    assert sum(bool(node.domain) for node in found.model.graph) == 1
    dtype = lowered.graph.inputs[0].dtype
    assert dtype is not None
    x = np.random.default_rng(0).integers(-100, 100, shape).astype(dtype.numpy())
    wanted = runner(lowered)(x)
    for other in others:
        np.testing.assert_array_equal(runner(lower_shifts(found.model, FORMS[other])[0])(x), wanted)
    return record.spec


@pytest.mark.parametrize("batch", ["batch", 2])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_one_shift_again(form: str, layout: str, batch: int | str, tmp_path: Path) -> None:
    sizes, spec = LAYOUTS[layout][0], spec_of(layout)
    model = one_shift((batch, *sizes), spec, relu=True)
    assert read_back(model, form, tmp_path / "net.onnx", (2, *sizes), tuple(FORMS)) == spec


@pytest.mark.parametrize("batch", ["batch", 2])
@pytest.mark.parametrize("form", FORMS)
def test_between_rows_too(form: str, batch: int | str, tmp_path: Path) -> None:
    spec = spec_of("channels-last")
    shape = (2, CHANNELS, HIGH * WIDE)
    assert read_back(in_rows(batch, spec), form, tmp_path / "net.onnx", shape, tuple(FORMS)) == spec


@pytest.mark.parametrize("border", [border for border in BORDERS if border != "keep"])
@pytest.mark.parametrize("form", FORMS)
def test_with_every_border(form: str, border: Border, tmp_path: Path) -> None:
    spec = spec_of("channels-last", border, [(2, 1), (-1, 0), (0, 1), (1, -1)])
    shape = (2, CHANNELS, HIGH * WIDE)
    assert read_back(in_rows("batch", spec), form, tmp_path / "net.onnx", shape, ("slice-concat",)) == spec


@pytest.mark.parametrize("dtype", [ir.DataType.INT8, ir.DataType.UINT8])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", [form for form in FORMS if form != "grouped-conv"])
def test_integers_are_shifted_too(form: str, layout: str, dtype: ir.DataType, tmp_path: Path) -> None:
    sizes, spec = LAYOUTS[layout][0], spec_of(layout)
    model = one_shift(("batch", *sizes), spec, dtype=dtype)
    others = tuple(other for other in FORMS if other != "grouped-conv")
    assert read_back(model, form, tmp_path / "net.onnx", (2, *sizes), others) == spec
