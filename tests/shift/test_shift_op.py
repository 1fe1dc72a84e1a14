"""The operator ``s2mlp::shift``: its values, its gradients, and its manners towards torch."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shift_reference import LAYOUTS, STEPS, case, cases, numbered, shift_reference
from torch import Tensor, nn

from s2mlp_deploy.errors import ShiftError
from s2mlp_deploy.shift.op import shift
from s2mlp_deploy.shift.spec import BORDERS, Border, ShiftGroup, ShiftSpec

DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int8,
    torch.uint8,
    torch.int32,
    torch.int64,
    torch.bool,
    torch.complex64,
)


def bits(x: Tensor) -> np.ndarray:
    """The tensor's bit patterns: NumPy knows no bfloat16. All-zero bits are 0 in every dtype."""
    same_size = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    return x.contiguous().view(same_size).numpy()


def assert_shifted(x: Tensor, spec: ShiftSpec) -> None:
    result = shift(x, spec)
    assert result.dtype == x.dtype
    assert result.is_contiguous()
    np.testing.assert_array_equal(bits(result), shift_reference(bits(x), spec), strict=True)


class TestValues:
    @pytest.mark.parametrize(("rank", "layout", "steps", "border"), cases())
    def test_equals_the_reference(self, rank: int, layout: str, steps: str, border: Border) -> None:
        shape, spec = case(rank, layout, steps, border)
        assert_shifted(torch.from_numpy(numbered(shape)), spec)

    @pytest.mark.parametrize("border", BORDERS)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_moves_every_dtype_bit_for_bit(self, dtype: torch.dtype, border: Border) -> None:
        shape, spec = case(4, "channels-first", "long-diagonal", border)
        x = torch.from_numpy(numbered(shape, np.int64))
        assert_shifted((x % 3 == 0) if dtype == torch.bool else x.to(dtype), spec)

    @pytest.mark.parametrize("border", BORDERS)
    def test_carries_nan_infinity_and_negative_zero(self, border: Border) -> None:
        shape, spec = case(4, "channels-last", "one", border)
        special = torch.tensor([float("nan"), float("inf"), float("-inf"), -0.0, 1e-45])
        assert_shifted(special.repeat(int(np.prod(shape)) // 5 + 1)[: int(np.prod(shape))].reshape(shape), spec)

    @pytest.mark.parametrize("border", BORDERS)
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_reads_strided_input(self, layout: str, border: Border) -> None:
        shape, spec = case(4, layout, "one", border)
        x = torch.from_numpy(numbered(shape))
        for strided in (
            x.transpose(1, 3).contiguous().transpose(1, 3),
            x.contiguous(memory_format=torch.channels_last),
            x.repeat_interleave(2, 3)[..., ::2],
            x[:1].expand(4, -1, -1, -1),
            x.flip(0),
        ):
            assert_shifted(strided, spec)

    @pytest.mark.parametrize("border", BORDERS)
    @pytest.mark.parametrize("shape", [(0, 4, 3, 3), (1, 4, 1, 1), (1, 4, 1, 2), (1, 4, 0, 2)])
    def test_tiny_and_empty_axes(self, shape: tuple[int, ...], border: Border) -> None:
        spec = ShiftSpec.equal_groups(4, STEPS["two"](2), axes=(2, 3), channel_axis=1, border=border)
        assert_shifted(torch.from_numpy(numbered(shape)), spec)

    def test_batch_axis_may_be_absent_or_elsewhere(self) -> None:
        for axes, channel_axis, shape in (((0, 1), 2, (3, 4, 2)), ((2, 0), 1, (3, 2, 4)), ((3, 1), 0, (2, 4, 2, 3))):
            spec = ShiftSpec.equal_groups(2, [(1, -1), (0, 2)], axes=axes, channel_axis=channel_axis)
            assert_shifted(torch.from_numpy(numbered(shape)), spec)

    @settings(max_examples=150, deadline=None)
    @given(st.data())
    def test_any_spec_equals_the_reference(self, data: st.DataObject) -> None:
        sizes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
        channel_axis = data.draw(st.integers(0, len(sizes) - 1))
        others = [axis for axis in range(len(sizes)) if axis != channel_axis]
        axes = tuple(data.draw(st.lists(st.sampled_from(others), unique=True))) if others else ()
        offsets = st.tuples(*[st.integers(-6, 6)] * len(axes))
        groups = data.draw(st.lists(st.builds(ShiftGroup, st.integers(1, 2), offsets), min_size=1, max_size=3))
        spec = ShiftSpec(tuple(groups), axes, channel_axis, data.draw(st.sampled_from(BORDERS)))
        sizes[channel_axis] = spec.channels
        assert_shifted(torch.from_numpy(numbered(tuple(sizes))), spec)

    def test_keep_is_edge_for_one_axis_and_one_cell_and_for_nothing_else(self) -> None:
        def differ(steps: str) -> bool:
            shape, kept = case(4, "channels-first", steps, "keep")
            _, edge = case(4, "channels-first", steps, "edge")
            x = torch.from_numpy(numbered(shape))
            return not torch.equal(shift(x, kept), shift(x, edge))

        assert [steps for steps in ("one", "some-still", "two", "diagonal") if differ(steps)] == ["two", "diagonal"]


class TestRefusals:
    def test_wrong_channels_name_the_fix(self) -> None:
        _, spec = case(4, "channels-first", "one", "keep")
        with pytest.raises(ShiftError, match="groups hold 7 channels, the tensor 6") as raised:
            shift(torch.zeros(1, 6, 4, 4), spec)
        assert raised.value.fix

    def test_wrong_rank(self) -> None:
        _, spec = case(4, "channels-first", "one", "keep")
        with pytest.raises(ShiftError, match="does not fit a tensor of rank 3"):
            shift(torch.zeros(7, 4, 4), spec)

    def test_the_operator_checks_as_well(self) -> None:
        _, spec = case(4, "channels-first", "one", "keep")
        with pytest.raises(ShiftError, match="channels"):
            torch.ops.s2mlp.shift(torch.zeros(1, 6, 4, 4), *spec.op_args())


class TestResultIsNew:
    @pytest.mark.parametrize("border", BORDERS)
    @pytest.mark.parametrize("steps", [*STEPS, "still"])
    def test_never_aliases_and_never_writes_its_input(self, steps: str, border: Border) -> None:
        shape, spec = case(4, "channels-first", "one" if steps == "still" else steps, border)
        if steps == "still":
            spec = ShiftSpec((ShiftGroup(shape[1], (0, 0)),), (2, 3), 1, border)
        x = torch.from_numpy(numbered(shape))
        before = x.clone()
        result = shift(x, spec)
        assert result.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()
        result.fill_(7)
        assert torch.equal(x, before)


class TestGradients:
    @pytest.mark.parametrize("border", BORDERS)
    @pytest.mark.parametrize(
        ("layout", "steps"), [("channels-first", "one"), ("channels-last", "diagonal"), ("channels-first", "one-group")]
    )
    def test_first_and_second_derivatives(self, layout: str, steps: str, border: Border) -> None:
        _, spec = case(4, layout, steps, border)
        shape = (1, spec.channels, 3, 2) if layout == "channels-first" else (1, 3, 2, spec.channels)
        x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
        assert torch.autograd.gradcheck(shift, (x, spec), fast_mode=True)
        # The shift is linear: square it, or there is no second derivative to check.
        assert torch.autograd.gradgradcheck(lambda t: shift(t, spec) ** 2, (x,), fast_mode=True)

    @pytest.mark.parametrize("border", BORDERS)
    @pytest.mark.parametrize("steps", ["two", "beyond-axis", "long-diagonal", "some-still"])
    def test_backward_is_the_transposed_map(self, steps: str, border: Border) -> None:
        shape, spec = case(4, "channels-last", steps, border)
        generator = torch.Generator().manual_seed(1)
        x = torch.randint(-9, 9, shape, generator=generator, dtype=torch.float64).requires_grad_()
        y = torch.randint(-9, 9, shape, generator=generator, dtype=torch.float64)
        (gradient,) = torch.autograd.grad(shift(x, spec), x, y)
        # <S x, y> = <x, Sᵀ y>, exactly: all are small integers.
        assert (shift(x, spec) * y).sum() == (x * gradient).sum()

    def test_a_broadcast_gradient_is_read_right(self) -> None:
        shape, spec = case(4, "channels-first", "one", "edge")
        x = torch.zeros(shape, requires_grad=True)
        shift(x, spec).sum().backward()
        assert x.grad is not None
        assert x.grad.sum() == x.numel()
        # Cells at the border are read twice, those at the other end never.
        assert set(x.grad.unique().tolist()) == {0.0, 1.0, 2.0}


class TestTorch:
    @pytest.mark.parametrize("border", BORDERS)
    @pytest.mark.parametrize("steps", ["diagonal", "one-group"])
    def test_opcheck(self, steps: str, border: Border) -> None:
        shape, spec = case(4, "channels-first", steps, border)
        x = torch.from_numpy(numbered(shape)).transpose(2, 3).contiguous().transpose(2, 3).requires_grad_()
        torch.library.opcheck(torch.ops.s2mlp.shift.default, (x, *spec.op_args()))

    def test_compiles_without_a_graph_break(self) -> None:
        shape, spec = case(4, "channels-last", "one", "keep")
        x = torch.from_numpy(numbered(shape)).requires_grad_()
        compiled = torch.compile(lambda t: shift(t * 2, spec) + 1, fullgraph=True, backend="aot_eager")
        result = compiled(x)
        assert torch.equal(result, shift(x * 2, spec) + 1)
        result.sum().backward()
        assert x.grad is not None
        assert x.grad.sum() == 2 * x.numel()

    @pytest.mark.parametrize("decomposed", [False, True])
    def test_export_keeps_one_node_with_the_spec(self, decomposed: bool) -> None:
        shape, spec = case(4, "channels-first", "one", "circular")

        class Shifting(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return shift(x, spec)

        x = torch.from_numpy(numbered(shape))
        dims = {axis: torch.export.Dim(f"d{axis}", min=1) for axis in (0, 2, 3)}
        program = torch.export.export(Shifting(), (x,), dynamic_shapes=(dims,))
        if decomposed:
            program = program.run_decompositions()
        calls = [node for node in program.graph.nodes if node.op == "call_function"]
        assert Counter(node.target for node in calls) == {torch.ops.s2mlp.shift.default: 1}
        assert ShiftSpec.from_op_args(*calls[0].args[1:]) == spec
        smaller = x[:1, :, :1, :3]
        assert torch.equal(program.module()(smaller), shift(smaller, spec))

    def test_meta_tensors_give_the_shape(self) -> None:
        shape, spec = case(5, "channels-last", "diagonal", "zero")
        result = shift(torch.empty(shape, device="meta", dtype=torch.float16), spec)
        assert (result.shape, result.dtype, result.device.type) == (shape, torch.float16, "meta")
