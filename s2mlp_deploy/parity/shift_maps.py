"""A file's shifts, read off the file: the proof that it moves elements as its source does.

No tolerance can tell a wrong shift from rounding: in int8 a channel group turned round changes the outputs less than
the quantization does. But a shift is movement and nothing else, so its index map can be read exactly. The nodes of a
shift carry its name; they are cut out of the graph that is judged and run on numbered elements, in the type that they
have there, and the result must be what the specification says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from s2mlp_deploy.artifact import ShiftRecord
from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine
from s2mlp_deploy.errors import BuildError
from s2mlp_deploy.evidence.parity import GraphProof
from s2mlp_deploy.graph.operators import array_of, data_inputs
from s2mlp_deploy.parity.exits import CASTS, root_of
from s2mlp_deploy.shift.op import shift
from s2mlp_deploy.shift.spec import ShiftSpec

_FREE_SIZES = ((7, 11, 5, 6, 9), (4, 3, 8, 13, 2))
"""Values of free sizes, in order of appearance; more than a step or two of most shifts, odd and even."""
_MOST_ELEMENTS = 1 << 26
_DIGITS = {
    ir.DataType.FLOAT: 1 << 23,
    ir.DataType.DOUBLE: 1 << 50,
    ir.DataType.FLOAT16: 1 << 11,
    ir.DataType.BFLOAT16: 1 << 8,
    ir.DataType.UINT8: 1 << 8,
    ir.DataType.INT8: 1 << 7,
    ir.DataType.INT32: 1 << 30,
    ir.DataType.INT64: 1 << 50,
    ir.DataType.FLOAT8E4M3FN: 1 << 8,
}
"""How many whole numbers from 0 on each type holds exactly. Larger ones are run digit by digit."""


class _WrongError(Exception):
    """The file has no such shift; says why."""


class _UnreadError(Exception):
    """A shift cannot be read off the file; says why."""


@dataclass(frozen=True)
class _Piece:
    """The nodes of one shift.

    Attributes:
        sources: What they read; several where the tensor is there in several types.
        result: What others read of them.
        shape: Of the tensor that moves.
        zero: What 0 is in its type: the zero point where it holds integers.
    """

    sources: tuple[ir.Value, ...]
    result: ir.Value
    shape: tuple[int | None, ...]
    zero: int


def prove_shifts(graph: ir.Graph, shifts: Sequence[ShiftRecord], source: Sequence[ShiftSpec] | None) -> GraphProof:
    """Compares the index maps of a file's shifts with their specifications, and these with the source's.

    Args:
        graph: Of the file.
        shifts: What the file says of its shifts.
        source: The shifts of the module that the file is compared with; None where they are not known.
    """
    named = [record for record in shifts if record.nodes]
    if any(not record.name for record in named):
        return GraphProof(0, unread="the file does not name the nodes of its shifts: it is of an older version")
    told = [record.spec for record in shifts]
    failures = list(_other_shifts(told, source))
    proven, unread = 0, list(_uncounted(told, source))
    for record in shifts:
        # Only a turn by whole axes takes no node; that there is one cannot be seen without the axis' size.
        if not record.nodes and not record.spec.is_identity:
            if record.spec.border == "circular":
                unread.append(f"{_site(record)} has no nodes")
            else:
                failures.append(f"{_site(record)} has no nodes in the file, and it moves elements")
    for record in named:
        try:
            _judge(graph, record)
            proven += 1
        except _WrongError as error:
            failures.append(f"{_site(record)} {error}")
        except _UnreadError as error:
            unread.append(f"{_site(record)} {error}")
    return GraphProof(proven, failures=tuple(failures), unread="; ".join(unread))


def _site(record: ShiftRecord) -> str:
    where = record.origin.module or record.name
    return f"the shift of {where}{f' ({record.origin.line})' if record.origin.line else ''}"


def _other_shifts(told: Sequence[ShiftSpec], source: Sequence[ShiftSpec] | None) -> Iterator[str]:
    """Shifts that only one of the file and the source has; equal ones may be computed once."""
    if source is None:
        return
    moving, wanted = ({spec for spec in specs if not spec.is_identity} for specs in (told, source))
    if moving != wanted:
        strange = next(iter(moving - wanted), None)
        yield (
            f"the file has a shift that its source has not: {_in_words(strange)}"
            if strange is not None
            else f"the source has a shift that the file has not: {_in_words(next(iter(wanted - moving)))}"
        )


def _uncounted(told: Sequence[ShiftSpec], source: Sequence[ShiftSpec] | None) -> Iterator[str]:
    """Shifts of the source that the file does not list: equal ones of one tensor are computed once, others must be."""
    missing = len(source) - len(told) if source is not None else 0
    if missing > 0:
        yield f"the file lists {missing} fewer than its source has, which equal shifts of one tensor would explain"


def _in_words(spec: ShiftSpec) -> str:
    steps = ", ".join(f"{group.channels} channels by {group.offsets}" for group in spec.groups[:4])
    return f"{steps}{', ...' if len(spec.groups) > 4 else ''} along the axes {spec.axes}, border {spec.border}"


def _judge(graph: ir.Graph, record: ShiftRecord) -> None:
    """Returns where a shift's map is the specification's.

    Raises:
        _WrongError: It is another one.
        _UnreadError: The map cannot be read.
    """
    owner, nodes = _nodes_of(graph, record.name)
    piece = _cut(nodes)
    part = ir.convenience.extract(owner, piece.sources, [piece.result])
    _as_bytes(part)
    _in_memory(part)
    model = ir.Model(part, ir_version=10)
    model.opset_imports.update(graph.opset_imports)
    for name, value in zip((f"source{i}" for i in range(len(piece.sources))), part.inputs, strict=False):
        value.name = name
    try:
        engine = OnnxRuntimeEngine(ir.to_proto(model).SerializeToString(), threads=1, optimize="off")
    except BuildError as error:
        raise _WrongError(f"cannot be run by itself: {error.problem}") from error
    for sizes in _FREE_SIZES if any(size is None for size in piece.shape) else _FREE_SIZES[:1]:
        shape = _concrete(piece.shape, sizes)
        for digits in _numbered(shape, [value.dtype for value in piece.sources]):
            feeds = {info.name: digits.astype(info.dtype) for info in engine.inputs}
            try:
                (moved,) = engine.run(feeds).values()
            except BuildError as error:
                raise _WrongError(f"cannot be run at {list(shape)}: {error.problem}") from error
            wanted = shift(torch.from_numpy(digits - piece.zero), record.spec).numpy() + piece.zero
            if moved.shape != wanted.shape:
                raise _WrongError(f"gives the shape {list(moved.shape)}, its specification {list(wanted.shape)}")
            wrong = moved.astype(np.float64) != wanted
            if wrong.any():
                raise _WrongError(_difference(record.spec, wrong))


def _as_bytes(part: ir.Graph) -> None:
    """Moves 8-bit floats as bytes, which is the same movement: ONNX Runtime's Python knows no such numbers."""
    values = [*part.inputs, *part.initializers.values(), *(value for node in part for value in node.outputs)]
    for value in values:
        if value.dtype == ir.DataType.FLOAT8E4M3FN:
            array = array_of(value)
            value.type = ir.TensorType(ir.DataType.UINT8)
            if array is not None:
                value.const_value = ir.tensor(array.view(np.uint8), name=value.name)


def _in_memory(part: ir.Graph) -> None:
    """Takes tables that lie beside the file into the graph, which is run from memory."""
    for value in part.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = ir.tensor(value.const_value.numpy(), name=value.name)


def _difference(spec: ShiftSpec, wrong: NDArray[np.bool_]) -> str:
    start, told = 0, []
    for number, group in enumerate(spec.groups):
        channels = range(start, start + group.channels)
        start = channels.stop
        count = int(wrong.take(channels, axis=spec.channel_axis).sum())
        if count:
            told.append(f"group {number} (channels {channels[0]} to {channels[-1]}, by {group.offsets})")
    share = wrong.mean()
    return f"moves other elements than its source: {', '.join(told[:4])}; {share:.1%} of its elements are wrong"


def _nodes_of(graph: ir.Graph, name: str) -> tuple[ir.Graph, dict[ir.Node, None]]:
    """The nodes of a shift, and the graph or branch that holds them.

    Raises:
        _WrongError: There are none.
    """
    nodes = [node for node in graph.all_nodes() if str(node.name).startswith(f"{name}/")]
    if not nodes or nodes[0].graph is None:
        raise _WrongError("is not in the file: it has no nodes of that name")
    # The Q, DQ and Cast behind a value of a shift have its name too; those that it ends in are no part of it.
    core = [node for node in nodes if node.op_type not in CASTS]
    inner = {node: None for node in nodes if node.op_type not in CASTS or _leads_to(node, set(core))}
    owner = nodes[0].graph
    assert isinstance(owner, ir.Graph)
    return owner, inner


def _leads_to(node: ir.Node, core: set[ir.Node]) -> bool:
    """Whether only further Q, DQ and Cast stand between a node and one of the shift's own."""
    return any(
        reader in core or (reader.op_type in CASTS and _leads_to(reader, core))
        for value in node.outputs
        for reader, _ in value.uses()
    )


def _cut(nodes: dict[ir.Node, None]) -> _Piece:
    """Where a shift begins and ends.

    Raises:
        _WrongError: It reads several tensors, has several results, or its result goes nowhere.
        _UnreadError: Its shape is not known.
    """
    produced = {value for node in nodes for value in node.outputs}
    read = dict.fromkeys(
        value
        for node in nodes
        for value in node.inputs
        if value is not None and value not in produced and array_of(value) is None
    )
    results = [
        value for value in produced if value.is_graph_output() or any(reader not in nodes for reader, _ in value.uses())
    ]
    if len(results) != 1:
        raise _WrongError(f"has {len(results)} results in the file" if results else "leads nowhere in the file")
    roots = {root_of(value) for value in read}
    if len(roots) != 1:
        raise _WrongError(f"reads {len(roots)} tensors in the file")
    # Where integers are moved, the floats above them may still be asked for their shape.
    first = next((value for value in read if value.dtype == results[0].dtype), next(iter(read)))
    result = _in_the_type_of(results[0], first)
    known = next((value.shape for value in (first, *read, next(iter(roots)), results[0]) if value.shape), None)
    if known is None:
        raise _UnreadError("has no shape in the file")
    shape = tuple(size if isinstance(size, int) else None for size in known)
    return _Piece(tuple(read), result, shape, _zero_of(first))


def _in_the_type_of(result: ir.Value, source: ir.Value) -> ir.Value:
    """The result behind the Q or Cast that gives it the type of the source: a convolution moves integers as floats."""
    while result.dtype != source.dtype:
        following = [reader for reader, _ in result.uses() if reader.op_type in CASTS]
        if len(following) != 1:
            raise _WrongError(f"has results of another type than its source: {result.dtype}, {source.dtype}")
        result = following[0].outputs[0]
    return result


def _zero_of(value: ir.Value) -> int:
    """The zero point of integers that are moved; 0 for every other type."""
    producer = value.producer()
    # Other movement may stand between the Q and the shift: nothing else has integers of one type on both sides.
    while producer is not None and producer.op_type != "QuantizeLinear":
        same = [producer.inputs[index] for index in data_inputs(producer)]
        above = next((source for source in same if source is not None and source.producer() is not None), None)
        producer = above.producer() if above is not None and above.dtype == value.dtype else None
    if producer is None or producer.op_type != "QuantizeLinear" or len(producer.inputs) < 3:
        return 0
    zero = array_of(producer.inputs[2])
    return 0 if zero is None or value.dtype == ir.DataType.FLOAT8E4M3FN else int(zero)


def _concrete(shape: tuple[int | None, ...], sizes: Sequence[int]) -> tuple[int, ...]:
    free = iter(sizes)
    found = tuple(next(free) if size is None else size for size in shape)
    if math.prod(found) > _MOST_ELEMENTS:
        raise _UnreadError(f"moves {math.prod(found)} elements, too many to number")
    return found


def _numbered(shape: tuple[int, ...], dtypes: Sequence[ir.DataType | None]) -> Iterator[NDArray[np.int64]]:
    """Numbers from 1 on, one for each element, as digits that every type holds."""
    base = min(_DIGITS.get(dtype, 0) if dtype is not None else 0 for dtype in dtypes)
    if not base:
        raise _UnreadError(f"moves {', '.join(map(str, dict.fromkeys(dtypes)))}, which cannot be numbered")
    numbers = np.arange(1, math.prod(shape) + 1, dtype=np.int64).reshape(shape)
    while True:
        yield numbers % base
        numbers //= base
        if not numbers.any():
            return
