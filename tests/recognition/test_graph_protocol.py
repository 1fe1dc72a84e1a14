"""Recognition reads any graph that keeps to its protocol: here ONNX operators made by hand and run by numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy_graph import Builder, NumpyGraph, Op, SizedNumpyGraph

from s2mlp_deploy.recognition import bases, graph, index_maps, match, regions, results, sampling, search, sizes
from s2mlp_deploy.recognition.graph import FreeSize, UnknownValueError
from s2mlp_deploy.recognition.search import recognise
from s2mlp_deploy.shift.spec import ShiftGroup, ShiftSpec

BATCH = FreeSize("N", example=2)


def down_and_up(border: str) -> ShiftSpec:
    return ShiftSpec((ShiftGroup(2, (1,)), ShiftGroup(2, (-1,))), (2,), 1, border)  # type: ignore[arg-type]


def positions(*axes: range) -> np.ndarray[Any, Any]:
    """Indices of ScatterND for a block of a tensor."""
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1)


def test_scatters_of_slices_are_one_shift() -> None:
    build = Builder()
    x = build.add("Relu", build.input((2, 4, 5, 3)))
    rows = [build.add("Slice", x, axis=2, start=s, end=e) for s, e in ((0, 4), (1, 5))]
    pieces = [
        build.add("Slice", part, axis=1, start=s, end=e) for part, (s, e) in zip(rows, ((0, 2), (2, 4)), strict=True)
    ]
    first = build.add("ScatterND", x, pieces[0], indices=positions(range(2), range(0, 2), range(1, 5), range(3)))
    both = build.add("ScatterND", first, pieces[1], indices=positions(range(2), range(2, 4), range(0, 4), range(3)))
    found = recognise(build.graph(build.add("Relu", both)))
    (match,) = found.shifts
    assert (match.target, match.base.node, match.base.axis) == (both, x, None)
    assert match.spec == down_and_up("keep")
    assert match.idiom == "slice assignment"
    assert match.site is first
    assert not found.near_misses
    assert not found.copies


def concatenated(step: Callable[[Mapping[str, int]], int] | int = 1, **free: Any) -> tuple[NumpyGraph, Op, Op]:
    """Zeros before the first channels and after the last ones, rows moving by ``step``."""
    build = Builder()

    def rows(sizes: Mapping[str, int]) -> int:
        return step(sizes) if callable(step) else step

    x = build.input(lambda s: (s.get("N", 2), 4, s.get("H", 6), 3))
    first = build.add("Slice", x, axis=1, start=0, end=2)
    last = build.add("Slice", x, axis=1, start=2, end=4)
    zeros = build.add("ConstantOfShape", shape=lambda s: (s.get("N", 2), 2, rows(s), 3))
    kept = build.add("Slice", first, axis=2, start=0, end=lambda s: s.get("H", 6) - rows(s))
    left = build.add("Slice", last, axis=2, start=rows, end=lambda s: s.get("H", 6))
    down = build.add("Concat", zeros, kept, axis=2)
    up = build.add("Concat", left, zeros, axis=2)
    result = build.add("Concat", down, up, axis=1)
    return build.graph(result, **free), x, result


def test_concatenated_slices_at_free_sizes_are_a_shift() -> None:
    graph, x, result = concatenated(free=[BATCH, FreeSize("H", example=6)])
    (match,) = recognise(graph).shifts
    assert (match.target, match.base.node) == (result, x)
    assert match.spec == down_and_up("zero")
    assert match.sizes > 3


def test_a_step_that_grows_with_the_size_is_no_shift() -> None:
    height = FreeSize("H", example=6)
    graph, _, _ = concatenated(lambda s: 1 + (s["H"] > 6), free=[height])
    found = recognise(graph)
    assert not found.shifts
    assert "at another input size the same code moves elements differently" in [m.reason for m in found.near_misses]


def test_a_step_that_grows_beyond_a_turn_is_no_shift() -> None:
    # Sizes around the example's all move by one; only those around the turn tell.
    turns = (("H", (63, 64, 65)),)
    graph, _, _ = concatenated(lambda s: 1 + s["H"] // 64, free=[FreeSize("H", example=6)], turns=turns)
    assert not recognise(graph).shifts


def test_a_table_of_rows_is_a_shift_of_what_it_reads() -> None:
    build = Builder()
    x = build.input((2, 4, 5, 3))
    turned = build.add("Transpose", x, perm=(0, 2, 3, 1))
    moved = build.add("Gather", turned, axis=1, indices=np.array([0, 0, 1, 2, 3]))
    (match,) = recognise(build.graph(build.add("Relu", moved))).shifts
    assert match.base.node is turned
    assert match.spec == ShiftSpec((ShiftGroup(4, (1,)),), (1,), 3)
    assert match.idiom == "index table"


def test_elements_of_two_tensors_are_a_near_miss() -> None:
    build = Builder()
    x, y = build.input((2, 4, 5, 3)), build.input((2, 4, 5, 3))
    mask = np.arange(5)[:, None] > 0
    mixed = build.add("Where", build.add("Gather", x, axis=2, indices=np.array([0, 0, 1, 2, 3])), y, condition=mask)
    found = recognise(build.graph(mixed))
    assert [match.target.kind for match in found.shifts] == ["Gather"]
    assert not found.near_misses  # What lies between a shift and the way out is none.


class OneSize(NumpyGraph):
    """A graph that runs at its example's sizes only."""

    error: BaseException

    def at(self, sizes: Mapping[str, int]) -> SizedNumpyGraph:
        sized = super().at(sizes)
        if any(sized.sizes[size.name] != size.example for size in self.free_sizes):
            error = self.error

            def run(node: Op, tensor: Callable[[Op], Any]) -> Any:
                raise error

            sized.run = run  # type: ignore[method-assign]
        return sized


@pytest.mark.parametrize(
    "error",
    [
        UnknownValueError("an index is not known"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
        IndexError("index 9 is out of bounds"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_no_other_size_confirms_stays_as_written(error: BaseException) -> None:
    graph, _, result = concatenated(free=[BATCH])
    stuck = OneSize(graph.nodes, [result], [BATCH])
    stuck.error = error
    found = recognise(stuck)
    assert not found.shifts
    assert not found.copies
    (miss,) = found.near_misses
    assert miss.target is result
    assert miss.reason.startswith(f"it could be compared at no other input size: {type(error).__name__}")


def test_one_axis_that_cannot_vary_is_enough_to_leave_it() -> None:
    # The height takes one more value, which is too small to tell anything.
    graph, _, _ = concatenated(free=[BATCH, FreeSize("H", example=6, min=6, max=6)])
    assert not recognise(graph).shifts


def test_a_long_chain_that_is_no_shift_is_compared_in_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    original = search.match_shifts

    def counting(moved: Any, base: Any) -> Any:
        nonlocal compared
        compared += 1
        return original(moved, base)

    monkeypatch.setattr(search, "match_shifts", counting)
    build = Builder()
    channels = 40
    x = y = build.input((1, channels, 6, 4))
    for channel in range(channels):
        # The two middle rows change places: every tensor on the way holds every element once.
        rows = [build.add("Slice", y, axis=2, start=s, end=s + 1) for s in (3, 2)]
        one = [build.add("Slice", row, axis=1, start=channel, end=channel + 1) for row in rows]
        swapped = build.add("Concat", *one, axis=2)
        y = build.add("ScatterND", y, swapped, indices=positions(range(1), [channel], range(2, 4), range(4)))
    found = recognise(build.graph(y))
    assert not found.shifts
    # Together it is rows in another order, which plain slices say.
    (movement,) = found.movements
    assert movement.target is y
    assert compared < 10 * len(build.nodes)
    assert x in build.nodes


def test_the_search_speaks_of_no_kind_of_graph() -> None:
    for module in (bases, graph, index_maps, match, regions, results, sampling, search, sizes):
        source = Path(str(module.__file__)).read_text()
        # The documentation of the protocol names the adapter; the code imports none.
        assert not [line for line in source.splitlines() if "torch.fx" in line or "aten." in line]
