"""Which file of an artifact is meant for an engine."""

from __future__ import annotations

from s2mlp_deploy.artifact.manifest import FileRecord, Manifest
from s2mlp_deploy.errors import ArtifactError
from s2mlp_deploy.text import join_names

DEFAULT_FILES = {
    "tensorrt": ("int8-trt", "fp16", "fp32"),
    "tensorrt-rtx": ("int8-trt", "fp16", "fp32"),
    "onnxruntime": ("int8", "fp32"),
    "openvino": ("int8-trt", "int8", "fp32"),
}
"""By engine the precisions of files that it runs best, the fastest first.

fp8 needs a GPU that has it, and fp16 on a processor is no faster than fp32: neither is a default. OpenVINO is fastest
with Q and DQ on the inputs of GEMMs alone, as TensorRT wants them.
"""


MADE = ("fp32", "fp16", "int8", "fp8")
"""What ``--precision`` of ``export`` and ``quantize`` takes."""


def file_for_engine(manifest: Manifest, engine: str, precision: str | None = None) -> FileRecord:
    """The file of an artifact that is meant for an engine.

    Args:
        manifest: Of the artifact.
        engine: ``tensorrt``, ``tensorrt-rtx``, ``onnxruntime`` or ``openvino``.
        precision: What it must compute in, ``int8`` for example; default: the fastest file there is that every GPU or
            processor of that engine runs, or the only one.

    Raises:
        ArtifactError: There is no such file; says which there are.
    """
    placed = "" if engine == "onnxruntime" else "-trt"
    wanted = DEFAULT_FILES[engine] if precision is None else (f"{precision}{placed}", precision)
    graphs: dict[str, FileRecord] = {}
    for record in manifest.files:  # Of two of a precision the first is the artifact's own, the other one a tuned copy.
        if record.path.endswith(".onnx"):
            graphs.setdefault(record.precision, record)
    for name in wanted:
        if name in graphs:
            return graphs[name]
    if precision is None and len(graphs) == 1:
        # Of an ONNX file that computes in another precision already, which is taken as it is.
        return next(iter(graphs.values()))
    there = join_names(graphs, last="or")
    raise ArtifactError(
        f"the artifact has no {precision or 'fp32'} file for {engine}, only {there}",
        fix=f"name a file of it, or {how_to_get(precision or 'fp32')}",
    )


def how_to_get(precision: str) -> str:
    """How to get a file in a precision, in words that end a fix.

    Args:
        precision: As a command, a file or an engine names it: ``int8``, ``int8-trt``, ``bf16``.
    """
    made = precision.partition("-")[0]
    if made in MADE:
        return f"add one: export or quantize with --precision {made}"
    return f"give an ONNX file that is in {made}: export and quantize make {join_names(MADE, last='and')}"
