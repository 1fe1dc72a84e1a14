"""Every shift of an ONNX graph becomes one node ``s2mlp::Shift``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.artifact import Hazard
from s2mlp_deploy.capture.frames import line_of_stack
from s2mlp_deploy.export.passes.name_after_modules import module_path
from s2mlp_deploy.export.rewrite import MovementRecord, NearMissRecord
from s2mlp_deploy.export.shift_node import DOMAIN, note_shape, shift_opset
from s2mlp_deploy.export.write_movement import OnnxWriter
from s2mlp_deploy.graph.editing import Editor, move
from s2mlp_deploy.graph.modules import SCOPES
from s2mlp_deploy.recognition.onnx_graph import OnnxGraph
from s2mlp_deploy.recognition.plan import in_words, shapes, write
from s2mlp_deploy.recognition.results import Base, CopyMatch, MovementMatch, ShiftMatch, SmearMatch
from s2mlp_deploy.recognition.search import recognise
from s2mlp_deploy.shift.origin import Origin
from s2mlp_deploy.shift.spec import ShiftSpec

_STACK = "pkg.torch.onnx.stack_trace"
_SHIFTED = frozenset(
    {
        ir.DataType.FLOAT,
        ir.DataType.FLOAT16,
        ir.DataType.DOUBLE,
        ir.DataType.INT8,
        ir.DataType.INT32,
        ir.DataType.INT64,
        ir.DataType.UINT8,
    }
)
"""What forms are written for. Shifts of other types stay as the file has them."""


@dataclass(frozen=True)
class RewrittenGraph:
    """What :func:`rewrite_graph` found, in the graph's order.

    Attributes:
        near_misses: What moves data, is no shift and stays as it is.
        movements: What of it is written in other operators.
        smears: What an overlapping copy left of a shift.
    """

    near_misses: tuple[NearMissRecord, ...] = ()
    movements: tuple[MovementRecord, ...] = ()
    smears: tuple[Hazard, ...] = ()


def rewrite_graph(model: ir.Model, graph: OnnxGraph, *, repair_smears: bool = False) -> RewrittenGraph:
    """Replaces every recognised shift by ``s2mlp::Shift``, in place; what no node reads any more is left for a pass.

    Other fixed movements are written in operators that cost less, where there are any.

    Args:
        model: Changed in place.
        graph: The model's, as recognition reads it.
        repair_smears: Whether the shift that was meant takes the place of what an overlapping copy left of it.
    """
    shift_opset()
    found = recognise(graph, repair_smears=repair_smears)
    smears = tuple(_hazard(graph, smear, repaired=repair_smears) for smear in found.smears)
    # All that a result needs is asked before anything changes.
    misses = tuple(NearMissRecord(_origin(graph, m.target, m.target, m.idiom), m.reason) for m in found.near_misses)
    origins = [_origin(graph, shift.target, shift.site, shift.idiom, shift.sizes) for shift in found.shifts]
    movements = [m for m in found.movements if m.target.dtype in _SHIFTED]
    moved = tuple(
        MovementRecord(_origin(graph, m.target, m.site, m.idiom, m.sizes), in_words(m.plan)) for m in movements
    )
    position = {value: index for index, value in enumerate(graph.nodes)}
    edit = _Edit(model, graph)
    pairs = sorted(zip(found.shifts, origins, strict=True), key=lambda pair: position[pair[0].target])
    for shift, origin in pairs:
        if shift.target.dtype in _SHIFTED:
            edit.shift(shift, origin)
    for copy in found.copies:
        edit.drop(copy)
    for movement in movements:
        edit.move(movement)
    if pairs:
        model.opset_imports[DOMAIN] = 1
    return RewrittenGraph(misses, moved, smears)


def _hazard(graph: OnnxGraph, found: SmearMatch[ir.Value], *, repaired: bool) -> Hazard:
    """A smear at the line of the code that made it, or at its node."""
    origin, smear = _origin(graph, found.target, found.site, found.idiom), found.smear
    shape = graph.at({}).shape(found.target)
    rest = math.prod(shape) // shape[smear.spec.channel_axis]
    channels = sum(group.channels for group, bad in zip(smear.spec.groups, smear.smeared, strict=True) if bad)
    told = f"one row everywhere in {channels} of {smear.spec.channels} channels, where a shift by one row was meant"
    return Hazard("smear", origin.line, origin.code or told, 1, channels * rest, repaired=repaired)


class _Edit:
    """Replacements in one graph, in its order."""

    def __init__(self, model: ir.Model, graph: OnnxGraph) -> None:
        self._editor = Editor(model.graph)
        self._graph = graph
        self._example = graph.at({})
        self._shifted: dict[tuple[Base[ir.Value], ShiftSpec], ir.Value] = {}
        self._replaced: dict[ir.Value, ir.Value] = {}

    def shift(self, found: ShiftMatch[ir.Value], origin: Origin) -> None:
        """One ``Shift`` for all tensors that are the same shift of the same tensor."""
        key = (found.base, found.spec)
        if key not in self._shifted:
            self._shifted[key] = self._insert(found, origin)
        result = self._shifted[key]
        self._replace(found.target, self._viewed(result, found.shape, found.target) if found.shape else result)

    def drop(self, found: CopyMatch[ir.Value]) -> None:
        """A tensor that equals another one is no longer made."""
        source = self._materialise(found.base, found.target)
        if found.target.is_graph_output():
            producer = found.target.producer()
            name = f"{producer.name if producer else found.target.name}.copy"
            source = self._editor.node(
                "Identity", [source], name=name, dtype=source.dtype, shape=source.shape, before=producer
            )
        self._replace(found.target, source)

    def move(self, found: MovementMatch[ir.Value]) -> None:
        """A fixed movement in operators that cost less."""
        producer = found.target.producer()
        assert producer is not None
        sources = [self._replaced.get(source, source) for source in found.sources]
        writer = OnnxWriter(
            self._editor,
            producer,
            found.target.dtype,
            lambda kind: _sibling(str(producer.name), kind),
            lambda node: _note_scope(node, producer),
        )
        made: dict[int, ir.Value] = {}
        new = write(found.plan, sources, writer, lambda step, value: made.__setitem__(id(step), value))
        for key, sizes in self._step_shapes(found).items():
            if made[key] not in sources:
                made[key].shape = ir.Shape(sizes)
        if new in sources:
            new = self._editor.node(
                "Identity", [new], name=f"{producer.name}.copy", dtype=new.dtype, shape=new.shape, before=producer
            )
        self._replace(found.target, new)

    def _step_shapes(self, found: MovementMatch[ir.Value]) -> dict[int, list[int | None]]:
        """The shape of each step by its ``id``; None for sizes that are free."""
        choices = [{}, *({s.name: s.max if s.example != s.max else s.min} for s in self._graph.free_sizes)]
        known = [
            shapes(found.plan, [self._graph.at(choice).shape(source) for source in found.sources]) for choice in choices
        ]
        return {
            step: [sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*(k[step] for k in known), strict=True)]
            for step in known[0]
        }

    def _insert(self, found: ShiftMatch[ir.Value], origin: Origin) -> ir.Value:
        source = self._materialise(found.base, found.target)
        producer = found.target.producer()
        assert producer is not None
        channels, offsets, axes, channel_axis, border = found.spec.op_args()
        attributes: dict[str, Any] = {
            "channels": channels,
            "offsets": offsets,
            "axes": axes,
            "channel_axis": channel_axis,
            "border": border,
            "origin": origin.to_text(),
        }
        name = self._editor.free_name(_sibling(str(producer.name), "Shift"))
        result = ir.Value(name=f"{name}.out", type=ir.TensorType(found.target.dtype), shape=source.shape)  # type: ignore[arg-type]
        node = ir.Node(
            DOMAIN, "Shift", [source], ir.convenience.convert_attributes(attributes), outputs=[result], name=name
        )
        _note_scope(node, producer)
        if not module_path(producer) and origin.module:
            # Torch's exporter notes nothing of the parts of a chunk, which a shift may end with.
            node.metadata_props[SCOPES] = repr([origin.module, name])
        note_shape(node, self._in_example(found))
        self._editor.graph.insert_before(producer, node)
        return result

    def _in_example(self, found: ShiftMatch[ir.Value]) -> tuple[int, ...]:
        """The sizes of what is shifted."""
        sizes = self._example.shape(found.target)
        if not found.base.shape:
            return sizes
        rest = found.base.shape[1:]
        return (math.prod(sizes) // math.prod(rest), *rest)

    def _viewed(self, whole: ir.Value, sizes: Sequence[int], like: ir.Value) -> ir.Value:
        """A value in another shape, in which one size may be -1, beside the node of a value of as many elements."""
        producer = like.producer()
        assert producer is not None
        known = self._graph.observed_shape(like)
        rest = math.prod(size for size in sizes if size > 0)
        free = None if None in known else math.prod(size for size in known if size is not None) // rest
        name = _sibling(str(producer.name), "Reshape")
        target = self._editor.constant(np.array(sizes, np.int64), f"{name}.shape")
        shape = ir.Shape([free if size < 0 else size for size in sizes])
        view = self._editor.node("Reshape", [whole, target], name=name, dtype=whole.dtype, shape=shape, before=producer)
        reshape = view.producer()
        assert reshape is not None
        _note_scope(reshape, producer)
        return view

    def _replace(self, old: ir.Value, new: ir.Value) -> None:
        move(old, new)
        self._replaced[old] = new

    def _materialise(self, base: Base[ir.Value], like: ir.Value) -> ir.Value:
        """The value of a base, which may be replaced by now; a window becomes a Slice."""
        whole = self._replaced.get(base.node, base.node)
        if base.shape:
            return self._viewed(whole, base.shape, like)
        shape = ir.Shape(list(self._graph.observed_shape(like)))
        if base.axis is None:
            if whole.shape is None or any(
                isinstance(new, int) and not isinstance(old, int) for old, new in zip(whole.shape, shape, strict=True)
            ):
                whole.shape = shape
            return whole
        producer = like.producer()
        assert producer is not None
        name = _sibling(str(producer.name), "Window")
        bounds = [base.start], [base.start + base.length], [base.axis]
        constants = [
            self._editor.constant(np.array(numbers, np.int64), f"{name}.{what}")
            for numbers, what in zip(bounds, ("start", "end", "axis"), strict=True)
        ]
        window = self._editor.node(
            "Slice", [whole, *constants], name=name, dtype=whole.dtype, shape=shape, before=producer
        )
        slicing = window.producer()
        assert slicing is not None
        _note_scope(slicing, producer)
        return window


def _sibling(name: str, kind: str) -> str:
    """The name of a node beside another one."""
    return f"{name.rpartition('/')[0]}/{kind}" if name.startswith("/") else f"{name}/{kind}"


def _note_scope(node: ir.Node, like: ir.Node) -> None:
    """A node belongs to the module of the node that it stands in place of."""
    if SCOPES in like.metadata_props:
        node.metadata_props[SCOPES] = like.metadata_props[SCOPES]


def _origin(graph: OnnxGraph, value: ir.Value, site: ir.Value, idiom: str, sizes: int = 0) -> Origin:
    """The module of a value, and the line of the code that made another one; where the file has none, its node."""
    node, typical = value.producer(), site.producer()
    line = line_of_stack(typical.metadata_props.get(_STACK)) if typical is not None else None
    places = [module_path(place) for place in (node, typical) if place is not None]
    return Origin(
        module=next(filter(None, places), ""),
        line=line.short if line else graph.name(site),
        code=line.code if line else "",
        idiom=idiom,
        sizes=sizes,
    )
