"""The promised precision: where the promise comes from, and whether the network keeps it."""

from __future__ import annotations

from s2mlp_deploy.engines.tensorrt.graph import OnnxFile, base_precision
from s2mlp_deploy.engines.tensorrt.quantized import has_quantized_values
from s2mlp_deploy.errors import CheckFailedError, InputError
from s2mlp_deploy.evidence.build import Contents, MatrixOp

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")
_QUANTIZED = ("int8", "fp8")
_SHOWN = 8


def promised_precision(file: OnnxFile, asked: str | None) -> str | None:
    """The precision the engine must have: what the user asked for, else what the file's metadata says.

    Raises:
        InputError: There is no such precision, or it cannot come out of this file.
    """
    if asked is None:
        return file.promised
    wanted = base_precision(asked)
    if wanted not in PRECISIONS:
        raise InputError(f"there is no precision {asked!r}", fix=f"choose one of {', '.join(PRECISIONS)}")
    if wanted in _QUANTIZED and not has_quantized_values(file):
        raise InputError(
            f"{wanted} was asked for, and the file has no Q/DQ pair: precision lives in the graph",
            where=str(file.path),
            fix=f"export with --precision {wanted} and build that file",
        )
    if file.promised is not None and file.promised != wanted:
        raise InputError(
            f"{wanted} was asked for, and the file says it is {file.promised}",
            where=str(file.path),
            fix=f"build the {wanted} file of the artifact, or leave --precision out",
        )
    return wanted


def breaking(file: OnnxFile, precision: str | None, contents: Contents) -> tuple[MatrixOp, ...]:
    """GEMMs and convolutions that are not in the promised precision, and are neither exceptions nor part of a shift.

    A parsed network says exactly what each GEMM computes in. A built engine has fused them, and only tells that one was
    left in fp32.
    """
    if precision is None:
        return ()
    fused = contents.source == "engine"
    return tuple(
        op
        for op in contents.matrix_ops
        if (precision != "fp32" and op.precision == "fp32" if fused else op.precision != precision)
        and not _excused(file, precision, op.name)
    )


def _excused(file: OnnxFile, precision: str, name: str) -> bool:
    # An engine joins the names of what it fused.
    parts = name.split(" + ")
    return any(item.covers(part) for part in parts for item in file.exceptions) or (
        precision in _QUANTIZED and any(map(file.is_shift, parts))
    )


def check_promise(file: OnnxFile, precision: str | None, contents: Contents) -> None:
    """Compares what is inside with what was promised.

    Raises:
        CheckFailedError: A GEMM computes in another precision; names the layers.
    """
    found = breaking(file, precision, contents)
    if not found:
        return
    lines = [f"{op.name}: {op.precision}" for op in found[:_SHOWN]]
    if len(found) > _SHOWN:
        lines.append(f"and {len(found) - _SHOWN} more")
    raise CheckFailedError(
        f"the file promises {precision}, and {len(found)} of {len(contents.matrix_ops)} GEMMs and convolutions "
        "are not\n    " + "\n    ".join(lines),
        where=f"{file.path} ({contents.source})",
        fix=f"export with --precision {precision}, which treats every GEMM and lists the exceptions in the manifest",
    )
