"""What a region's tensors are made of: index maps, windows, and the tensors that others may be shifts of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy_graph import Builder, NumpyGraph, Op
from torch import Tensor

from s2mlp_deploy.recognition.bases import BaseFinder
from s2mlp_deploy.recognition.graph import UnknownValueError
from s2mlp_deploy.recognition.index_maps import IndexMaps, all_distinct
from s2mlp_deploy.recognition.regions import Region, find_regions, in_words
from s2mlp_deploy.recognition.results import Base


def region_of(graph: NumpyGraph, *, budget: int = 1 << 28) -> tuple[Region[Op], IndexMaps[Op], BaseFinder[Op]]:
    (members,) = find_regions(graph)
    region = Region(graph, members)
    maps = IndexMaps(region, graph.at({}), budget=budget)
    return region, maps, BaseFinder(region, maps, graph.at({}))


def known(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


def test_regions_end_where_something_is_computed() -> None:
    build = Builder()
    x = build.input((2, 3))
    first = build.add("Transpose", x, perm=(1, 0))
    computed = build.add("Relu", first)
    second = build.add("Slice", computed, axis=0, start=0, end=2)
    third = build.add("Identity", second)
    regions = list(find_regions(build.graph(third)))
    assert regions == [[first], [second, third]]


def test_a_region_knows_what_is_made_of_what() -> None:
    build = Builder()
    x, y = build.input((2, 3)), build.input((2, 3))
    a = build.add("Identity", x)
    b = build.add("Identity", y)
    c = build.add("Concat", a, b, axis=0)
    region, _, _ = region_of(build.graph(c))
    assert region.tensors == [x, y, a, b, c]
    assert list(region.first(region.upstream(c))) == [x, y, a, b]
    assert list(region.last(region.upstream(b))) == [y]
    assert region.exits() == [c]
    assert region.is_made_of(c, {a})
    assert not region.is_made_of(b, {a})
    assert region.between(c, a) == [b, c]
    assert region.idiom(c, None) == "concatenation"


def test_idioms_are_told_in_one_order_without_the_slices_of_assignments() -> None:
    assert in_words({"slices", "roll", "slice assignment", None}) == "slice assignment, roll"
    assert in_words({"slices", "concatenation"}) == "concatenation, slices"
    assert in_words({None}) == "views"


def test_elements_of_every_input_have_numbers_of_their_own() -> None:
    build = Builder()
    x, y = build.input((2, 3)), build.input((2, 2))
    zeros = build.add("ConstantOfShape", shape=(2, 1))
    joined = build.add("Concat", y, zeros, x, axis=1)
    _, maps, _ = region_of(build.graph(joined))
    numbers = known(maps.of(joined))
    assert maps.elements == 10
    assert numbers[:, 2].tolist() == [0, 0]
    assert all_distinct(torch.cat([numbers[:, :2], numbers[:, 3:]], 1))
    assert torch.equal(numbers[:, 3:], known(maps.of(x)))


def chain(length: int) -> tuple[NumpyGraph, list[Op]]:
    """Rows that turn round, again and again."""
    build = Builder()
    steps = [build.input((6, 50))]
    for _ in range(length):
        steps.append(build.add("Gather", steps[-1], axis=0, indices=np.array([5, 0, 1, 2, 3, 4])))
    return build.graph(steps[-1]), steps


def test_maps_that_were_dropped_are_computed_again() -> None:
    graph, steps = chain(12)
    bytes_of_one = 6 * 50 * 4
    _, small, _ = region_of(graph, budget=2 * bytes_of_one)
    _, large, _ = region_of(graph)
    for step in reversed(steps):
        assert torch.equal(known(small.of(step)), known(large.of(step)))
        assert small.kept_bytes <= 2 * bytes_of_one
    assert large.kept_bytes == len(steps) * bytes_of_one


def test_more_elements_than_can_be_numbered_are_refused() -> None:
    build = Builder()
    x = build.input((1, 3))
    graph = build.graph(build.add("Identity", x))
    sized = graph.at({})
    sized.shape = lambda node: (1 << 16, 1 << 15)  # type: ignore[method-assign]
    with pytest.raises(UnknownValueError, match="too many"):
        IndexMaps(Region(graph, graph.nodes[1:]), sized, budget=1)


@pytest.mark.parametrize(
    ("numbers", "distinct"),
    [
        ([[3, 1], [7, 2]], True),
        ([[3, 1], [3, 2]], False),
        ([[0, 1], [3, 2]], False),
        ([[-1, 1], [3, 2]], False),
        ([[1, 1], [1, 900]], False),
        ([[], []], True),
    ],
)
def test_distinct_elements(numbers: list[list[int]], distinct: bool) -> None:
    assert all_distinct(torch.tensor(numbers, dtype=torch.int32)) == distinct


def bases(graph: NumpyGraph, node: Op, *rejected: Op) -> list[Base[Op]]:
    _, maps, finder = region_of(graph)
    return [base for base, _ in finder.of(node, known(maps.of(node)), [Base(other) for other in rejected])]


def test_bases_have_the_shape_and_the_type_and_are_told_from_the_first() -> None:
    build = Builder()
    x = build.input((2, 4, 6))
    turned = build.add("Transpose", x, perm=(0, 2, 1))
    back = build.add("Transpose", turned, perm=(0, 2, 1))
    rows = build.add("Gather", back, axis=2, indices=np.array([5, 4, 3, 2, 1, 0]))
    doubled = build.add("Gather", rows, axis=2, indices=np.array([0, 0, 1, 2, 3, 4]))
    last = build.add("Gather", doubled, axis=2, indices=np.array([1, 2, 3, 4, 5, 0]))
    graph = build.graph(last)
    # Not the transposed one, whose shape is another, nor the one that holds elements twice.
    assert bases(graph, last) == [Base(x), Base(back), Base(rows)]
    # What is no shift of the input is none of what holds the same elements in the same places.
    assert bases(graph, last, x) == [Base(rows)]


def test_a_window_of_a_longer_tensor_is_a_base() -> None:
    build = Builder()
    x = build.input((2, 8, 6))
    piece = build.add("Slice", x, axis=1, start=3, end=7)
    moved = build.add("Gather", piece, axis=2, indices=np.array([0, 0, 1, 2, 3, 4]))
    graph = build.graph(moved)
    region, maps, finder = region_of(graph)
    found = list(finder.of(moved, known(maps.of(moved)), ()))
    (window, numbers), (whole, _) = found
    assert window == Base(x, 1, 3, 4)
    assert torch.equal(numbers, known(maps.of(piece)))
    assert whole == Base(piece)
    # The graph holds just this window: it is named instead.
    assert finder.named(moved, window, numbers) == Base(piece)
    assert region.idiom(moved, x) == "index table, slices"


def test_a_tensor_longer_along_two_axes_is_no_base() -> None:
    build = Builder()
    x = build.input((2, 8, 6))
    piece = build.add("Slice", x, axis=1, start=3, end=7)
    smaller = build.add("Slice", piece, axis=2, start=1, end=5)
    assert bases(build.graph(smaller), smaller) == [Base(piece, 2, 1, 4)]


def test_elements_spread_further_than_a_window_have_no_base() -> None:
    build = Builder()
    x = build.input((2, 8, 6))
    ends = [build.add("Slice", x, axis=1, start=s, end=s + 1) for s in (0, 7)]
    joined = build.add("Concat", *ends, axis=1)
    assert bases(build.graph(joined), joined) == []


def test_of_a_long_chain_only_the_first_and_the_last_are_bases() -> None:
    build = Builder()
    steps = [build.input((6, 50))]
    for row in range(20):
        order = np.roll(np.arange(50), row + 1)
        steps.append(build.add("Gather", steps[-1], axis=1, indices=order))
    found = [base.node for base in bases(build.graph(steps[-1]), steps[-1])]
    assert found == [*steps[:4], *steps[-5:-1]]
