"""The shifts of a file of this package in another form: what was lowered is lowered again.

Needs neither the model nor torch. Each shift's nodes are known by their names, which the manifest keeps, so nothing is
recognised and nothing can be mistaken; a file whose shifts are not where its manifest says is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from s2mlp_deploy.artifact import OF_SHIFTS, ShiftRecord
from s2mlp_deploy.errors import ExportError
from s2mlp_deploy.export.forms import ShiftForm
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.export.shift_node import DOMAIN
from s2mlp_deploy.graph.editing import drop_unused_initializers, move

_FIX = "export the model again with --shift-form"


def relower(
    model: ir.Model, shifts: Sequence[ShiftRecord], form: ShiftForm | None
) -> tuple[ir.Model, tuple[ShiftRecord, ...]]:
    """Writes every shift in another form, in a copy of the model; weights are shared, not copied.

    Args:
        model: Of any precision; its types are known.
        shifts: As the manifest has them.
        form: How they are written; None is ``auto``.

    Returns:
        The model, and its shifts in the order of ``shifts``; those that move nothing stay as they are.

    Raises:
        ExportError: The nodes of a shift are not those that were written, or it cannot take this form.
    """
    return lower_again(lift(model, shifts), shifts, form)


def lift(model: ir.Model, shifts: Sequence[ShiftRecord]) -> ir.Model:
    """Takes the form of every shift back, in a copy of the model; weights are shared, not copied.

    Args:
        model: Of any precision; its types are known.
        shifts: As the manifest has them.

    Raises:
        ExportError: The nodes of a shift are not those that were written.
    """
    canonical = model.clone()
    for shift in shifts:
        if shift.nodes:
            _lift(canonical.graph, shift)
    drop_unused_initializers(canonical.graph)
    for number, value in enumerate(list(canonical.graph.initializers.values())):
        # What is left of an earlier lowering would have the name of a constant of this one.
        if str(value.name).startswith(OF_SHIFTS):
            value.name = f"earlier.{number}.{value.name}"
    canonical.opset_imports[DOMAIN] = 1
    return canonical


def lower_again(
    canonical: ir.Model, shifts: Sequence[ShiftRecord], form: ShiftForm | None
) -> tuple[ir.Model, tuple[ShiftRecord, ...]]:
    """Writes the shifts of what :func:`lift` returned.

    Args:
        canonical: It.
        shifts: As they were given there.
        form: How they are written; None is ``auto``.

    Returns:
        See :func:`relower`.

    Raises:
        ExportError: A shift cannot take this form.
    """
    lowered, written = lower_shifts(canonical, form, others=True)
    drop_unused_initializers(lowered.graph)
    by_name = {record.name: record for record in written}
    return lowered, tuple(by_name.get(shift.name, shift) if shift.nodes else shift for shift in shifts)


def _lift(graph: ir.Graph, shift: ShiftRecord) -> None:
    """Puts one ``Shift`` in place of the nodes that it was written as."""
    nodes = [node for node in graph if str(node.name).startswith(f"{shift.name}/")]
    inner = {value for node in nodes for value in node.outputs}
    given = {
        value
        for node in nodes
        for value in node.inputs
        if value is not None and value not in inner and value.const_value is None
    }
    results = [
        value
        for node in nodes
        for value in node.outputs
        if value.is_graph_output() or any(reader not in nodes for reader, _ in value.uses())
    ]
    if len(nodes) != shift.nodes or len(given) != 1 or len(results) != 1:
        raise ExportError(
            f"the shift is not the {shift.nodes} nodes that the manifest names, but {len(nodes)} nodes with "
            f"{len(given)} inputs and {len(results)} outputs",
            where=shift.name,
            fix=_FIX,
        )
    (source,), (result,) = given, results
    if source.shape is None or source.dtype is None:
        raise ExportError("the type of the tensor that is shifted is not known", where=shift.name, fix=_FIX)
    channels, offsets, axes, channel_axis, border = shift.spec.op_args()
    lifted = ir.Value(name=f"{shift.name}.out", type=ir.TensorType(source.dtype), shape=source.shape)
    node = ir.Node(
        DOMAIN,
        "Shift",
        [source],
        ir.convenience.convert_attributes(
            {
                "channels": channels,
                "offsets": offsets,
                "axes": axes,
                "channel_axis": channel_axis,
                "border": border,
                "origin": shift.origin.to_text(),
            }
        ),
        outputs=[lifted],
        name=shift.name,
    )
    graph.insert_before(nodes[0], node)
    move(result, lifted)
    for old in reversed(nodes):
        graph.remove(old, safe=True)
