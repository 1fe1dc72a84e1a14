"""The node ``s2mlp::Shift`` of the canonical graph: its schema, its translation from torch, and reading it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import onnx_ir as ir
import onnxscript

from s2mlp_deploy.shift.origin import Origin
from s2mlp_deploy.shift.spec import ShiftSpec

DOMAIN = "s2mlp"

_EXAMPLE = "s2mlp.example"
_UNKNOWN_BATCH, _UNKNOWN = 1, 32
"""What a size that no example tells of counts as: a first one, and others."""


@functools.cache
def shift_opset() -> onnxscript.values.Opset:
    """The operator set that holds ``Shift``, registered with onnx, whose checker would not know it."""
    schema = onnx.defs.OpSchema
    kind = schema.AttrType
    onnx.defs.register_schema(
        schema(
            "Shift",
            DOMAIN,
            1,
            doc="A grouped shift; see s2mlp_deploy.shift.spec.ShiftSpec.",
            inputs=[schema.FormalParameter("X", "T")],
            outputs=[schema.FormalParameter("Y", "T")],
            type_constraints=[
                (
                    "T",
                    [f"tensor({t})" for t in ("float16", "bfloat16", "float", "double", "int32", "int64")],
                    "",
                )
            ],
            attributes=[
                schema.Attribute(name, attribute_type, "")
                for name, attribute_type in (
                    ("channels", kind.INTS),
                    ("offsets", kind.INTS),
                    ("axes", kind.INTS),
                    ("channel_axis", kind.INT),
                    ("border", kind.STRING),
                    ("origin", kind.STRING),
                )
            ],
        )
    )
    return onnxscript.values.Opset(DOMAIN, 1)


def translate_shift(
    x: Any,
    channels: Sequence[int],
    offsets: Sequence[int],
    axes: Sequence[int],
    channel_axis: int,
    border: str,
    origin: str = "",
) -> Any:
    """The exporter's translation of ``torch.ops.s2mlp.shift``."""
    return shift_opset().Shift(
        x,
        channels=list(channels),
        offsets=list(offsets),
        axes=list(axes),
        channel_axis=channel_axis,
        border=border,
        origin=origin,
    )


def spec_of(node: ir.Node) -> ShiftSpec:
    """The specification a canonical ``Shift`` node carries."""
    get = node.attributes
    return ShiftSpec.from_op_args(
        get["channels"].as_ints(),
        get["offsets"].as_ints(),
        get["axes"].as_ints(),
        get["channel_axis"].as_int(),
        get["border"].as_string(),
    )


def origin_of(node: ir.Node) -> Origin:
    """Where a canonical ``Shift`` node comes from; empty where its maker did not say."""
    text = node.attributes.get("origin")
    return Origin.from_text(text.as_string()) if text is not None else Origin()


def note_example(node: ir.Node, sizes: Mapping[str, int]) -> None:
    """Keeps with a canonical ``Shift`` node how large its tensor is in the example.

    Args:
        node: The node.
        sizes: Of the example, by the symbols in the graph's shapes.
    """
    node.meta[_EXAMPLE] = _example(node, sizes)


def note_shape(node: ir.Node, shape: Sequence[int]) -> None:
    """Keeps with a canonical ``Shift`` node the shape that its tensor has in the example."""
    node.meta[_EXAMPLE] = tuple(shape)


def example_of(node: ir.Node) -> tuple[int, ...]:
    """The sizes that were kept with a canonical ``Shift`` node; where none were, sizes that networks often have."""
    kept: tuple[int, ...] | None = node.meta.get(_EXAMPLE)
    return kept if kept is not None else _example(node, {})


def _example(node: ir.Node, sizes: Mapping[str, int]) -> tuple[int, ...]:
    x = node.inputs[0]
    assert x is not None
    assert x.shape is not None
    known = [size if isinstance(size, int) else _evaluated(size, sizes) for size in x.shape]
    return tuple(
        size if isinstance(size, int) and size > 0 else (_UNKNOWN if axis else _UNKNOWN_BATCH)
        for axis, size in enumerate(known)
    )


def _evaluated(size: ir.SymbolicDim, sizes: Mapping[str, int]) -> int | ir.SymbolicDim:
    try:
        return size.evaluate(sizes)
    except ValueError:  # A function of torch's (PythonMod) that onnx_ir cannot read.
        return size
