"""Which precision an engine must have, and whether the network has it."""

from __future__ import annotations

import logging

from s2mlp_deploy.artifact.engine_files import MADE, how_to_get
from s2mlp_deploy.engines.tensorrt.graph import OnnxFile, base_precision
from s2mlp_deploy.engines.tensorrt.quantized import has_quantized_values
from s2mlp_deploy.errors import CheckFailedError, InputError
from s2mlp_deploy.evidence.build import Contents, MatrixOp
from s2mlp_deploy.graph.operators import MATRIX_OPS
from s2mlp_deploy.text import join_names

_LOG = logging.getLogger(__name__)
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")
_QUANTIZED = ("int8", "fp8")
_SHOWN = 8


def required_precision(file: OnnxFile, asked: str | None) -> str | None:
    """The precision the engine must have: what the user asked for, else what the file's metadata says.

    Raises:
        InputError: There is no such precision, or it cannot come out of this file.
    """
    if asked is None:
        return file.precision
    wanted = base_precision(asked)
    if wanted not in PRECISIONS:
        raise InputError(
            f"there is no precision {asked!r}", fix=f"choose one of {join_names(PRECISIONS, limit=None, last='or')}"
        )
    if wanted in _QUANTIZED and not has_quantized_values(file):
        raise InputError(
            f"{wanted} was asked for, and the file has no Q/DQ pair: a strongly typed network takes its precision from "
            "the graph",
            where=str(file.path),
            fix=f"export with --precision {wanted} and build that file",
        )
    if file.precision is not None and file.precision != wanted:
        raise InputError(
            f"{wanted} was asked for, and the metadata of the file says {file.precision}",
            where=str(file.path),
            fix=f"build the {wanted} file of the artifact, or leave --precision out",
        )
    return wanted


def violations(file: OnnxFile, precision: str | None, contents: Contents) -> tuple[MatrixOp, ...]:
    """GEMMs and convolutions that compute in another precision than the required one and are not exempt.

    A parsed network says exactly what each of them computes in. A built engine has fused them, and only tells that one
    was left in fp32.

    Args:
        file: The graph.
        precision: The required one; None where nothing is required.
        contents: Of the parsed network or the built engine.
    """
    if precision is None:
        return ()
    fused = contents.source == "engine"
    return tuple(
        op
        for op in contents.matrix_ops
        if (precision != "fp32" and op.precision == "fp32" if fused else op.precision != precision)
        and not exempt(file, precision, op.name)
    )


def exempt(file: OnnxFile, precision: str, layer: str) -> bool:
    """Whether a layer may compute in another precision than the required one.

    That is an exception of the manifest or, in a quantized file, a convolution that is a shift (``grouped-conv``): it
    moves values, and Q/DQ would only cost time there. Layers without a name are what the parser makes of a recurrence.

    Args:
        file: The graph.
        precision: The required one.
        layer: Its name; an engine joins the names of what it fused with ``+``.
    """
    parts = layer.split(" + ")
    return any(item.covers(part) for part in parts for item in file.exceptions) or (
        precision in _QUANTIZED and (any(map(file.is_shift, parts)) or (_is_unnamed(layer) and _has_recurrence(file)))
    )


def _is_unnamed(layer: str) -> bool:
    return layer.startswith("(Unnamed Layer")


def _has_recurrence(file: OnnxFile) -> bool:
    return any(node.op_type in ("GRU", "LSTM", "RNN") for node in file.nodes)


def check_precision(file: OnnxFile, precision: str | None, contents: Contents) -> None:
    """Compares what a network or an engine computes in with the required precision.

    Raises:
        CheckFailedError: A GEMM or convolution computes in another precision; names the layers.
    """
    _refuse(file, precision, contents, violations(file, precision, contents))


def check_engine(file: OnnxFile, precision: str | None, contents: Contents) -> None:
    """The same for what the inspector tells of an engine, which has fused layers and speaks a language of its own.

    A layer of nothing but GEMMs that reads fp32 is a violation. In a layer with other parts the fp32 may be that of one
    of these, and what is not known proves nothing: both are warnings.

    Raises:
        CheckFailedError: A GEMM or convolution was left in fp32; names the layers.
    """
    for line in contents.unclear:
        _LOG.warning("the inspector of the engine: %s", line)
    alone = {node.name for node in file.nodes if node.op_type in MATRIX_OPS}
    found = violations(file, precision, contents)
    sure = tuple(op for op in found if alone.issuperset(op.name.split(" + ")))
    unsure = tuple(op for op in found if op not in sure)
    if unsure:
        _LOG.warning(
            "%d fused layers of the engine read fp32, which may be that of a part that is no GEMM: %s",
            len(unsure),
            join_names(op.name for op in unsure),
        )
    _refuse(file, precision, contents, sure)


def _refuse(file: OnnxFile, precision: str | None, contents: Contents, found: tuple[MatrixOp, ...]) -> None:
    if not found:
        return
    lines = [f"{op.name}: {op.precision}" for op in found[:_SHOWN]]
    if len(found) > _SHOWN:
        lines.append(f"and {len(found) - _SHOWN} more")
    converts = (
        f"export with --precision {precision}, which converts all of them and lists the exceptions in the manifest"
    )
    raise CheckFailedError(
        f"{precision} is required, and {len(found)} of {len(contents.matrix_ops)} GEMMs and convolutions compute in "
        "another precision\n    " + "\n    ".join(lines),
        where=f"{file.path} ({contents.source})",
        fix=converts if precision in MADE else how_to_get(str(precision)),
    )
