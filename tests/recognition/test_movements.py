"""Movements that are no shift in plain steps: of index maps, of ONNX files and of programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_sources import adopted, parsed, written
from torch import Tensor, nn

from s2mlp_deploy.api.adopting import runtime
from s2mlp_deploy.export.analysis import analyze
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.recognition.fixed import Entry, find_plan
from s2mlp_deploy.recognition.plan import cost, in_words, run

BATCH = frozenset({0})


def numbered(*shapes: tuple[int, ...]) -> list[Tensor]:
    found, start = [], 1
    for shape in shapes:
        count = int(np.prod(shape))
        found.append(torch.arange(start, start + count, dtype=torch.int32).reshape(shape))
        start += count
    return found


def written_as(moved: Tensor, *sources: Tensor) -> str:
    """The operators of a plan whose first axis is free, after it was run on the map and on another batch."""
    plan = find_plan(moved, [Entry(source, BATCH) for source in sources], BATCH)
    assert plan is not None
    assert torch.equal(run(plan, sources), moved)
    assert cost(plan, [source.shape for source in sources]).microseconds > 0
    return in_words(plan)


def window(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 4:, 4:] = x[:, :4, :4]
    return y


def padded(x: Tensor) -> Tensor:
    y = torch.zeros(len(x), 12, 11, 6, dtype=x.dtype)
    y[:, 1:9, 2:10] = x
    return y


def stuffed(x: Tensor) -> Tensor:
    y = torch.zeros(len(x), 16, 16, 6, dtype=x.dtype)
    y[:, ::2, ::2] = x
    return y


@pytest.mark.parametrize(
    ("moved", "operators"),
    [
        (lambda x: x.flip(1, 2), "Slice"),
        (lambda x: x[:, ::2, 1::2], "Slice"),
        (lambda x: x[:, [3, 1, 0, 2, 7, 5, 6, 4]], "Gather"),
        (padded, "Pad"),
        (stuffed, "Reshape, Pad"),
        (lambda x: x.reshape(-1, 2, 4, 2, 4, 6).permute(0, 1, 3, 2, 4, 5), "Reshape, Transpose"),
        (lambda x: x.reshape(-1, 8, 8, 3, 2).transpose(3, 4).reshape(x.shape), "Reshape, Transpose"),
        (lambda x: x.reshape(-1, 2, 4, 8, 6).flip(2).reshape(x.shape), "Reshape, Slice"),
        (window, "Reshape, Gather"),
        (lambda x: x.reshape(-1, 8, 8, 3, 2).permute(0, 1, 4, 2, 3).reshape(-1, 16, 8, 3), "Reshape, Transpose"),
    ],
)
def test_a_map_is_written_in_few_steps(moved: Callable[[Tensor], Tensor], operators: str) -> None:
    (x,) = numbered((2, 8, 8, 6))
    assert written_as(moved(x), x) == operators


def test_parts_of_two_tensors_are_joined() -> None:
    a, b = numbered((2, 64, 64, 16), (2, 64, 64, 16))
    pasted = a.clone()
    pasted[:, 8:40, 8:40] = b[:, :32, :32]
    assert "Concat" in written_as(pasted, a, b)


@pytest.mark.parametrize("moved", [lambda x: torch.full_like(x, -1), torch.zeros_like])
def test_memory_that_was_never_written_has_no_plan(moved: Callable[[Tensor], Tensor]) -> None:
    (x,) = numbered((2, 4, 4))
    assert find_plan(moved(x), [Entry(x, BATCH)], BATCH) is None


def test_a_map_that_mixes_the_batch_has_no_plan() -> None:
    (x,) = numbered((2, 4, 4))
    assert find_plan(x.transpose(0, 1).reshape(x.shape), [Entry(x, BATCH)], BATCH) is None


@st.composite
def movements(draw: Any) -> list[Callable[[Any], Any]]:
    """Up to four steps in numpy's words, each on an array of any size."""
    axes = st.integers(1, 3)
    found: list[Callable[[Any], Any]] = []
    for kind in draw(
        st.lists(st.sampled_from(["flip", "swap", "pad", "step", "perm", "write", "zero"]), min_size=1, max_size=4)
    ):
        a, b, seed = draw(axes), draw(axes), draw(st.integers(0, 99))

        def step(x: Any, kind: str = kind, a: int = a, b: int = b, seed: int = seed) -> Any:
            if kind == "flip":
                return np.flip(x, a)
            if kind == "swap":
                return np.swapaxes(x, a, b)
            if kind == "pad":
                return np.pad(x, [(1, 2) if axis == a else (0, 0) for axis in range(x.ndim)])
            if kind == "step":
                return np.moveaxis(np.moveaxis(x, a, 0)[:: 1 + (x.shape[a] > 2)], 0, a)
            if kind == "perm":
                return np.take(x, np.random.default_rng(seed).permutation(x.shape[a]), a)
            y = np.moveaxis(x.copy(), a, 0)
            half = len(y) // 2
            y[half : 2 * half] = 0 if kind == "zero" else np.moveaxis(x, a, 0)[:half]
            return np.moveaxis(y, 0, a)

        found.append(step)
    return found


@settings(max_examples=60, deadline=None)
@given(movements())
def test_plans_move_numbers_as_numpy_does(chain: list[Callable[[Any], Any]]) -> None:
    (x,) = numbered((2, 4, 3, 4))
    moved = x.numpy()
    for step in chain:
        moved = step(moved)
    plan = find_plan(torch.from_numpy(np.ascontiguousarray(moved)), [Entry(x, BATCH)], BATCH)
    if plan is None:
        assert not moved.any()
        return
    values = np.random.default_rng(0).standard_normal((5, 4, 3, 4)).astype(np.float32)
    wanted = values
    for step in chain:
        wanted = step(wanted)
    assert np.array_equal(run(plan, [torch.from_numpy(values)]).numpy(), wanted)


HEAD = """
    <ir_version: 8, opset_import: ["": 18]>
    net (float[N,4,6] x) => (float[N,a,b] y)
"""
FILES = {
    # x[:, perm] as torch.onnx.export(dynamo=True) writes it.
    "tokens": """<int64[4,1] table = {2, 0, 3, 1}>
        { a = Relu(x)  t = Transpose <perm = [1, 0, 2]> (a)  g = GatherND (t, table)
          b = Transpose <perm = [1, 0, 2]> (g)  y = Relu(b) }""",
    # y[:, perm] = x.
    "put": """<int64[4,1] table = {2, 0, 3, 1}, float none = {0}>
        { a = Relu(x)  s = Shape(a)  e = Expand(none, s)  z = Transpose <perm = [1, 0, 2]> (e)
          t = Transpose <perm = [1, 0, 2]> (a)  g = ScatterND (z, table, t)
          b = Transpose <perm = [1, 0, 2]> (g)  y = Relu(b) }""",
    # A row written over another one.
    "rows": """<int64[2,1] to = {1, 3}, int64[1] zero = {0}, int64[1] two = {2}>
        { a = Relu(x)  t = Transpose <perm = [1, 0, 2]> (a)  u = Slice(t, zero, two, zero)
          g = ScatterND (t, to, u)  b = Transpose <perm = [1, 0, 2]> (g)  y = Relu(b) }""",
    # Padding by writing into zeros, whose sizes stand beside a free batch.
    "padding": """<float none = {0}, int64[1] zero = {0}, int64[1] one = {1}, int64[1] tail = {8}, int64 o = {0},
          int64[1] last = {-1}, int64[1] five = {5}, int64 i = {1}, int64[1] six = {6}, int64 l = {1}>
        { a = Relu(x)  s = Shape <end = 1> (a)  w = Concat <axis = 0> (s, tail, six)  e = Expand(none, w)
          z = Transpose <perm = [1, 0, 2]> (e)  n = Shape(e)  h = Gather(n, i)  all = Range(o, h, l)
          rows = Slice(all, one, five, zero)  places = Unsqueeze(rows, last)
          t = Transpose <perm = [1, 0, 2]> (a)  g = ScatterND (z, places, t)
          b = Transpose <perm = [1, 0, 2]> (g)  y = Relu(b) }""",
}


def counts(model: Any) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


@pytest.mark.parametrize("name", FILES)
def test_a_file_keeps_no_scatter_where_the_rule_is_fixed(tmp_path: Path, name: str) -> None:
    text = HEAD + FILES[name]
    found = adopted(written(tmp_path / "net.onnx", text))
    (movement,) = found.movements
    assert movement.origin.sizes > 1
    assert any("by a fixed rule" in note for note in found.notes)
    model, _ = lower_shifts(found.model)
    assert not {"ScatterND", "GatherND", "Transpose", "Range"} & set(counts(model))
    original = onnx.reference.ReferenceEvaluator(parsed(text))
    for batch in (1, 3):
        x = np.random.default_rng(0).standard_normal((batch, 4, 6)).astype(np.float32)
        assert np.array_equal(runtime(model)({"x": x})["y"], original.run(None, {"x": x})[0])


@pytest.mark.parametrize(
    "body",
    [
        # Where elements go is read from the input.
        """{ a = Relu(x)  t = Cast <to = 7> (a)  y = GatherElements <axis = 1> (a, t) }""",
        # Plain as it is.
        """<int64[1] one = {1}, int64[1] end = {9}> { a = Relu(x)  b = Slice(a, one, end, one)  y = Relu(b) }""",
        """{ a = Relu(x)  b = Transpose <perm = [0, 2, 1]> (a)  y = Relu(b) }""",
        # It adds.
        """<int64[1,1] to = {0}, float[1,4,6] u = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18,
            19, 20, 21, 22, 23}> { a = Relu(x)  y = ScatterND <reduction = "add"> (a, to, u) }""",
    ],
)
def test_what_is_plain_or_no_fixed_movement_stays(tmp_path: Path, body: str) -> None:
    text = HEAD + body
    found = adopted(written(tmp_path / "net.onnx", text))
    assert not found.movements
    assert counts(found.model) == Counter(node.op_type for node in parsed(text).graph.node)


class Assigned(nn.Module):
    """Windows written one by one, as in-place code partitions an image."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + 1
        y = x.new_zeros(x.shape[0], 4, 4, 3)
        for row in range(2):
            for column in range(2):
                window = x[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
                y[:, 2 * row + column] = window.reshape(x.shape[0], 4, 3)
        return y * 2


class Permuted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.tensor([2, 0, 3, 1]))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.zeros_like(x)
        y[:, self.table] = x + 1
        return y * 2


class Reversed(nn.Module):
    """Frames of a clip turned round, in some channels; as many clips as the batch holds."""

    def forward(self, x: Tensor) -> Tensor:
        x = (x + 1).view(-1, 4, 4, 3)
        y = x.clone()
        y[:, :, :, :1] = x.flip(1)[:, :, :, :1]
        return y.view(-1, 4, 3) * 2


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        pytest.param(Permuted(), (2, 4, 3), id="permuted"),
        pytest.param(Assigned(), (2, 4, 4, 3), id="assigned", marks=pytest.mark.slow),
        pytest.param(Reversed(), (8, 4, 3), id="reversed", marks=pytest.mark.slow),
    ],
)
def test_a_program_has_no_scatter_where_the_rule_is_fixed(module: nn.Module, shape: tuple[int, ...]) -> None:
    found = analyze(module, (torch.randn(shape),))
    program = found.captured.program
    assert found.movements
    assert not [n for n in program.graph.nodes if "scatter" in str(n.target) or "index_put" in str(n.target)]
    for batch in (shape[0], 2 * shape[0]):
        x = torch.randn(batch, *shape[1:])
        assert torch.equal(program.module(check_guards=False)(x), module(x.clone()))
