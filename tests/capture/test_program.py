"""Capturing a module: what is refused before anything is written, and that the module stays as it was."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from small_products import Applied
from torch import Tensor, nn
from torch.export import Dim

from s2mlp_deploy.capture.axes import input_shapes
from s2mlp_deploy.capture.frames import line_of_stack
from s2mlp_deploy.capture.program import capture
from s2mlp_deploy.errors import ExportError
from s2mlp_deploy.shift.op import shift
from s2mlp_deploy.shift.spec import ShiftSpec

FOUR_WAYS = ShiftSpec.equal_groups(8, [(1, 0), (-1, 0), (0, 1), (0, -1)], axes=(2, 3), channel_axis=1)
EXAMPLE = [torch.zeros(2, 3, 4, 4)]


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.last(self.drop(shift(self.first(image), FOUR_WAYS)))


class TestProgram:
    def test_has_one_node_per_shift(self) -> None:
        program = capture(Small(), EXAMPLE).program
        targets = Counter(node.target for node in program.graph.nodes if node.op == "call_function")
        assert targets[torch.ops.s2mlp.shift.default] == 1

    @pytest.mark.parametrize("batch", [1, 2])
    def test_takes_every_batch_whatever_the_example_has(self, batch: int) -> None:
        module = Small().eval()
        captured = capture(module, [torch.zeros(batch, 3, 4, 4)])
        assert captured.notes == ()
        for size in (1, 2, 5):
            x = torch.randn(size, 3, 4, 4)
            assert torch.equal(captured.program.module()(x), module(x))

    def test_height_and_width_may_change_where_asked(self) -> None:
        module = Small().eval()
        program = capture(module, EXAMPLE, dynamic=("batch", "height", "width")).program
        for size in ((1, 3, 1, 1), (3, 3, 7, 2)):
            x = torch.randn(size)
            assert torch.equal(program.module()(x), module(x))

    def test_volumes_have_a_depth_beside_them(self) -> None:
        module = Applied(lambda _, x: x.roll(1, 2) + x.roll(-1, 3)).eval()
        every = capture(module, [torch.zeros(2, 3, 4, 5, 6)], dynamic=("batch", "depth", "height", "width")).program
        assert input_shapes(every) == [("batch", 3, "depth", "height", "width")]
        x = torch.randn(1, 3, 2, 7, 3)
        assert torch.equal(every.module()(x), module(x))
        depth = capture(module, [torch.zeros(2, 3, 4, 5, 6)], dynamic=("depth",)).program
        assert input_shapes(depth) == [(2, 3, "depth", 5, 6)]

    def test_writes_into_the_pieces_of_a_chunk_become_values(self) -> None:
        """With gradients on, torch.export refuses them."""

        class Writing(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.scale = nn.Parameter(torch.ones(()))

            def forward(self, x: Tensor) -> Tensor:
                pieces = (x * self.scale).chunk(2, 1)
                pieces[0][:, :, 1:] = 0
                return torch.cat(pieces, 1)

        assert torch.is_grad_enabled()
        program = capture(Writing(), [torch.ones(2, 4, 3, 3)]).program
        assert program.module()(torch.ones(1, 4, 3, 3)).sum() == 2 * 3 + 2 * 9
        assert torch.is_grad_enabled()
        written = [node for node in program.graph.nodes if str(node.target).rpartition(".")[0].endswith("_")]
        assert written == []

    def test_overlapping_copies_become_the_papers_shift(self) -> None:
        """Eager torch smears the first row; the captured program reads everything before it writes."""

        class InPlace(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                x = x.clone()
                x[:, 1:, :, :2] = x[:, :-1, :, :2]
                return x

        program = capture(InPlace(), [torch.zeros(2, 5, 4, 4)]).program
        x = torch.randn(3, 5, 4, 4)
        expected = shift(x, ShiftSpec.equal_groups(4, [(1,), (0,)], axes=(1,), channel_axis=3))
        assert torch.equal(program.run_decompositions().module()(x), expected)

    def test_inputs_share_the_batch(self) -> None:
        class Adding(nn.Module):
            def forward(self, left: Tensor, right: Tensor) -> Tensor:
                return left + right

        captured = capture(Adding(), [torch.zeros(2, 3), torch.zeros(2, 3)])
        assert captured.input_names == ("left", "right")
        assert captured.program.module()(torch.zeros(5, 3), torch.ones(5, 3)).shape == (5, 3)

    def test_an_exported_program_is_taken_as_it_is(self) -> None:
        module = Small().eval()
        program = torch.export.export(module, tuple(EXAMPLE))
        captured = capture(program, EXAMPLE)
        x = torch.randn(2, 3, 4, 4)
        assert torch.equal(captured.program.module()(x), module(x))


class TestNames:
    def test_of_inputs_are_those_of_forward(self) -> None:
        captured = capture(Small(), EXAMPLE)
        assert (captured.input_names, captured.output_names) == (("image",), ("output",))

    def test_may_be_given(self) -> None:
        captured = capture(Small(), EXAMPLE, input_names=["input"], output_names=["logits"])
        assert (captured.input_names, captured.output_names) == (("input",), ("logits",))

    def test_of_outputs_follow_what_forward_returns(self) -> None:
        class Several(nn.Module):
            def forward(self, x: Tensor) -> dict[str, Tensor | tuple[Tensor, ...]]:
                return {"logits": x + 1, "features": (x + 2, x + 3)}

        assert capture(Several(), [torch.zeros(2, 3)]).output_names == ("logits", "features_0", "features_1")


class Deciding(Small):
    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image) if image.sum() > 0 else super().forward(-image)


class TestModuleStaysAsItWas:
    @pytest.mark.parametrize("training", [True, False])
    def test_in_its_mode_and_captured_in_evaluation(self, training: bool) -> None:
        module = Small().train(training)
        program = capture(module, EXAMPLE).program
        assert [child.training for child in module.modules()] == [training] * 4
        x = torch.randn(3, 3, 4, 4)
        assert torch.equal(program.module()(x), module.eval()(x))

    @pytest.mark.parametrize("training", [True, False])
    def test_where_one_child_is_in_another_mode(self, training: bool) -> None:
        """Frozen norms in a network that is being trained, for example."""
        module = Small().train(training)
        module.drop.train(not training)
        before = {name: child.training for name, child in module.named_modules()}
        capture(module, EXAMPLE)
        assert {name: child.training for name, child in module.named_modules()} == before

    def test_after_a_failure(self) -> None:
        module = Deciding().train()
        with pytest.raises(ExportError):
            capture(module, EXAMPLE)
        assert module.training


class TestRefusals:
    def test_a_fixed_batch_is_noted_and_other_fixed_axes_are_refused(self) -> None:
        class Fixed(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x.reshape(2, 3, 16)

        captured = capture(Fixed(), EXAMPLE)
        assert len(captured.notes) == 1
        assert "batch" in captured.notes[0]
        assert captured.program.module()(EXAMPLE[0]).shape == (2, 3, 16)
        with pytest.raises(ExportError) as raised:
            capture(Fixed(), EXAMPLE, dynamic=("height",))
        assert raised.value.fix

    @pytest.mark.parametrize(
        ("shape", "dynamic", "missing"),
        [
            ((2, 3, 4, 4), ("batch", "depth", "height"), "depth"),
            ((2, 3, 4), ("batch", "height", "width"), "height or width"),
            ((2, 3, 4, 4, 4, 4), ("width",), "width"),
        ],
    )
    def test_axes_that_no_input_has_are_refused(self, shape, dynamic, missing) -> None:
        with pytest.raises(ExportError, match=f"no input has a {missing}: .* inputs of {len(shape)} axes") as raised:
            capture(Applied(lambda _, x: x * 2), [torch.zeros(shape)], dynamic=dynamic)
        assert raised.value.fix == f"leave {missing.replace(' or ', ' and ')} out of --dynamic"
        rest = tuple(axis for axis in dynamic if axis not in missing)
        capture(Applied(lambda _, x: x * 2), [torch.zeros(shape)], dynamic=rest)

    def test_a_program_frees_no_axis_that_it_fixes(self) -> None:
        free = torch.export.export(Applied(lambda _, x: x * 2), tuple(EXAMPLE), dynamic_shapes=({2: Dim("rows")},))
        assert input_shapes(capture(free, EXAMPLE, dynamic=("batch", "height")).program) == [(2, 3, "height", 4)]
        with pytest.raises(ExportError, match="the program fixes its width") as raised:
            capture(free, EXAMPLE, dynamic=("batch", "height", "width"))
        assert raised.value.fix.startswith("leave width out of --dynamic")


def _through_a_function(x: Tensor) -> Tensor:
    return torch.roll(x, 1, 2)


class Calling(nn.Module):
    """The work is done in a method and in a function of the file."""

    def mix(self, image: Tensor) -> Tensor:
        return _through_a_function(image.relu())

    def forward(self, image: Tensor) -> Tensor:
        return self.mix(image)


def test_nodes_know_the_line_of_the_helper_that_made_them() -> None:
    nodes = {node.name: node for node in capture(Calling(), EXAMPLE).program.graph.nodes}
    lines = {name: line_of_stack(nodes[name].meta.get("stack_trace")) for name in ("roll", "relu")}
    assert {name: line.code for name, line in lines.items() if line} == {
        "roll": "return torch.roll(x, 1, 2)",
        "relu": "return _through_a_function(image.relu())",
    }


class Rolling(nn.Module):
    """Rolls by one row up to a size of an axis, by two rows from there on."""

    def __init__(self, axis: int, size: int) -> None:
        super().__init__()
        self.axis, self.size = axis, size

    def forward(self, x: Tensor) -> Tensor:
        return (x * 2).roll(1 if x.shape[self.axis] < self.size else 2, 2)


class Fraction(nn.Module):
    """torch.export keeps the rounding of a float as a guard and says nothing of it in the range of the height."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * 2).roll(int(x.shape[2] * 0.02) + 1, 2)


class TestLimits:
    EXAMPLE = (torch.rand(2, 4, 20, 24),)

    def test_a_limited_batch_is_fixed_with_a_note(self) -> None:
        captured = capture(Rolling(0, 5), self.EXAMPLE)
        assert captured.notes[0].startswith("the batch is fixed: ")
        assert "<= 4" in captured.notes[0]
        assert input_shapes(captured.program) == [(2, 4, 20, 24)]

    def test_an_upper_bound_is_noted(self) -> None:
        captured = capture(Rolling(2, 100), self.EXAMPLE, dynamic=("batch", "height", "width"))
        assert captured.notes == ("the height of x is at most 99",)
        x = torch.rand(3, 4, 99, 7)
        assert torch.equal(captured.program.module()(x), Rolling(2, 100)(x))

    def test_a_guard_that_is_no_range_is_found(self) -> None:
        with pytest.raises(ExportError, match="height cannot be free: at 50, Guard failed"):
            capture(Fraction(), self.EXAMPLE, dynamic=("height",))

    def test_bounds_of_a_program_are_noted(self) -> None:
        program = torch.export.export(Rolling(0, 5), self.EXAMPLE, dynamic_shapes=({0: Dim("n", min=1, max=4)},))
        assert capture(program, self.EXAMPLE).notes == ("the batch of x is at most 4",)


class AroundTorch(nn.Module):
    """Writes into the memory of a tensor behind torch's back."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x.data[:, :2, 1:] = x.data[:, :2, :-1].clone()
        return x


def test_a_write_through_data_is_told_with_its_line_and_what_to_write_instead() -> None:
    with pytest.raises(ExportError, match=r"through `\.data`") as raised:
        capture(AroundTorch(), EXAMPLE)
    assert "x.data[:, :2, 1:] = x.data[:, :2, :-1].clone()" in str(raised.value.where)
    assert "detach()" in raised.value.fix
