"""What distinguishes two ONNX files, by module: nodes, weights, types and shapes, inputs and outputs, metadata."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Literal

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.evidence.notebook import ShownInNotebooks

NodeKind = Literal["added", "removed", "changed", "reshaped", "retyped"]
"""``added`` and ``removed``: without a counterpart in the older file, in the newer one. ``changed``: the operator, an
attribute, a constant or what it reads. ``reshaped``, ``retyped``: only the shape or the type of what it makes."""

WeightKind = Literal["added", "removed", "differs", "rounded", "stored"]
"""``differs``: by more than rounding. ``rounded``: within half a step of the narrower type. ``stored``: the same
numbers in another type or layout."""


_DEEPEST = 32
"""Parts of a path that are told apart: names of nodes are anybody's."""


@dataclass(frozen=True)
class Change:
    """One thing that is another.

    Attributes:
        what: In words, or by its name.
        before: In the older file; empty where it has none.
        after: In the newer file; empty where it has none.
    """

    what: str
    before: str
    after: str


@dataclass(frozen=True)
class GraphFacts:
    """One of the two files.

    Attributes:
        file: As the user named it.
        sha256: Of the graph's file.
        bytes: Its size, that of weights beside it included.
        precision: As its own description says; empty where it says nothing.
        opset: Of the standard domain.
        ir_version: Of the format.
        producer: Who wrote it.
        inputs: Of the graph.
        outputs: Of the graph.
        nodes: How many, without those that hold a constant.
        modules: How many modules have nodes of their own; 0 where the file names none.
        weights: Bytes of constants by type of number.
    """

    file: str
    sha256: str
    bytes: int
    precision: str
    opset: int
    ir_version: int
    producer: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    nodes: int
    modules: int
    weights: dict[str, int]


@dataclass(frozen=True)
class NodeDifference:
    """A node that only one of the files has, or that is another in each.

    Attributes:
        module: Path of its module.
        kind: What is different.
        op: Its operator, in the newer file where both have it.
        name: In the newer file; of what was removed in the older one.
        changes: What became of what; empty for nodes that were added or removed.
    """

    module: str
    kind: NodeKind
    op: str
    name: str
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True)
class WeightDifference:
    """A weight that only one of the files has, or whose numbers, type or layout are others.

    Numbers are compared as the graph reads them: dequantized, cast and transposed where nodes do that to a constant.

    Attributes:
        module: Path of the module that reads it.
        kind: What is different.
        name: In the newer file; of what was removed in the older one.
        before: How the older file stores it: ``fp32 96x288``; empty where it does not.
        after: How the newer file does.
        elements: How many were compared; 0 where the sizes differ, or only one file has it.
        unequal: How many of them are not the same number. NaN is never the same.
        max_abs: The largest difference of finite elements; None where nothing was compared.
        mean_abs: Their mean difference.
        peak: Largest absolute value in the older file.
        sqnr: Energy of the older weight over that of the difference, in dB; None where there is no difference.
        not_finite: Elements that are NaN or infinite in either file.
    """

    module: str
    kind: WeightKind
    name: str
    before: str
    after: str
    elements: int = 0
    unequal: int = 0
    max_abs: float | None = None
    mean_abs: float | None = None
    peak: float | None = None
    sqnr: float | None = None
    not_finite: int = 0

    @property
    def relative(self) -> float | None:
        """The largest difference over the weight's peak."""
        return self.max_abs / self.peak if self.max_abs is not None and self.peak else None


@dataclass(frozen=True)
class ModuleDifference:
    """A module: its own nodes and weights, or with all that is inside of it.

    Attributes:
        path: Of the module.
        nodes_before: How many nodes the older file has of it.
        nodes_after: How many the newer one has.
        added: Nodes without a counterpart in the older file.
        removed: Nodes without a counterpart in the newer file.
        changed: Nodes that compute something else.
        reshaped: Nodes whose result only has another shape.
        retyped: Nodes whose result only has another type.
        weights: Weights that are not within rounding, or that only one file has.
        rounded: Weights that are rounded or stored otherwise.
        worst: The largest difference of a weight over the weight's peak; None where none differs.
        bytes_before: Of its constants in the older file.
        bytes_after: In the newer one.
        ms_before: Time of its nodes in the older file's last saved profile; None where there is none.
        ms_after: In the newer file's.
        error_before: The largest error of what leaves it in the older file's parity per layer, over the peak of the
            layer; None where there is none.
        error_after: In the newer file's.
    """

    path: str
    nodes_before: int = 0
    nodes_after: int = 0
    added: int = 0
    removed: int = 0
    changed: int = 0
    reshaped: int = 0
    retyped: int = 0
    weights: int = 0
    rounded: int = 0
    worst: float | None = None
    bytes_before: int = 0
    bytes_after: int = 0
    ms_before: float | None = None
    ms_after: float | None = None
    error_before: float | None = None
    error_after: float | None = None

    @property
    def size(self) -> tuple[int, int, float]:
        """How much is different, to sort by."""
        lesser = self.reshaped + self.retyped + self.rounded
        return self.added + self.removed + self.changed + self.weights, lesser, self.worst or 0.0

    @property
    def differs(self) -> bool:
        """Whether anything is different."""
        return self.size[:2] != (0, 0)


_FIGURES = tuple(field.name for field in fields(ModuleDifference) if field.name != "path")
_VALUES = attrgetter(*_FIGURES)
_LARGEST = frozenset({"worst", "error_before", "error_after"})


def joined(path: str, modules: Iterable[ModuleDifference]) -> ModuleDifference:
    """Several modules as one: counts, sizes and times are added, of errors the largest counts."""
    found: dict[str, Any] = {}
    for name, column in zip(_FIGURES, zip(*map(_VALUES, modules), strict=True), strict=False):
        known = [value for value in column if value is not None]
        if known:
            found[name] = max(known) if name in _LARGEST else sum(known)
    return ModuleDifference(path, **found)


@dataclass(frozen=True)
class FileDifference:
    """Two files.

    Attributes:
        before: The older one.
        after: The newer one.
        identical: Whether they have the same bytes; then nothing else was compared.
        interface: What differs of inputs, outputs, opset and format.
        metadata: What differs of what the files say of themselves, by entry.
        modules: Every module, without what is inside of it, in the order of the network.
        nodes: Every node that differs, module by module.
        weights: Every weight that differs.
        same_nodes: How many nodes are the same in both.
        same_weights: How many weights hold the same bytes.
        renamed: How many nodes that are the same have another name.
        notes: What the comparison could not tell, or took for granted.
    """

    before: GraphFacts
    after: GraphFacts
    identical: bool = False
    interface: tuple[Change, ...] = ()
    metadata: tuple[Change, ...] = ()
    modules: tuple[ModuleDifference, ...] = ()
    nodes: tuple[NodeDifference, ...] = ()
    weights: tuple[WeightDifference, ...] = ()
    same_nodes: int = 0
    same_weights: int = 0
    renamed: int = 0
    notes: tuple[str, ...] = ()

    @property
    def differs(self) -> bool:
        """Whether anything but names of nodes is different."""
        return bool(self.interface or self.metadata or self.nodes or self.weights)

    @property
    def total(self) -> ModuleDifference:
        """The whole network."""
        return joined("", self.modules)

    def by_module(self, depth: int) -> tuple[ModuleDifference, ...]:
        """Each module down to a depth, with what is inside of it, in the order of the network.

        A module above others has a row of its own; the network's own nodes are :data:`~s2mlp_deploy.artifact.NETWORK`.

        Args:
            depth: How many parts of a path are told apart, at least 1.
        """
        groups: dict[str, list[ModuleDifference]] = {}
        for module in self.modules:
            parts = module.path.split(".")
            for count in range(1, min(depth, len(parts), _DEEPEST) + 1):
                groups.setdefault(".".join(parts[:count]), []).append(module)
        return tuple(joined(path, inside) for path, inside in groups.items())

    def depth_of(self, rows: int) -> int:
        """The largest depth at which at most so many rows differ; at least 1."""
        deepest = min(max((module.path.count(".") + 1 for module in self.modules), default=1), _DEEPEST)
        return next(
            (
                depth
                for depth in range(deepest, 1, -1)
                if sum(module.differs for module in self.by_module(depth)) <= rows
            ),
            1,
        )


@dataclass(frozen=True)
class DifferenceReport(ShownInNotebooks):
    """Two files, or the files of the same name in two artifacts.

    Attributes:
        before: The older one, as the user named it.
        after: The newer one.
        files: The pairs.
        only_before: Names of ONNX files that only the older artifact has.
        only_after: Names of those that only the newer one has.
    """

    before: str
    after: str
    files: tuple[FileDifference, ...]
    only_before: tuple[str, ...] = ()
    only_after: tuple[str, ...] = ()

    @property
    def differs(self) -> bool:
        """Whether anything is different."""
        return bool(self.only_before or self.only_after or any(file.differs for file in self.files))


def in_order(modules: Sequence[ModuleDifference]) -> list[ModuleDifference]:
    """Modules, the one with the most differences first."""
    return sorted(modules, key=lambda module: module.size, reverse=True)
