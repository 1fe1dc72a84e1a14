"""Shifts of flattened images, written as tables of rows by anybody."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx_sources import adopted, graph_of, written
from torch import Tensor, nn

from s2mlp_deploy.api.adopting import runtime
from s2mlp_deploy.capture.program import capture
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.export.rewrite import rewrite_shifts
from s2mlp_deploy.recognition.search import recognise
from s2mlp_deploy.shift.op import shift
from s2mlp_deploy.shift.spec import ShiftSpec
from s2mlp_deploy.sources.onnx_file import open_onnx

HIGH, WIDE = 6, 5
FOUR = ShiftSpec.equal_groups(4, [(1, 0), (-1, 0), (0, 1), (0, -1)], axes=(1, 2), channel_axis=3)
ROWS = (shift(torch.arange(HIGH * WIDE * 4).reshape(1, HIGH, WIDE, 4), FOUR) // 4).reshape(-1, 4)
"""For each position and channel the position that is read, [6 * 5, 4]."""
UP, LEFT = ROWS[:, 1], ROWS[:, 3]


class Rows(nn.Module):
    def __init__(self, move: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.move = move

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.move(torch.relu(x)))


def two_tables(rows: Tensor) -> Tensor:
    return torch.cat([rows[:, UP, :2], rows.index_select(1, LEFT)[..., 2:]], 2)


def of_every_channel(rows: Tensor) -> Tensor:
    return rows.gather(1, ROWS.expand(rows.shape[0], -1, -1))


MOVES: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "a table for each group": (lambda x: two_tables(x.flatten(1, 2)), 2),
    "a table for each channel": (lambda x: of_every_channel(x.flatten(1, 2)), 4),
    "of rows of all images": (lambda x: of_every_channel(x.reshape(-1, 4).exp().view(-1, 30, 4)).reshape(-1, 4), 4),
    "of planes": (lambda x: x.permute(0, 3, 1, 2).flatten(2).gather(2, ROWS.T.expand(x.shape[0], -1, -1)), 4),
    "of single elements": (lambda x: x.flatten(1)[:, (ROWS * 4 + torch.arange(4)).flatten()], 4),
    "turned and masked": (
        lambda x: torch.where((torch.arange(30) % WIDE != 0)[:, None], x.flatten(1, 2).roll(1, 1), torch.zeros(1)),
        1,
    ),
}


@pytest.mark.parametrize(("move", "groups"), MOVES.values(), ids=MOVES)
def test_a_program_that_looks_rows_up(move: Callable[[Tensor], Tensor], groups: int) -> None:
    module, x = Rows(move), torch.randn(3, HIGH, WIDE, 4)
    result = rewrite_shifts(capture(module, (x[:2],), dynamic=("batch",)).program)
    (record,) = result.shifts
    assert len(record.spec.groups) == groups
    assert record.origin.sizes > 1
    assert torch.equal(result.program.module()(x), module(x))


def test_take_along_dim() -> None:
    module, x = Rows(lambda x: torch.take_along_dim(x.flatten(1, 2), ROWS[None], 1)), torch.randn(2, HIGH, WIDE, 4)
    (record,) = rewrite_shifts(capture(module, (x,), dynamic=()).program).shifts
    assert record.spec == FOUR


def ints(name: str, table: Tensor) -> str:
    return f"int64[{','.join(map(str, table.shape))}] {name} = {{{','.join(map(str, table.flatten().tolist()))}}}"


PAIRS = torch.stack([ROWS, torch.arange(4).expand(30, 4)], 2)
GRAPHS = {
    "Gather": (
        "r = Reshape(a, flat) u = Gather <axis = 1> (r, up) v = Gather <axis = 1> (r, left) "
        "p, q = Split <axis = 2, num_outputs = 2> (u) s, t = Split <axis = 2, num_outputs = 2> (v) "
        "b = Concat <axis = 2> (p, t)",
        f"{ints('up', UP)}, {ints('left', LEFT)}",
    ),
    "GatherElements": ("r = Reshape(a, flat) b = GatherElements <axis = 1> (r, i)", ints("i", ROWS.repeat(2, 1, 1))),
    "GatherND": (
        "r = Reshape(a, flat) l = Transpose <perm = [1, 2, 0]> (r) g = GatherND(l, i) "
        "b = Transpose <perm = [2, 0, 1]> (g)",
        ints("i", PAIRS),
    ),
    "planes": (
        "c = Transpose <perm = [0, 3, 1, 2]> (a) r = Reshape(c, planes) b = GatherElements <axis = 2> (r, i)",
        ints("i", ROWS.T.repeat(2, 1, 1)),
    ),
    "turned back": (
        "r = Reshape(a, flat) t = Transpose <perm = [0, 2, 1]> (r) g = GatherElements <axis = 2> (t, i) "
        "b = Transpose <perm = [0, 2, 1]> (g)",
        ints("i", ROWS.T.repeat(2, 1, 1)),
    ),
}


@pytest.mark.parametrize(("body", "table"), GRAPHS.values(), ids=GRAPHS)
def test_a_graph_that_looks_rows_up(body: str, table: str, tmp_path: Path) -> None:
    constants = f"{table}, int64[3] flat = {{-1, 30, 4}}, int64[3] planes = {{-1, 4, 30}}"
    text = f"""<ir_version: 10, opset_import: ["": 20]> net (float[2,6,5,4] x) => (float[A,B,C] y)
        <{constants}> {{ a = Relu(x) {body} y = Sigmoid(b) }}"""
    path = written(tmp_path / "net.onnx", text)
    found = adopted(path)
    (record,) = found.shifts
    assert record.spec.border == "keep"
    lowered, _ = lower_shifts(found.model)
    x = np.random.default_rng(0).standard_normal((2, 6, 5, 4)).astype(np.float32)
    (wanted,) = runtime(open_onnx(path, overrides={}).model)({"x": x}).values()
    np.testing.assert_array_equal(runtime(lowered)({"x": x})["y"], wanted)


CONVOLUTION = """
    <ir_version: 10, opset_import: ["": 20]> net (float[N,2,6,5] x) => (float[A,B,C,D] y)
    <float s = {{0.03}}, float t = {{{out}}}, uint8 z = {{{zero}}}, int8[2,1,3,1] k = {{{kernel}}}, float one = {{1}},
     int64[8] n = {{0,0,1,0, 0,0,1,0}}>
    {{ q = QuantizeLinear(x, s, z) w = Pad <mode = "edge"> (q, n) d = DequantizeLinear(w, s, z)
      f = DequantizeLinear(k, one) c = Conv <group = 2, pads = [{pads}]> (d, f) b = QuantizeLinear(c, t, z)
      y = DequantizeLinear(b, t, z) }}
"""
RIGHT = {"out": "0.03", "zero": "128", "kernel": "1,0,0, 0,0,1", "pads": "0,0,0,0"}


@pytest.mark.parametrize(
    ("change", "shifts"),
    [
        ({}, 1),
        ({"out": "0.04"}, 0),  # Integers are rounded anew.
        ({"kernel": "1,0,0, 0,0,2"}, 0),
        ({"kernel": "1,0,0, 0,1,1"}, 0),
        ({"pads": "1,0,1,0"}, 0),  # The zeros that come in are 128.
    ],
)
def test_a_convolution_between_quantized_tensors_moves_integers(change: dict[str, str], shifts: int) -> None:
    found = recognise(graph_of(CONVOLUTION.format(**RIGHT | change), N=2))
    assert len(found.shifts) == shifts
    if shifts:
        assert [group.offsets for group in found.shifts[0].spec.groups] == [(1,), (-1,)]


@pytest.mark.parametrize(
    ("there", "instead"),
    [
        (  # By way of int8, which ends at 127.
            "b = QuantizeLinear(c, t, z)",
            "i0 = QuantizeLinear(c, t, i) d0 = DequantizeLinear(i0, t, i) f0 = DequantizeLinear(k0, one) "
            "c0 = Conv <group = 2> (d0, f0) b = QuantizeLinear(c0, t, z)",
        ),
        ("0.03", "1e37"),  # Large integers are infinite between DQ and Q.
    ],
)
def test_integers_that_change_between_dq_and_q_are_not_moved(there: str, instead: str) -> None:
    text = CONVOLUTION.format(**RIGHT | {"zero": "0"}).replace(
        "float one", "int8 i = {0}, int8[2,1,1,1] k0 = {1,1}, float one"
    )
    assert len(recognise(graph_of(text, N=2)).shifts) == 1
    changed = " ".join(text.split()).replace(there, instead)
    assert instead in changed
    assert not recognise(graph_of(changed, N=2)).shifts


@pytest.mark.parametrize(("zero", "borders"), [("0", ["zero"]), ("128", [])])
def test_the_zeros_that_a_transposed_convolution_has_at_its_ends_are_its_zero_point(zero, borders) -> None:
    body = """d = DequantizeLinear(q, s, z) f = DequantizeLinear(k, one) e = ConvTranspose <group = 2> (d, f)
        c = QuantizeLinear(e, s, z) low = Constant <value_ints = [1]> () high = Constant <value_ints = [7]> ()
        axis = Constant <value_ints = [2]> () b = Slice(c, low, high, axis) """
    text = CONVOLUTION.format(**RIGHT | {"zero": zero})
    text = text[: text.index("w = Pad")] + body + text[text.index("y = Deq") :]
    assert [match.spec.border for match in recognise(graph_of(text, N=2)).shifts] == borders
