"""Every shift of a captured program becomes one ``s2mlp::shift``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from s2mlp_deploy.capture.frames import line_of_stack
from s2mlp_deploy.recognition.fx import concrete_sizes
from s2mlp_deploy.recognition.results import Base, CopyMatch, NearMiss, Recognition, ShiftMatch
from s2mlp_deploy.recognition.sampling import IDIOM, SamplingMatch
from s2mlp_deploy.recognition.search import recognise
from s2mlp_deploy.shift.spec import ShiftSpec

OWN_IDIOM = "s2mlp::shift"


@dataclass(frozen=True)
class ShiftOrigin:
    """Where a shift of the program comes from.

    Attributes:
        module: Path of the module it happens in.
        line: ``file.py:12`` of the user's code; empty where unknown.
        code: That line.
        spec: What it moves.
        idiom: How it was written.
        sizes: At how many input sizes it was checked; 0 for ``s2mlp::shift`` itself.
    """

    module: str
    line: str
    code: str
    spec: ShiftSpec
    idiom: str
    sizes: int


@dataclass(frozen=True)
class MissOrigin:
    """A movement that was left as it was.

    Attributes:
        module: Path of the module it happens in.
        line: ``file.py:12`` of the user's code; empty where unknown.
        code: That line.
        reason: Why it is no grouped shift.
        idiom: How it was written.
    """

    module: str
    line: str
    code: str
    reason: str
    idiom: str


@dataclass(frozen=True)
class Rewritten:
    """The result of :func:`rewrite_shifts`.

    Attributes:
        program: With one node per shift.
        shifts: By the name of the node.
        near_misses: What moves and is no shift.
    """

    program: ExportedProgram
    shifts: Mapping[str, ShiftOrigin]
    near_misses: tuple[MissOrigin, ...]


def rewrite_shifts(program: ExportedProgram) -> Rewritten:
    """Replaces every recognised shift by ``s2mlp::shift``, in place.

    What lies around a shift (views, stacks, concatenations) stays, and a movement that is no shift stays as it was.

    Args:
        program: Functional.
    """
    graph = program.graph
    origins: dict[str, ShiftOrigin] = {}
    for node in graph.nodes:
        if node.target is torch.ops.s2mlp.shift.default:
            spec = ShiftSpec.from_op_args(*node.args[1:])
            origins[node.name] = ShiftOrigin(*_location(node), spec, OWN_IDIOM, 0)
    found: Recognition = recognise(graph, concrete_sizes(program))
    edit = _Edit(program)
    position = {node: index for index, node in enumerate(graph.nodes)}
    for shift in sorted(found.shifts, key=lambda shift: position[shift.target]):
        edit.shift(shift)
    for sampling in found.samplings:
        edit.convolve(sampling)
    for copy in found.copies:
        edit.drop(copy)
    origins.update(edit.origins)
    misses = tuple(_miss(miss) for miss in found.near_misses)
    graph.eliminate_dead_code()
    program.graph_module.recompile()
    order = [node.name for node in graph.nodes if node.name in origins]
    return Rewritten(program, {name: origins[name] for name in order}, misses)


class _Edit:
    """Replacements in one program, in the graph's order."""

    def __init__(self, program: ExportedProgram) -> None:
        self.origins: dict[str, ShiftOrigin] = {}
        self._program = program
        self._graph = program.graph
        self._shifted: dict[tuple[Base, ShiftSpec], Node] = {}
        self._replaced: dict[Node, Node] = {}

    def shift(self, found: ShiftMatch) -> None:
        """One ``s2mlp::shift`` for all tensors that are the same shift of the same tensor."""
        target = found.target
        key = (found.base, found.spec)
        if key not in self._shifted:
            with self._graph.inserting_before(target):
                source = self._materialise(found.base, target)
                self._shifted[key] = self._insert(source, found.spec, target.meta)
            origin = ShiftOrigin(*_location(found.site), found.spec, found.idiom, found.sizes)
            self.origins[self._shifted[key].name] = origin
        self._replace(target, self._shifted[key])

    def convolve(self, found: SamplingMatch) -> None:
        """A deformable convolution becomes a shift of what it samples, and a convolution."""
        target, source = found.target, found.target.args[0]
        assert isinstance(source, Node)
        with self._graph.inserting_before(target):
            if found.spec is not None:
                source = self._insert(source, found.spec, {**target.meta, "val": source.meta["val"]})
                origin = ShiftOrigin(*_location(target), found.spec, IDIOM, found.sizes)
                self.origins[source.name] = origin
            new = self._graph.call_function(torch.ops.aten.conv2d.default, (source, *found.convolution))
        new.meta = dict(target.meta)
        self._replace(target, new)

    def drop(self, found: CopyMatch) -> None:
        """A tensor that equals another one is no longer made."""
        with self._graph.inserting_before(found.target):
            source = self._materialise(found.base, found.target)
        self._replace(found.target, source)

    def _insert(self, source: Node, spec: ShiftSpec, meta: Mapping[str, Any]) -> Node:
        new: Node = self._graph.call_function(torch.ops.s2mlp.shift.default, (source, *spec.op_args()))
        new.meta = dict(meta)
        return new

    def _replace(self, old: Node, new: Node) -> None:
        old.replace_all_uses_with(new)
        self._program.graph_signature.replace_all_uses(old.name, new.name)
        self._replaced[old] = new

    def _materialise(self, base: Base, like: Node) -> Node:
        """The node of a base, which may be replaced by now; a window becomes a slice of the shape of ``like``."""
        whole: Node = self._replaced.get(base.node, base.node)
        if base.axis is None:
            return whole
        window: Node = self._graph.call_function(
            torch.ops.aten.slice.Tensor, (whole, base.axis, base.start, base.start + base.length)
        )
        window.meta = dict(like.meta)
        return window


def _miss(miss: NearMiss) -> MissOrigin:
    return MissOrigin(*_location(miss.target), miss.reason, miss.idiom)


def _location(node: Node) -> tuple[str, str, str]:
    """Module path, ``file.py:12`` and source line of a node, from what torch.export noted."""
    stack: Mapping[str, Any] = node.meta.get("nn_module_stack") or {}
    path = ""
    for entry in stack.values():
        path = entry[0] if isinstance(entry, tuple) else path
    line = line_of_stack(node.meta.get("stack_trace"))
    return (path, line.short, line.code) if line else (path, "", "")
