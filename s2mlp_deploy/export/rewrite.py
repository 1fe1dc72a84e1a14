"""Every shift of a captured program becomes one ``s2mlp::shift``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.fx import GraphModule, Node

import s2mlp_deploy.shift.op  # noqa: F401  registers s2mlp::shift
from s2mlp_deploy.artifact import ShiftRecord
from s2mlp_deploy.capture.frames import line_of_stack
from s2mlp_deploy.export.write_movement import FxWriter
from s2mlp_deploy.recognition.fx import FxGraph, convolution_arguments, free_symbols
from s2mlp_deploy.recognition.plan import Lookup, in_words, steps, write
from s2mlp_deploy.recognition.results import Base, CopyMatch, MovementMatch, SamplingMatch, ShiftMatch
from s2mlp_deploy.recognition.sampling import IDIOM
from s2mlp_deploy.recognition.search import recognise
from s2mlp_deploy.shift.origin import Origin
from s2mlp_deploy.shift.spec import ShiftSpec
from s2mlp_deploy.text import join_names
from s2mlp_deploy.torch_internals import expression_of

OWN_IDIOM = "s2mlp::shift"
_VIEWS = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)
_SHIFT_ARGUMENTS = ("x", "channels", "offsets", "axes", "channel_axis", "border", "origin")


@dataclass(frozen=True)
class NearMissRecord:
    """A movement of data that is no grouped shift and stays as it is.

    Attributes:
        origin: Where it happens and how it is written.
        reason: Why it is no grouped shift.
    """

    origin: Origin
    reason: str


@dataclass(frozen=True)
class MovementRecord:
    """A movement of data that is no grouped shift, and is written in other operators with the same index map.

    Attributes:
        origin: Where it happens and how it was written.
        operators: What it became, as ONNX names them.
    """

    origin: Origin
    operators: str


@dataclass(frozen=True)
class Rewritten:
    """The result of :func:`rewrite_shifts`.

    Attributes:
        program: With one node per shift, which carries its origin.
        shifts: In the program's order.
        near_misses: What moves data, is no shift, and is left as it was.
        movements: What moves data, is no shift, and is written in other operators.
    """

    program: ExportedProgram
    shifts: tuple[ShiftRecord, ...]
    near_misses: tuple[NearMissRecord, ...]
    movements: tuple[MovementRecord, ...] = ()


def told(movements: Sequence[MovementRecord]) -> tuple[str, ...]:
    """What movements became, for the manifest: places with the same operators in one line."""
    places: dict[tuple[str, str], list[str]] = {}
    for movement in movements:
        origin = movement.origin
        places.setdefault((origin.idiom, movement.operators), []).append(origin.line or origin.module or "?")
    return tuple(
        f"besides the shifts, other data that moves by a fixed rule ({idiom}) is written as {operators}: "
        f"{join_names(dict.fromkeys(names))}"
        for (idiom, operators), names in places.items()
    )


def rewrite_shifts(program: ExportedProgram) -> Rewritten:
    """Replaces every recognised shift by ``s2mlp::shift``, in place.

    What lies around a shift (views, stacks, concatenations) stays, and a movement that is no shift stays as it was, or,
    where it follows a fixed rule, is written in operators that cost less. Every ``s2mlp::shift`` then says where it
    comes from, those that the module called itself too. The branches of ``torch.cond`` are rewritten like the rest.

    Args:
        program: Functional.
    """
    results = [_rewrite(part, whole=part is program) for part in (program, *_branches(program))]
    without_strides(program)
    shifts = tuple(
        ShiftRecord(ShiftSpec.from_op_args(*node.args[1:6]), Origin.from_text(node.args[6]))
        for node in _shift_nodes(program)
    )
    misses = tuple(record for result in results for record in result[0])
    return Rewritten(program, shifts, misses, tuple(record for result in results for record in result[1]))


@dataclass(frozen=True)
class ShiftedTensor:
    """What a shift moves.

    Attributes:
        sizes: In the example.
        dtype: Of its elements.
    """

    sizes: tuple[int, ...]
    dtype: torch.dtype


def shifted_tensors(program: ExportedProgram) -> tuple[ShiftedTensor, ...]:
    """The tensor of each of the shifts that :func:`rewrite_shifts` lists, in that order."""
    symbols = free_symbols(program)

    def known(size: int | torch.SymInt) -> int:
        return size if isinstance(size, int) else int(expression_of(size).subs(symbols))

    tensors = [node.args[0].meta["val"] for node in _shift_nodes(program)]
    return tuple(ShiftedTensor(tuple(known(size) for size in tensor.shape), tensor.dtype) for tensor in tensors)


def _shift_nodes(program: ExportedProgram) -> list[Any]:
    parts = (program, *_branches(program))
    return [node for part in parts for node in part.graph.nodes if is_shift(node)]


def without_strides(program: ExportedProgram) -> None:
    """Makes every view a reshape, in place: what stands in another operator's place has strides of its own.

    The views were captured for the strides that eager PyTorch's operators give; a graph has none.
    """
    for module in program.graph_module.modules():
        if isinstance(module, GraphModule):
            for node in module.graph.nodes:
                if node.target in _VIEWS:
                    node.target = torch.ops.aten.reshape.default
            module.recompile()


def _branches(program: ExportedProgram) -> Iterator[ExportedProgram]:
    """The branches of ``torch.cond`` as programs of their own, which share their graphs with the whole."""
    for path, module in program.graph_module.named_modules():
        if path and isinstance(module, GraphModule):
            inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
            results: Any = module.graph.output_node().args[0]
            signature = ExportGraphSignature(
                [InputSpec(InputKind.USER_INPUT, TensorArgument(node.name), None) for node in inputs],
                [
                    OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(node.name), None)
                    for node in results
                    if isinstance(node, Node)
                ],
            )
            yield ExportedProgram(
                root=module,
                graph=module.graph,
                graph_signature=signature,
                state_dict={},
                range_constraints=program.range_constraints,
                module_call_graph=program.module_call_graph,
            )


def _rewrite(program: ExportedProgram, *, whole: bool) -> tuple[list[NearMissRecord], list[MovementRecord]]:
    graph = program.graph
    for node in graph.nodes:
        if is_shift(node):
            arguments = _arguments(node)
            origin = _told(arguments.get("origin")) or _origin(node, node, OWN_IDIOM)
            node.args = (*(arguments[name] for name in _SHIFT_ARGUMENTS[:-1]), origin.to_text())
            node.kwargs = {}
    found = recognise(FxGraph(program))
    edit = _Edit(program)
    position = {node: index for index, node in enumerate(graph.nodes)}
    for shift in sorted(found.shifts, key=lambda shift: position[shift.target]):
        edit.shift(shift)
    for sampling in found.samplings:
        edit.convolve(sampling)
    for copy in found.copies:
        edit.drop(copy)
    # A branch has no constants of its own: movements that need a table stay there.
    written = [m for m in found.movements if whole or not any(isinstance(step, Lookup) for step in steps(m.plan))]
    for movement in written:
        edit.move(movement)
    moved = [MovementRecord(_origin(m.target, m.site, m.idiom, m.sizes), in_words(m.plan)) for m in written]
    misses = [NearMissRecord(_origin(m.target, m.target, m.idiom), m.reason) for m in found.near_misses]
    graph.eliminate_dead_code()
    program.graph_module.recompile()
    return misses, moved


def is_shift(node: Node) -> bool:
    """Whether a node is ``s2mlp::shift``."""
    return node.op == "call_function" and node.target is torch.ops.s2mlp.shift.default


def _arguments(node: Node) -> dict[str, Any]:
    """What a shift was called with, by name: callers may use positions or names."""
    return {**dict(zip(_SHIFT_ARGUMENTS, node.args, strict=False)), **node.kwargs}


class _Edit:
    """Replacements in one program, in the graph's order."""

    def __init__(self, program: ExportedProgram) -> None:
        self._program = program
        self._graph = program.graph
        self._shifted: dict[tuple[Base[Node], ShiftSpec], Node] = {}
        self._replaced: dict[Node, Node] = {}

    def shift(self, found: ShiftMatch[Node]) -> None:
        """One ``s2mlp::shift`` for all tensors that are the same shift of the same tensor."""
        target = found.target
        key = (found.base, found.spec)
        if key not in self._shifted:
            with self._graph.inserting_before(target):
                source = self._materialise(found.base, target)
                origin = _origin(target, found.site, found.idiom, found.sizes)
                meta = {**target.meta, "val": source.meta["val"]} if found.shape else target.meta
                self._shifted[key] = self._insert(source, found.spec, origin, meta)
        result = self._shifted[key]
        if found.shape:
            with self._graph.inserting_before(target):
                result = _viewed(result, found.shape, target)
        self._replace(target, result)

    def convolve(self, found: SamplingMatch[Node]) -> None:
        """A deformable convolution becomes a shift of what it samples, and a convolution."""
        target, source = found.target, found.source
        with self._graph.inserting_before(target):
            if found.spec is not None:
                origin = _origin(target, target, IDIOM, found.sizes)
                source = self._insert(source, found.spec, origin, {**target.meta, "val": source.meta["val"]})
            new = self._graph.call_function(torch.ops.aten.conv2d.default, (source, *convolution_arguments(target)))
        new.meta = dict(target.meta)
        self._replace(target, new)

    def drop(self, found: CopyMatch[Node]) -> None:
        """A tensor that equals another one is no longer made."""
        with self._graph.inserting_before(found.target):
            source = self._materialise(found.base, found.target)
        self._replace(found.target, source)

    def move(self, found: MovementMatch[Node]) -> None:
        """A fixed movement in operators that cost less."""
        sources = [self._replaced.get(source, source) for source in found.sources]
        new = write(found.plan, sources, FxWriter(self._program, found.target))
        if new not in sources:
            new.meta = dict(found.target.meta)
        self._replace(found.target, new)

    def _insert(self, source: Node, spec: ShiftSpec, origin: Origin, meta: Mapping[str, Any]) -> Node:
        arguments = (source, *spec.op_args(), origin.to_text())
        new: Node = self._graph.call_function(torch.ops.s2mlp.shift.default, arguments)
        new.meta = dict(meta)
        return new

    def _replace(self, old: Node, new: Node) -> None:
        old.replace_all_uses_with(new)
        self._program.graph_signature.replace_all_uses(old.name, new.name)
        self._replaced[old] = new

    def _materialise(self, base: Base[Node], like: Node) -> Node:
        """The node of a base, which may be replaced by now; a window becomes a slice of the shape of ``like``."""
        whole: Node = self._replaced.get(base.node, base.node)
        if base.shape:
            return _viewed(whole, base.shape, like)
        if base.axis is None:
            return whole
        window: Node = self._graph.call_function(
            torch.ops.aten.slice.Tensor, (whole, base.axis, base.start, base.start + base.length)
        )
        window.meta = dict(like.meta)
        return window


def _viewed(whole: Node, sizes: Sequence[int], like: Node) -> Node:
    """A tensor in another shape, in which one size may be -1."""
    view = whole.graph.call_function(torch.ops.aten.reshape.default, (whole, list(sizes)))
    view.meta = {**like.meta, "val": whole.meta["val"].reshape(sizes)}
    return view


def _told(text: str | None) -> Origin | None:
    """The origin that a caller of ``s2mlp::shift`` gave; None where there is none, or it cannot be read."""
    try:
        return Origin.from_text(text) if text else None
    except ValueError:
        return None


def _origin(node: Node, site: Node, idiom: str, sizes: int = 0) -> Origin:
    """The module of a node, which the ONNX node is named after, and the line of another one, where a reader looks."""
    stack: Mapping[str, Any] = node.meta.get("nn_module_stack") or {}
    paths = [entry[0] for entry in stack.values() if isinstance(entry, tuple)]
    line = line_of_stack(site.meta.get("stack_trace"))
    return Origin(
        module=paths[-1] if paths else "",
        line=line.short if line else "",
        code=line.code if line else "",
        idiom=idiom,
        sizes=sizes,
    )
