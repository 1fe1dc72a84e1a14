"""`auto`: what a shift costs in a form, and which form is chosen."""

from __future__ import annotations

import onnx_ir as ir
import pytest
import torch
from one_shift import model_of, one_shift, shift_node
from per_channel import per_channel
from torch import nn

from s2mlp_deploy.capture.program import capture
from s2mlp_deploy.export.analysis import analyze
from s2mlp_deploy.export.canonical import to_canonical
from s2mlp_deploy.export.forms import FORMS, choose
from s2mlp_deploy.export.forms.cost import Cost, cost_of
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.export.rewrite import rewrite_shifts
from s2mlp_deploy.export.shift_node import example_of, note_example
from s2mlp_deploy.models.registry import MODELS
from s2mlp_deploy.shift.op import shift
from s2mlp_deploy.shift.origin import CONVOLUTION
from s2mlp_deploy.shift.spec import BORDERS, Border, ShiftGroup, ShiftSpec

FLOAT = ir.DataType.FLOAT
PAPER = [(1, 0), (-1, 0), (0, 1), (0, -1)]
Sizes = tuple[int, ...]


def paper(channels: int, side: int, layout: str, border: Border = "keep") -> tuple[ShiftSpec, Sizes]:
    """The papers' shift of a square of tokens."""
    first = layout == "channels-first"
    spec = ShiftSpec.equal_groups(
        channels, PAPER, axes=(2, 3) if first else (1, 2), channel_axis=1 if first else 3, border=border
    )
    return spec, (1, channels, side, side) if first else (1, side, side, channels)


def chosen(sizes: Sizes, spec: ShiftSpec, idiom: str = "roll", dtype: ir.DataType = FLOAT) -> str:
    return choose(spec, sizes, dtype, idiom).name


class TestCost:
    """Counted by hand for a float32 tensor [1, 4, 3, 5] whose first two channels move one column to the right."""

    SPEC = ShiftSpec((ShiftGroup(2, (1,)), ShiftGroup(2, (0,))), (3,), 1, "keep")
    SIZES = (1, 4, 3, 5)
    WHOLE = 4 * 3 * 5 * 4
    """Bytes."""

    @pytest.mark.parametrize(
        ("form", "expected"),
        [
            # Body and rim of two channels (6 rows of 4 and of 1), their Concat (6 rows, 2 inputs), the two channels
            # that stay (one piece), and the Concat of both.
            ("slice-concat", Cost(5, 0, 2 * WHOLE + WHOLE // 2, 6 + 6 + 12 + 1 + 2, 0, 0, 0)),
            # Twelve rows and as many repeated elements, six pieces from one window, six from the other, two joined.
            ("pad-slice", Cost(4, 0, WHOLE * 6 // 5 + 2 * WHOLE, 12 + 12 + 6 + 6 + 2, 0, 0, 0)),
            # Twelve rows padded; the convolution has two taps.
            ("grouped-conv", Cost(2, 0, WHOLE * 6 // 5 + WHOLE, 24, 0, 0, 60 * 2)),
            # Columns forward and back; a row for each of 4 * 5 columns.
            ("row-gather", Cost(3, 4, WHOLE, 0, 20, 2 * WHOLE, 0)),
        ],
    )
    def test_of_each_form(self, form: str, expected: Cost) -> None:
        assert cost_of(FORMS[form], self.SPEC, self.SIZES, FLOAT, 20) == expected

    def test_of_half_the_bytes(self) -> None:
        half = cost_of(FORMS["pad-slice"], self.SPEC, self.SIZES, ir.DataType.FLOAT16, 20)
        whole = cost_of(FORMS["pad-slice"], self.SPEC, self.SIZES, FLOAT, 20)
        assert (half.bytes * 2, half.runs) == (whole.bytes, whole.runs)

    def test_zeros_are_padded_without_reading_elements(self) -> None:
        zero = ShiftSpec(self.SPEC.groups, self.SPEC.axes, 1, "zero")
        runs = [cost_of(FORMS["pad-slice"], spec, self.SIZES, FLOAT, 20).runs for spec in (self.SPEC, zero)]
        assert runs[0] - runs[1] == 12
        assert cost_of(FORMS["grouped-conv"], zero, self.SIZES, FLOAT, 20).nodes == 1

    @pytest.mark.parametrize("field", ["nodes", "views", "bytes", "runs", "rows", "turned", "products"])
    def test_everything_has_a_price(self, field: str) -> None:
        assert Cost(**{field: 1000}).microseconds > 0


class TestChoice:
    @pytest.mark.parametrize("layout", ["channels-first", "channels-last"])
    @pytest.mark.parametrize(("channels", "side"), [(384, 14), (768, 14), (192, 32), (384, 16), (256, 32), (512, 16)])
    def test_of_the_papers_shift(self, channels: int, side: int, layout: str) -> None:
        wanted = {"channels-first": "slice-concat", "channels-last": "row-gather"}
        assert chosen(*reversed(paper(channels, side, layout))) == wanted[layout]

    def test_zeros_have_no_table(self) -> None:
        assert chosen(*reversed(paper(384, 16, "channels-last", "zero"))) in ("slice-concat", "pad-slice")

    @pytest.mark.parametrize("border", ["zero", "circular", "edge"])
    @pytest.mark.parametrize("steps", ["cycle-of-rows", "cycle-of-columns", "neighbours"])
    def test_one_channel_a_group_is_gathered(self, steps: str, border: Border) -> None:
        shape, spec = per_channel(steps, "NCHW", border, channels=192, size=(28, 28), batch=1)
        assert chosen(shape, spec) == "row-gather"

    def test_every_channel_its_own_step_is_gathered(self) -> None:
        shape, spec = per_channel("own-step", "NCHW", "circular", channels=96, size=(20, 20), batch=1)
        assert chosen(shape, spec) == "row-gather"

    def test_elements_apart_are_turned_together_first(self) -> None:
        shape, spec = per_channel("cycle-of-columns", "NHWC", "zero", channels=96, size=(28, 28), batch=1)
        assert chosen(shape, spec) == "row-gather"

    def test_few_channels_of_large_images_are_copied_piece_by_piece(self) -> None:
        shape, spec = per_channel("neighbours", "NCHW", "zero", channels=20, size=(200, 200), batch=1)
        assert chosen(shape, spec) in ("slice-concat", "pad-slice")

    def test_small_tensors_take_few_nodes(self) -> None:
        spec, sizes = paper(8, 5, "channels-last", "zero")
        nodes = {name: cost_of(form, spec, sizes, FLOAT, 20).nodes for name, form in FORMS.items()}
        assert nodes[chosen(sizes, spec)] < nodes["slice-concat"] / 2

    @pytest.mark.parametrize("border", BORDERS)
    def test_what_the_source_copies_is_never_convolved(self, border: Border) -> None:
        for steps in ("cycle-of-rows", "neighbours"):
            for place in ("NCHW", "NHWC"):
                for side in (4, 14, 28):
                    shape, spec = per_channel(steps, place, border, channels=60, size=(side, side), batch=1)
                    assert chosen(shape, spec, "slice assignment, roll, pad") != "grouped-conv"

    def test_what_the_source_convolves_stays_a_convolution(self) -> None:
        shape, spec = per_channel("neighbours", "NCHW", "circular", channels=64, size=(96, 96), batch=1)
        assert chosen(shape, spec, f"{CONVOLUTION}, pad") == "grouped-conv"

    def test_but_not_one_over_the_whole_image(self) -> None:
        shape, spec = per_channel("own-step", "NCHW", "circular", channels=64, size=(28, 28), batch=1)
        assert chosen(shape, spec, CONVOLUTION) == "row-gather"

    def test_nor_one_that_no_runtime_has(self) -> None:
        spec = ShiftSpec((ShiftGroup(2, (1,)), ShiftGroup(2, (-1,))), (2,), 1, "zero")
        assert chosen((1, 4, 3, 3, 3, 3), spec, CONVOLUTION) != "grouped-conv"
        assert chosen((1, 4, 30, 30), spec, CONVOLUTION, ir.DataType.INT32) != "grouped-conv"


class TestAuto:
    def test_each_shift_gets_its_own_form(self) -> None:
        shape, cycle = per_channel("cycle-of-rows", "NCHW", "zero", channels=192, size=(28, 28), batch=1)
        spec, _ = paper(192, 28, "channels-first")
        x = ir.Value(name="input", type=ir.TensorType(FLOAT), shape=ir.Shape(shape))
        first = shift_node(x, cycle, "a/Shift", "middle")
        second = shift_node(first.outputs[0], spec, "b/Shift", "output")
        model, records = lower_shifts(model_of(x, [first, second], second.outputs[0]))
        assert [record.form for record in records] == ["row-gather", "slice-concat"]
        assert sum(record.nodes for record in records) == len(model.graph)

    def test_of_the_zoos_graphs(self) -> None:
        """All but the nano, whose tensors are small."""
        wanted = {"channels-first": "slice-concat", "channels-last": "row-gather"}
        for name, entry in MODELS.items():
            config = entry.config
            side = config.image_size[0]
            for channels, patch in zip(config.dims, config.patches, strict=True):
                side //= patch
                for layout in ("channels-first", "channels-last"):
                    spec, sizes = paper(channels, side, layout)
                    if "nano" not in name:
                        assert chosen(sizes, spec) == wanted[layout], (name, channels, side, layout)

    def test_free_sizes_count_as_the_examples(self) -> None:
        class Net(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return shift(x[:, :, ::2, ::2], self.spec)

        net = Net()
        net.spec = paper(8, 4, "channels-first")[0]
        captured = capture(net, [torch.zeros(2, 8, 44, 60)], dynamic=("batch", "height", "width"))
        rewrite_shifts(captured.program)
        (node,) = [node for node in to_canonical(captured).graph if node.op_type == "Shift"]
        assert example_of(node) == (2, 8, 22, 30)

    def test_sizes_in_a_function_that_onnx_ir_cannot_read_count_as_common_ones(self) -> None:
        spec = ShiftSpec.equal_groups(8, [(1, 0), (0, 1)], axes=(2, 3), channel_axis=1)
        (node,) = one_shift(("s1", 8, "2*s0 + (PythonMod(-2*s0 - 2, 4)) + 2", "s0"), spec).graph
        note_example(node, {"s0": 5, "s1": 3})
        assert example_of(node) == (3, 8, 32, 5)

    def test_free_sizes_without_an_example_count_as_common_ones(self) -> None:
        spec, _ = paper(8, 4, "channels-first")
        (node,) = one_shift(("batch", 8, "height", 7), spec).graph
        assert example_of(node) == (1, 8, 32, 7)

    def test_what_is_inspected_is_what_is_written(self) -> None:
        class Net(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                for spec in self.specs:
                    x = shift(x, spec) + 1
                return x

        net = Net()
        shape, cycle = per_channel("cycle-of-rows", "NCHW", "zero", channels=120, size=(28, 28), batch=2)
        net.specs = [cycle, paper(120, 28, "channels-first")[0]]
        analysis = analyze(net, [torch.zeros(shape)])
        told = [record.form for record in analysis.with_forms()]
        assert told == ["row-gather", "slice-concat"]
        assert told == [record.form for record in lower_shifts(to_canonical(analysis.captured))[1]]
