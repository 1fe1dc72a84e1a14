"""Weights of two graphs: which belongs to which, and how far apart their numbers are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.difference.constants import Array, Constant, bytes_of
from s2mlp_deploy.evidence.difference import WeightDifference, WeightKind
from s2mlp_deploy.graph.modules import number_name
from s2mlp_deploy.metrics import TensorComparison

_CHUNK = 1 << 20
"""Elements that are compared at a time, in double precision."""

_SUFFIXES = re.compile(r"(\.quantized|\.fp16|\.constant|_quantized|_t)+$")
"""What this package's files and ONNX Runtime's quantizer put behind the name of a weight that they change."""

_GENERIC = re.compile(r"(?:.*/)?(?:onnx::)?[A-Za-z_]*\d+|\d+")
"""Names that count and say nothing: ``val_12``, ``onnx::MatMul_405``."""

_SLACK = 1.001
_ROUNDING = {"fp16": (2.0**-11, 2.0**-24), "bf16": (2.0**-8, 2.0**-134), "fp8": (2.0**-4, 2.0**-9)}
"""Half a step of a type: as a share of the number, and below its normal numbers."""


@dataclass
class Weight:
    """A constant of numbers that nodes read.

    Attributes:
        constant: It, and what it goes through.
        module: Of its first reader.
        readers: The nodes that read it, and as which input.
    """

    constant: Constant
    module: str
    readers: list[tuple[ir.Node, int]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of the stored tensor."""
        return self.constant.name

    @property
    def known_as(self) -> str:
        """Its name before anything was done to it; empty where the name only counts."""
        bare = _SUFFIXES.sub("", self.name)
        return "" if _GENERIC.fullmatch(bare) else bare

    @property
    def how(self) -> str:
        """The stored type and shape: ``int8 96x288``."""
        tensor = self.constant.stored
        shape = "x".join(str(size) for size in tensor.shape) or "scalar"
        return f"{number_name(tensor.dtype)} {shape}"


Partner = Callable[[ir.Node], ir.Node | None]


def match_weights(a: Sequence[Weight], b: Sequence[Weight], partner: Partner) -> list[tuple[int, int]]:
    """Which weight belongs to which: by name, by the nodes that read them, at last by size within a module.

    Args:
        a: Of the older graph.
        b: Of the newer one.
        partner: The node of the newer graph that stands where one of the older does.
    """
    pairs: dict[int, int] = {}
    taken: set[int] = set()

    def pair(i: int, candidates: Iterable[int]) -> None:
        free = [j for j in candidates if j not in taken and b[j].constant.elements == a[i].constant.elements]
        if i not in pairs and free:
            pairs[i] = free[0]
            taken.add(free[0])

    names = _by(b, lambda weight: weight.known_as)
    counts = _by(a, lambda weight: weight.known_as)
    for i, weight in enumerate(a):
        if weight.known_as and len(counts[weight.known_as]) == len(names.get(weight.known_as, ())) == 1:
            pair(i, names[weight.known_as])
    read_by = {(node, position): j for j, weight in enumerate(b) for node, position in weight.readers}
    for i, weight in enumerate(a):
        there = [(partner(node), position) for node, position in weight.readers]
        pair(i, [read_by[node, position] for node, position in there if node and (node, position) in read_by])
    sizes = _by(b, lambda weight: (weight.module, weight.constant.elements))
    for i, weight in enumerate(a):
        pair(i, sizes.get((weight.module, weight.constant.elements), ()))
    # What is left may have another size: then only its name or its place says that it is the same weight.
    for i, weight in enumerate(a):
        if i in pairs:
            continue
        there = [(partner(node), position) for node, position in weight.readers]
        at = [read_by[node, position] for node, position in there if node and (node, position) in read_by]
        free = [j for j in (*(names.get(weight.known_as, ()) if weight.known_as else ()), *at) if j not in taken]
        if free:
            pairs[i] = free[0]
            taken.add(free[0])
    return sorted(pairs.items())


def _by(weights: Sequence[Weight], key: Callable[[Weight], object]) -> dict[object, list[int]]:
    found: dict[object, list[int]] = {}
    for index, weight in enumerate(weights):
        found.setdefault(key(weight), []).append(index)
    return found


def compare_weights(
    a: Sequence[Weight], b: Sequence[Weight], pairs: Sequence[tuple[int, int]]
) -> Iterator[WeightDifference | None]:
    """Compares weights one after the other; no more than two are in memory at a time.

    Args:
        a: Of the older graph.
        b: Of the newer one.
        pairs: Which belongs to which.

    Yields:
        For each pair its difference, None where the bytes are the same; then what only one graph has.
    """
    for i, j in pairs:
        yield compare(a[i], b[j])
    matched_a, matched_b = {i for i, _ in pairs}, {j for _, j in pairs}
    for i, weight in enumerate(a):
        if i not in matched_a:
            yield WeightDifference(weight.module, "removed", weight.name, weight.how, "")
    for j, weight in enumerate(b):
        if j not in matched_b:
            yield WeightDifference(weight.module, "added", weight.name, "", weight.how)


def compare(a: Weight, b: Weight) -> WeightDifference | None:
    """Compares two weights; None where they are the same bytes, stored and read in the same way."""
    plain = not a.constant.nodes and not b.constant.nodes and a.how == b.how
    if plain and (own := bytes_of(a.constant.stored)) and own == bytes_of(b.constant.stored):
        return None
    try:
        ours, theirs = a.constant.array(), b.constant.array()
    except ValueError:
        return WeightDifference(b.module, "differs", b.name, a.how, b.how)
    found = [(_figures(ours, lay(theirs)), lay) for lay in _layouts(ours, theirs)]
    if not found:
        return WeightDifference(b.module, "differs", b.name, a.how, b.how)
    figures, lay = min(found, key=lambda item: (item[0].unequal, item[0].max_abs or 0.0))
    if figures.unequal == 0:
        direct = lay is found[0][1] and ours.shape == theirs.shape
        same = (
            direct
            and a.how == b.how
            and [node.op_type for node in a.constant.nodes] == [n.op_type for n in b.constant.nodes]
        )
        return None if same else _told(a, b, "stored", figures)
    rounded = figures.not_finite == 0 and _within_rounding(a, b, ours, lay(theirs), lay)
    return _told(a, b, "rounded" if rounded else "differs", figures)


@dataclass(frozen=True)
class _Figures:
    elements: int
    unequal: int
    max_abs: float | None
    mean_abs: float | None
    peak: float | None
    sqnr: float | None
    not_finite: int


def _told(a: Weight, b: Weight, kind: WeightKind, figures: _Figures) -> WeightDifference:
    return WeightDifference(
        b.module,
        kind,
        b.name,
        a.how,
        b.how,
        figures.elements,
        figures.unequal,
        figures.max_abs,
        figures.mean_abs,
        figures.peak,
        figures.sqnr,
        figures.not_finite,
    )


_Lay = Callable[[Array], Array]


def _layouts(a: Array, b: Array) -> list[_Lay]:
    """The ways to lay one weight out like the other: as it is, transposed, or with sizes of 1 more or less."""
    ways: list[_Lay] = []
    if a.size == b.size:
        if a.shape == b.shape or np.squeeze(a).shape == np.squeeze(b).shape:
            ways.append(lambda array: array.reshape(a.shape))
        if np.squeeze(a).ndim == 2 and np.squeeze(a).shape == np.squeeze(b).shape[::-1]:
            ways.append(lambda array: np.squeeze(array).T.reshape(a.shape))
        if not ways:
            ways.append(lambda array: array.reshape(a.shape))
    return ways


def _pieces(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    """Arrays of one shape in pieces, as floats of double precision."""
    flat = [np.ascontiguousarray(array).reshape(-1) for array in arrays]
    for start in range(0, max(flat[0].size, 1), _CHUNK):
        yield tuple(array[start : start + _CHUNK].astype(np.float64) for array in flat)


def _figures(a: Array, b: Array) -> _Figures:
    comparison, total, unequal, bad = TensorComparison(), 0.0, 0, 0
    for one, two in _pieces(a, b):
        comparison.update(one, two)
        unequal += int((one != two).sum())
        fine = np.isfinite(one) & np.isfinite(two)
        bad += int((~fine).sum())
        total += float(np.abs(one[fine] - two[fine]).sum())
    metrics = comparison.result()
    return _Figures(
        metrics.elements,
        unequal,
        metrics.max_abs,
        total / max(metrics.elements - bad, 1),
        metrics.peak,
        metrics.sqnr,
        bad,
    )


def _within_rounding(a: Weight, b: Weight, ours: Array, theirs: Array, lay: _Lay) -> bool:
    """Whether every difference is at most half a step of the types that the two are stored or dequantized in."""
    try:
        first, second = a.constant.step(), b.constant.step()
    except ValueError:
        return False
    steps = [step for step in (first, None if second is None else lay(second)) if step is not None]
    floats = [
        _ROUNDING[kind]
        for weight in (a, b)
        for kind in {number_name(weight.constant.stored.dtype), number_name(weight.constant.dtype)}
        if kind in _ROUNDING
    ]
    for one, two, *scales in _pieces(ours, theirs, *steps):
        allowed = np.zeros_like(one)
        for scale in scales:
            allowed += np.abs(scale) * 0.5
        for share, least in floats:
            allowed += np.maximum(share * np.maximum(np.abs(one), np.abs(two)), least)
        if not (np.abs(one - two) <= allowed * _SLACK).all():
            return False
    return bool(steps or floats)
