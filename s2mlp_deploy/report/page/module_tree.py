"""A file's modules as a tree: what is read off the file, timed and compared is gathered under the module's path."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from s2mlp_deploy.artifact import NETWORK
from s2mlp_deploy.evidence.layers import LayerParity
from s2mlp_deploy.evidence.modules import ModulesReport
from s2mlp_deploy.evidence.profile import MATRIX_OPS, UNATTRIBUTED, Profile
from s2mlp_deploy.report.layers import is_judged, strain

_DEEPEST = 32
"""Modules inside of each other that are told apart."""


@dataclass
class Module:
    """A module with all that is inside of it.

    Attributes:
        path: Of the module; empty for the network.
        name: What it is called within the module around it.
        children: The modules inside, in the order of the graph.
        ms: Time of its nodes.
        matrix_ms: Of that in GEMMs and convolutions.
        bytes: Of its weights.
        operators: Number of its own nodes by operator, without those inside.
        matrix: Number of GEMMs and convolutions by the type they compute in.
        others: Of modules without any of those: number of nodes by type.
        layer: What leaves it, compared; None where it was not.
    """

    path: str
    name: str
    children: list[Module] = field(default_factory=list)
    ms: float = 0.0
    matrix_ms: float = 0.0
    bytes: int = 0
    operators: collections.Counter[str] = field(default_factory=collections.Counter)
    matrix: collections.Counter[str] = field(default_factory=collections.Counter)
    others: collections.Counter[str] = field(default_factory=collections.Counter)
    layer: LayerParity | None = None

    @property
    def computes(self) -> Mapping[str, int]:
        """What it computes in: its GEMMs and convolutions where it has any, else its nodes."""
        return self.matrix or self.others

    @property
    def strain(self) -> float | None:
        """The share of its limit that its result uses, else the largest share inside; None where nothing is known."""
        if self.layer is not None:
            return strain(self.layer)
        return max((inside for child in self.children if (inside := child.strain) is not None), default=None)

    def walk(self) -> Iterator[tuple[int, Module]]:
        """It and all inside, each before what is inside of it, with the depth."""
        todo = [(0, self)]
        while todo:
            depth, module = todo.pop()
            yield depth, module
            todo += [(depth + 1, child) for child in reversed(module.children)]


def tree_of(record: ModulesReport | None, profile: Profile | None, layers: Iterable[LayerParity]) -> Module:
    """Gathers what is known.

    Args:
        record: What the file has; None where it is not known.
        profile: Where the time goes; None where that is not known.
        layers: What leaves modules.
    """
    root = Module("", "network")
    by_path = {"": root}

    def at(path: str) -> Module:
        module, whole = root, ""
        for name in path.split(".", _DEEPEST):
            whole = f"{whole}.{name}" if module is not root else name
            if whole not in by_path:
                by_path[whole] = Module(whole, name)
                module.children.append(by_path[whole])
            module = by_path[whole]
        return module

    for item in record.modules if record is not None else ():
        module = root if item.path in ("", NETWORK) else at(item.path)
        module.operators.update(item.operators)
        module.bytes += sum(item.weights.values())
        (module.matrix if MATRIX_OPS & set(item.operators) else module.others).update(item.computes)
    unknown = Module(UNATTRIBUTED, UNATTRIBUTED)
    for node in profile.nodes if profile is not None else ():
        ms = node.ms if math.isfinite(node.ms) and node.ms > 0 else 0.0
        if not node.module:
            module = unknown
        elif record is not None:
            module = _nearest(by_path, node.module)
        else:
            module = root if node.module == NETWORK else at(node.module)
        module.ms += ms
        module.matrix_ms += ms if node.op in MATRIX_OPS else 0.0
        if record is None:
            module.operators[node.op] += 1
    for layer in layers:
        # What leaves the network itself are its outputs.
        if layer.kind == "output" and is_judged(layer):
            root.layer = layer if root.layer is None else max(root.layer, layer, key=strain)
        for path in (layer.path, *layer.ends):
            # Of a module that the file has nodes of: a layer that was folded into another is none of its boxes.
            if path in by_path and path and layer.kind != "output" and is_judged(layer):
                by_path[path].layer = layer
    if unknown.ms:
        root.children.append(unknown)
    _simplify(root)
    _sum(root)
    return root


def _nearest(by_path: Mapping[str, Module], path: str) -> Module:
    """The module of a path, or the innermost around it that the file has."""
    while path not in by_path:
        path = path.rpartition(".")[0]
    return by_path[path]


def _simplify(root: Module) -> None:
    """Takes out containers that do nothing of their own: lists of blocks, and modules around a single one."""
    for _, module in reversed(list(root.walk())):
        kept: list[Module] = []
        for child in module.children:
            alone = len(child.children) == 1 or all(inside.name.split(".")[0].isdigit() for inside in child.children)
            if child.ms or child.operators or not child.children or not alone:
                kept.append(child)
                continue
            module.bytes += child.bytes
            for inside in child.children:
                inside.name = f"{child.name}.{inside.name}"
            kept += child.children
        module.children = kept


def _sum(root: Module) -> None:
    for _, module in reversed(list(root.walk())):
        for child in module.children:
            module.ms += child.ms
            module.matrix_ms += child.matrix_ms
            module.bytes += child.bytes
            module.matrix.update(child.matrix)
            module.others.update(child.others)
