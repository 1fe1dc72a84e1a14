"""A movement's plain steps as operators: of ONNX, and of a program of ``torch.export``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument
from torch.fx import Node

from s2mlp_deploy.graph.editing import Editor
from s2mlp_deploy.recognition.plan import END


class OnnxWriter:
    """Writes steps in front of a node.

    Args:
        editor: Of the graph.
        before: The node.
        dtype: Of the elements.
        named: Names a node by its operator.
        note: Told of each new node.
    """

    def __init__(
        self,
        editor: Editor,
        before: ir.Node,
        dtype: ir.DataType | None,
        named: Callable[[str], str],
        note: Callable[[ir.Node], None],
    ) -> None:
        self._editor = editor
        self._before = before
        self._dtype = dtype
        self._named = named
        self._note = note

    def slice(self, x: ir.Value, windows: Sequence[tuple[int, int, int, int]]) -> ir.Value:
        """See :class:`~s2mlp_deploy.recognition.plan.Writer`."""
        axes, starts, stops, strides = zip(*windows, strict=True)
        bounds = [("starts", starts), ("ends", stops), ("axes", axes)]
        if any(stride != 1 for stride in strides):
            bounds.append(("steps", strides))
        return self._node("Slice", [x, *(self._ints(numbers, what) for what, numbers in bounds)])

    def lookup(self, x: ir.Value, axis: int, table: Sequence[int]) -> ir.Value:
        """See there."""
        return self._node("Gather", [x, self._ints(table, "table")], {"axis": axis})

    def reshape(self, x: ir.Value, shape: Sequence[int | None], free: Sequence[int]) -> ir.Value:
        """See there. A size that is free is left open; of several, each is that of the same axis."""
        if len(free) == 1:
            sizes = [-1 if size is None else size for size in shape]
        else:
            sizes = [0 if size is None else size for size in shape]
        return self._node("Reshape", [x, self._ints(sizes, "shape")])

    def permute(self, x: ir.Value, order: Sequence[int]) -> ir.Value:
        """See there."""
        return self._node("Transpose", [x], {"perm": list(order)})

    def pad(self, x: ir.Value, amounts: Sequence[tuple[int, int]]) -> ir.Value:
        """See there."""
        pads = [amount for side in (0, 1) for amount in (pair[side] for pair in amounts)]
        return self._node("Pad", [x, self._ints(pads, "pads")])

    def join(self, parts: Sequence[ir.Value], axis: int) -> ir.Value:
        """See there."""
        return self._node("Concat", list(parts), {"axis": axis})

    def _node(self, kind: str, inputs: Sequence[ir.Value], attributes: Mapping[str, Any] | None = None) -> ir.Value:
        made = self._editor.node(
            kind, inputs, attributes, name=self._named(kind), dtype=self._dtype, shape=None, before=self._before
        )
        node = made.producer()
        assert node is not None
        self._note(node)
        return made

    def _ints(self, numbers: Sequence[int], what: str) -> ir.Value:
        return self._editor.constant(np.asarray(numbers, np.int64), f"{self._named(what)}")


class FxWriter:
    """Writes steps in front of a node of a program.

    Args:
        program: The node's.
        before: The node.
    """

    def __init__(self, program: ExportedProgram, before: Node) -> None:
        self._program = program
        self._graph = program.graph
        self._before = before

    def slice(self, x: Node, windows: Sequence[tuple[int, int, int, int]]) -> Node:
        """See :class:`~s2mlp_deploy.recognition.plan.Writer`."""
        aten = torch.ops.aten
        turned = [axis for axis, _, _, step in windows if step < 0]
        if turned:
            x = self._call(aten.flip.default, x, turned)
        for axis, start, stop, step in windows:
            first, last, stride = start, stop, step
            if step < 0:
                # These count from the end: the last is the first of what is turned round.
                first, last, stride = -1 - start, END if stop == -END else -1 - stop, -step
            if (first, stride) != (0, 1) or last != END:
                x = self._call(aten.slice.Tensor, x, axis, first, last, stride)
        return x

    def lookup(self, x: Node, axis: int, table: Sequence[int]) -> Node:
        """See there."""
        places = self._constant(torch.tensor(table, dtype=torch.int64))
        return self._call(torch.ops.aten.index_select.default, x, axis, places)

    def reshape(self, x: Node, shape: Sequence[int | None], free: Sequence[int]) -> Node:
        """See there.

        Where no size is free the first one is left open: torch takes a free size for two or more, and so the first two
        samples of a batch for two, where there may be one.
        """
        if None not in shape and 0 not in shape[1:]:
            shape, free = (None, *shape[1:]), (0,)
        sizes: list[Any] = list(shape)
        places = [place for place, size in enumerate(shape) if size is None]
        for place, axis in zip(places, free, strict=True):
            sizes[place] = -1 if len(free) == 1 else self._call(torch.ops.aten.sym_size.int, x, axis)
        return self._call(torch.ops.aten.reshape.default, x, sizes)

    def permute(self, x: Node, order: Sequence[int]) -> Node:
        """See there."""
        return self._call(torch.ops.aten.permute.default, x, list(order))

    def pad(self, x: Node, amounts: Sequence[tuple[int, int]]) -> Node:
        """See there."""
        numbers = [amount for pair in reversed(amounts) for amount in pair]
        return self._call(torch.ops.aten.constant_pad_nd.default, x, numbers, 0)

    def join(self, parts: Sequence[Node], axis: int) -> Node:
        """See there."""
        return self._call(torch.ops.aten.cat.default, list(parts), axis)

    def _call(self, operator: Any, *arguments: Any) -> Node:
        with self._graph.inserting_before(self._before):
            node: Node = self._graph.call_function(operator, arguments)
        # No value: to compute one may fix a size that is free (padding does), and only the last is asked for.
        node.meta = {key: value for key, value in self._before.meta.items() if key != "val"}
        return node

    def _constant(self, table: Tensor) -> Node:
        """A constant of the program; equal ones are one for the exporter."""
        signature, constants = self._program.graph_signature, self._program.constants
        name = next(name for i in range(len(constants) + 1) if (name := f"movement_table_{i}") not in constants)
        first = next(iter(self._graph.nodes))
        with self._graph.inserting_before(first):
            node: Node = self._graph.placeholder(name)
        mode = getattr(self._before.meta["val"], "fake_mode", None)
        # Of fixed sizes: the mode would else give it free ones, of which a guard of the program then speaks.
        node.meta["val"] = table if mode is None else mode.from_tensor(table, static_shapes=True)
        constants[name] = table
        spec = InputSpec(InputKind.CONSTANT_TENSOR, TensorArgument(node.name), name)
        signature.input_specs.insert(0, spec)
        return node
