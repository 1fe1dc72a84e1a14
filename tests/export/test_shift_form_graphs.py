"""The forms really differ in the graph, and lowering keeps everything else as it was."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from one_shift import NAME, assert_same_bits, model_of, one_shift, runner, serialized, shift_node
from shift_reference import LAYOUTS, case, numbered, shift_reference

from s2mlp_deploy.errors import ExportError, InputError
from s2mlp_deploy.export.forms import AUTO, FORMS, ShiftForm, find_form
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.export.shift_node import spec_of
from s2mlp_deploy.shift.spec import BORDERS, Border, ShiftGroup, ShiftSpec

ALL_FORMS = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)

FOUR_WAYS = [(1, 0), (-1, 0), (0, 1), (0, -1)]
SHAPES = {"channels-first": (2, 8, 5, 4), "channels-last": (2, 5, 4, 8)}


def four_ways(layout: str, border: Border = "keep") -> ShiftSpec:
    """The papers' shift."""
    axes, channel_axis = ((2, 3), 1) if layout == "channels-first" else ((1, 2), 3)
    return ShiftSpec.equal_groups(8, FOUR_WAYS, axes=axes, channel_axis=channel_axis, border=border)


def ops_of(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def lowered(form: str, layout: str, border: Border = "keep") -> ir.Model:
    return lower_shifts(one_shift(SHAPES[layout], four_ways(layout, border)), FORMS[form])[0]


class TestOperators:
    EXPECTED: ClassVar[dict[str, dict[str, int]]] = {
        "slice-concat": {"Slice": 8, "Concat": 5},
        "pad-slice": {"Pad": 1, "Slice": 4, "Concat": 1},
        "grouped-conv": {"Pad": 1, "Conv": 1},
        "row-gather": {"Reshape": 6, "Gather": 2, "Transpose": 2},
    }
    CHANNELS_LAST: ClassVar[dict[str, dict[str, int]]] = {
        "grouped-conv": {"Transpose": 2},
        "row-gather": {"Reshape": 10, "Transpose": 6},
    }

    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("form", EXPECTED)
    def test_of_the_papers_shift(self, form: str, layout: str) -> None:
        more = self.CHANNELS_LAST.get(form, {}) if layout == "channels-last" else {}
        assert ops_of(lowered(form, layout)) == self.EXPECTED[form] | more

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_gather_gathers(self, layout: str) -> None:
        ops = ops_of(lowered("gather", layout))
        assert ops["Gather"] == 4
        assert not ops.keys() - {"Gather", "Slice", "Concat"}

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_no_two_forms_write_the_same_graph(self, layout: str) -> None:
        graphs = [tuple(node.op_type for node in lowered(form, layout).graph) for form in FORMS]
        assert len(set(graphs)) == len(FORMS)

    @ALL_FORMS
    @pytest.mark.parametrize("border", BORDERS)
    @pytest.mark.parametrize("steps", ["one", "two", "diagonal", "beyond-axis"])
    def test_never_scatter_and_never_constant_nodes(self, form: ShiftForm, steps: str, border: Border) -> None:
        for rank in (3, 4, 5):
            for layout in LAYOUTS:
                shape, spec = case(rank, layout, steps, border)
                for sizes in (
                    shape,
                    ("batch", *(s if a == spec.channel_axis else f"s{a}" for a, s in enumerate(shape) if a)),
                ):
                    ops = ops_of(lower_shifts(one_shift(sizes, spec), form)[0])
                    assert not {"ScatterND", "ScatterElements", "Constant", "Loop", "If"} & ops.keys()
                    if form.name == "slice-concat":
                        assert not {"Pad", "Conv", "Gather"} & ops.keys()

    @pytest.mark.parametrize(
        "form", [form for form in FORMS.values() if form.name != "row-gather"], ids=lambda f: f.name
    )
    def test_transposes_only_around_a_channels_last_convolution(self, form: ShiftForm) -> None:
        for rank in (3, 4, 5):
            for border in BORDERS:
                for layout in LAYOUTS:
                    shape, spec = case(rank, layout, "two", border)  # type: ignore[arg-type]
                    expected = 2 if (form.name, layout) == ("grouped-conv", "channels-last") else 0
                    assert ops_of(lower_shifts(one_shift(shape, spec), form)[0])["Transpose"] == expected

    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize(
        ("border", "mode"), [("keep", "edge"), ("edge", "edge"), ("zero", "constant"), ("circular", "wrap")]
    )
    @pytest.mark.parametrize("form", ["pad-slice", "grouped-conv"])
    def test_pad_has_the_borders_mode(self, form: str, border: Border, mode: str, layout: str) -> None:
        graph = lowered(form, layout, border).graph
        if (form, border) == ("grouped-conv", "zero"):
            (conv,) = [node for node in graph if node.op_type == "Conv"]
            assert conv.attributes["pads"].as_ints() == (1, 1, 1, 1), "a convolution pads with zeros itself"
            assert not [node for node in graph if node.op_type == "Pad"]
            return
        (pad,) = [node for node in graph if node.op_type == "Pad"]
        assert pad.attributes["mode"].as_string() == mode
        amounts = pad.inputs[1].const_value.numpy().tolist()  # type: ignore[union-attr]
        each = [1 if axis in four_ways(layout).axes else 0 for axis in range(4)]
        assert amounts == each * 2

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_convolution_is_depthwise_with_one_hot_kernels(self, layout: str) -> None:
        (conv,) = [node for node in lowered("grouped-conv", layout).graph if node.op_type == "Conv"]
        kernel = conv.inputs[1].const_value.numpy()  # type: ignore[union-attr]
        assert conv.attributes["group"].as_int() == 8
        assert kernel.shape == (8, 1, 3, 3)
        assert kernel.dtype == np.float32
        for channel, taps in enumerate(kernel[:, 0]):
            down, right = FOUR_WAYS[channel // 2]
            assert np.argwhere(taps).tolist() == [[1 - down, 1 - right]]
            assert taps.sum() == 1
        assert "pads" not in conv.attributes, "a convolution pads with zeros, the shift does not"

    def test_convolution_of_even_steps_leaves_out_what_lies_between(self) -> None:
        spec = ShiftSpec((ShiftGroup(3, (4, 0)), ShiftGroup(5, (-4, 3))), (2, 3), 1, "zero")
        (conv,) = lower_shifts(one_shift((1, 8, 9, 9), spec), FORMS["grouped-conv"])[0].graph
        assert conv.inputs[1].const_value.numpy().shape == (8, 1, 2, 2)  # type: ignore[union-attr]
        assert conv.attributes["dilations"].as_ints() == (8, 3)

    @ALL_FORMS
    @pytest.mark.parametrize("sizes", ["static", "dynamic"])
    @pytest.mark.parametrize("border", BORDERS)
    def test_axes_of_slice_and_pad_are_initializers(self, form: ShiftForm, border: Border, sizes: str) -> None:
        """TensorRT accepts nothing else."""
        shape: tuple[int | str, ...] = SHAPES["channels-last"] if sizes == "static" else ("batch", "height", "width", 8)
        looked = 0
        for spec in (four_ways("channels-last", border), ShiftSpec((ShiftGroup(8, (3, -2)),), (1, 2), 3, border)):
            for node in lower_shifts(one_shift(shape, spec), form)[0].graph:
                if node.op_type in ("Slice", "Pad"):
                    axes = node.inputs[3] if node.op_type == "Slice" else node.inputs[1]
                    assert axes is not None
                    assert axes.is_initializer()
                    assert axes.const_value is not None
                    looked += 1
        none = form.name == "row-gather" or (form.name, border) == ("grouped-conv", "zero")
        assert looked or none, "the others have a Slice or a Pad"

    def test_one_group_of_all_channels_is_not_cut(self) -> None:
        spec = ShiftSpec((ShiftGroup(8, (1, 0)),), (2, 3), 1, "edge")
        for form, expected in (("slice-concat", {"Slice": 2, "Concat": 1}), ("pad-slice", {"Pad": 1, "Slice": 1})):
            assert ops_of(lower_shifts(one_shift((1, 8, 5, 4), spec), FORMS[form])[0]) == expected


class TestLowering:
    @ALL_FORMS
    def test_leaves_the_canonical_model_as_it_was(self, form: ShiftForm) -> None:
        canonical = one_shift(SHAPES["channels-last"], four_ways("channels-last"), relu=True)
        before = serialized(canonical)
        first = serialized(lower_shifts(canonical, form)[0])
        for other in FORMS.values():
            lower_shifts(canonical, other)
        assert serialized(canonical) == before
        assert serialized(lower_shifts(canonical, form)[0]) == first

    @ALL_FORMS
    def test_says_what_it_did(self, form: ShiftForm) -> None:
        spec = four_ways("channels-first")
        model, (record,) = lower_shifts(one_shift(SHAPES["channels-first"], spec), form)
        assert (record.origin.module, record.spec, record.form) == ("blocks.0.shift", spec, form.name)
        assert record.nodes == len(model.graph)

    @ALL_FORMS
    def test_names_new_nodes_after_the_shift_and_keeps_the_others(self, form: ShiftForm) -> None:
        canonical = one_shift(SHAPES["channels-first"], four_ways("channels-first"), relu=True)
        model, _ = lower_shifts(canonical, form)
        names = [node.name for node in model.graph]
        assert (names[0], names[-1]) == ("before", "after")
        assert all(str(name).startswith(NAME + "/") for name in names[1:-1])
        assert len(set(names)) == len(names)
        values = [value.name for node in model.graph for value in node.outputs] + list(model.graph.initializers)
        assert len(set(values)) == len(values)
        assert model.graph[-1].inputs[0].name == "shifted", "who looks for the shift's result finds it in every form"

    @ALL_FORMS
    @pytest.mark.parametrize("sizes", ["static", "dynamic"])
    def test_keeps_the_interface_of_the_graph(self, form: ShiftForm, sizes: str) -> None:
        shape: tuple[int | str, ...] = (
            SHAPES["channels-first"] if sizes == "static" else ("batch", 8, "height", "width")
        )
        model, _ = lower_shifts(one_shift(shape, four_ways("channels-first")), form)
        for value, name in ((model.graph.inputs[0], "input"), (model.graph.outputs[0], "output")):
            assert value.name == name
            assert value.dtype == ir.DataType.FLOAT
            assert [size if isinstance(size, int) else size.value for size in value.shape or ()] == list(shape)

    @ALL_FORMS
    def test_shifts_in_a_row_share_their_constants(self, form: ShiftForm) -> None:
        spec = four_ways("channels-last", "circular")
        shape = SHAPES["channels-last"]
        x = ir.Value(name="input", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))
        first = shift_node(x, spec, "a/Shift", "middle")
        second = shift_node(first.outputs[0], spec, "b/Shift", "output")
        model, records = lower_shifts(model_of(x, [first, second], second.outputs[0]), form)
        alone, _ = lower_shifts(one_shift(shape, spec), form)
        assert [record.origin.module for record in records] == ["a", "b"]
        assert len(model.graph) == 2 * len(alone.graph)
        assert len(model.graph.initializers) == len(alone.graph.initializers)
        onnx.checker.check_model(ir.to_proto(model), full_check=True)
        values = numbered(shape)
        assert_same_bits(runner(model)(values), shift_reference(shift_reference(values, spec), spec))

    @ALL_FORMS
    @pytest.mark.parametrize("relu", [False, True])
    def test_a_shift_that_moves_nothing_disappears(self, form: ShiftForm, relu: bool) -> None:
        spec = ShiftSpec.equal_groups(8, [(0, 0), (0, 0)], axes=(2, 3), channel_axis=1)
        shape = SHAPES["channels-first"]
        model, _ = lower_shifts(one_shift(shape, spec, relu=relu), form)
        assert not set(ops_of(model)) - {"Relu", "Identity"}
        x = numbered(shape)
        assert_same_bits(runner(model)(x), np.maximum(x, 0) if relu else x)

    @ALL_FORMS
    @pytest.mark.parametrize(
        ("offsets", "border", "shape"),
        [((0, 0), "keep", (1, 8, 5, 4)), ((1, 0), "circular", (1, 8, 1, 4)), ((5, 4), "circular", (1, 8, 5, 4))],
    )
    def test_a_shift_of_the_graphs_input_that_moves_nothing_leaves_the_inputs_name(
        self, form: ShiftForm, offsets: tuple[int, int], border: Border, shape: tuple[int, ...]
    ) -> None:
        spec = ShiftSpec((ShiftGroup(8, offsets),), (2, 3), 1, border)
        x = ir.Value(name="input", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))
        node = shift_node(x, spec, "a/Shift", "middle")
        relu = ir.Node("", "Relu", [node.outputs[0]], name="relu")
        relu.outputs[0].name, relu.outputs[0].type, relu.outputs[0].shape = "output", x.type, ir.Shape(shape)
        model, _ = lower_shifts(model_of(x, [node, relu], relu.outputs[0]), form)
        assert [value.name for value in model.graph.inputs] == ["input"]
        values = numbered(shape)
        assert_same_bits(runner(model)(values), np.maximum(values, 0))

    @ALL_FORMS
    def test_a_result_that_is_read_and_is_an_output_keeps_both(self, form: ShiftForm) -> None:
        spec, shape = four_ways("channels-first"), SHAPES["channels-first"]
        canonical = one_shift(shape, spec, relu=True)
        graph = canonical.graph
        graph.outputs.append(next(node for node in graph if node.op_type == "Shift").outputs[0])
        model, _ = lower_shifts(canonical, form)
        assert [value.name for value in model.graph.outputs] == ["output", "shifted"]
        onnx.checker.check_model(ir.to_proto(model), full_check=True)

    @ALL_FORMS
    def test_leaves_no_foreign_domain(self, form: ShiftForm) -> None:
        proto = ir.to_proto(lower_shifts(one_shift(SHAPES["channels-first"], four_ways("channels-first")), form)[0])
        assert [item.domain for item in proto.opset_import] == [""]
        assert {node.domain for node in proto.graph.node} == {""}

    def test_a_foreign_operator_is_refused(self) -> None:
        x = ir.Value(name="input", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1]))
        node = ir.Node("com.example", "Mystery", [x], name="mystery")
        node.outputs[0].name = "output"
        with pytest.raises(ExportError, match=r"com\.example"):
            lower_shifts(model_of(x, [node], node.outputs[0]), FORMS["slice-concat"])

    @pytest.mark.parametrize("border", BORDERS)
    def test_the_specification_is_read_from_the_node(self, border: Border) -> None:
        shape, spec = case(5, "channels-last", "long-diagonal", border)
        assert spec_of(one_shift(shape, spec).graph[0]) == spec


class TestRegistry:
    def test_names_are_the_forms_own(self) -> None:
        assert [form.name for form in FORMS.values()] == list(FORMS)
        assert {"slice-concat", "pad-slice", "grouped-conv", "gather"} <= FORMS.keys()

    def test_a_form_is_chosen_by_its_name(self) -> None:
        assert all(find_form(name) is form for name, form in FORMS.items())
        assert find_form(AUTO) is None

    def test_an_unknown_form_lists_all(self) -> None:
        with pytest.raises(InputError, match="unknown shift form 'scatter'") as raised:
            find_form("scatter")
        assert raised.value.fix is not None
        assert all(name in raised.value.fix for name in FORMS)
