"""Builds: what an engine file was made from and for. The same record is the engine's sidecar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from s2mlp_deploy.artifact import SizeLimit, TensorInfo
from s2mlp_deploy.evidence.machine import Environment
from s2mlp_deploy.evidence.notebook import ShownInNotebooks
from s2mlp_deploy.text import command_line

Shape = tuple[int, ...]


@dataclass(frozen=True)
class InputProfile:
    """The range of one input's shape.

    Attributes:
        min: Smallest size along each axis.
        opt: The shape to tune for.
        max: Largest size along each axis.
    """

    min: Shape
    opt: Shape
    max: Shape

    def takes(self, shape: Sequence[int]) -> bool:
        """Whether a shape lies inside."""
        return len(shape) == len(self.min) and all(
            low <= size <= high for low, size, high in zip(self.min, shape, self.max, strict=True)
        )


Profile = dict[str, InputProfile]
"""One optimization profile: the ranges of all dynamic inputs that hold together."""


@dataclass(frozen=True)
class MatrixOp:
    """A GEMM or a convolution of a network or an engine.

    Attributes:
        name: Of the layer, which is the ONNX node's; of a fused layer those of its nodes, joined by ``+``.
        precision: ``fp32``, ``fp16``, ``bf16``, or the quantized type that both its inputs were dequantized from; of an
            engine ``unknown`` where the inspector does not tell.
    """

    name: str
    precision: str


@dataclass(frozen=True)
class Contents:
    """What is inside a parsed network or a built engine.

    Attributes:
        source: ``network`` (parsed, before building) or ``engine`` (EngineInspector, after building).
        layers: How many layers.
        types: How many of each kind.
        dtypes: How many outputs have each element type.
        formats: How many outputs have each memory format; an engine's only.
        reformats: Layers that only change a format or a type; an engine's only.
        matrix_ops: GEMMs and convolutions in order; for an engine, those the inspector names as such.
        unclear: What the inspector said that is not known here, in words; an engine's only.
    """

    source: str
    layers: int
    types: dict[str, int]
    dtypes: dict[str, int]
    formats: dict[str, int] = field(default_factory=dict)
    reformats: int = 0
    matrix_ops: tuple[MatrixOp, ...] = ()
    unclear: tuple[str, ...] = ()


@dataclass(frozen=True)
class BuildRecord(ShownInNotebooks):
    """What an engine was built from and for, and what it holds.

    Attributes:
        onnx: The file that was built.
        onnx_sha256: Its hash; the key knows the weights beside it too.
        engine: The file that was written.
        engine_sha256: Its hash.
        bytes: Its size.
        flavour: ``tensorrt`` or ``tensorrt-rtx``.
        version: Of the builder.
        targets: Compute capabilities it runs on.
        profiles: Shapes it accepts.
        layers: Layers of the parsed network.
        layer_dtypes: How many of their outputs have each element type.
        seconds: Wall time of parsing and building.
        platform: Operating system and processor the engine is for: ``linux-x86_64``.
        precision: What the file states and the network computes in; None where nothing is stated.
        flags: The options that shaped the engine.
        inputs: Of the network.
        outputs: Of the network.
        contents: What the parsed network holds.
        engine_contents: What the EngineInspector saw; None where no GPU was there.
        exceptions: Layers left in higher precision on purpose.
        advice: Why int8 is likely slower than fp16; empty where nothing speaks for it.
        timing_cache_sha256: Of the timing cache after the build; None without one.
        builder_flags: The flags that the builder's configuration had, by the library's names.
        gpu: Name of the GPU whose times chose the kernels; None where none was measured.
        arguments: The command-line arguments that build it again.
        preprocessing_in_graph: Whether the graph takes decoded images.
        limits: What free sizes of inputs may be by the ONNX file's own description.
        key: Hash of everything that determines the engine.
        cached: Whether an engine of that key was there and nothing was built.
        environment: When, where and with what it was built.
    """

    onnx: str
    onnx_sha256: str
    engine: str
    engine_sha256: str
    bytes: int
    flavour: str
    version: str
    targets: tuple[str, ...]
    profiles: tuple[Profile, ...]
    layers: int
    layer_dtypes: dict[str, int]
    seconds: float
    platform: str
    precision: str | None = None
    flags: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()
    contents: Contents | None = None
    engine_contents: Contents | None = None
    exceptions: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    timing_cache_sha256: str | None = None
    builder_flags: tuple[str, ...] = ()
    gpu: str | None = None
    arguments: tuple[str, ...] = ()
    preprocessing_in_graph: bool = False
    limits: tuple[SizeLimit, ...] = ()
    key: str = ""
    cached: bool = False
    environment: Environment | None = None

    @property
    def command(self) -> str:
        """The command that builds it again, in the engine's directory."""
        return command_line("build", self.onnx, *self.arguments)
