"""Layers of a built engine as TensorRT's inspector tells them, with their times where those were exported too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from s2mlp_deploy.evidence.labels import saved_path
from s2mlp_deploy.evidence.notebook import ShownInNotebooks
from s2mlp_deploy.evidence.profile import module_part


@dataclass(frozen=True)
class LayerTensor:
    """An input or output of a layer.

    Attributes:
        name: Of the tensor.
        shape: Sizes; -1 where one is free.
        dtype: ``fp32``, ``fp16``, ``bf16``, ``fp8``, ``int8``, ``int4``, ``other`` or ``unknown``.
        format: How it lies in memory, in the inspector's words.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    format: str


@dataclass(frozen=True)
class EngineLayer:
    """One layer of an engine.

    Attributes:
        name: As TensorRT calls it; several may have one name.
        kind: Its type in the inspector's words; empty where only the name is told.
        op: The GEMM or convolution in it, or the first of its ONNX operators.
        nodes: The ONNX nodes that it was made of, as far as it tells.
        module: What their modules have in common; empty where nothing tells it.
        inputs: Tensors that it reads.
        outputs: Tensors that it writes.
        weights: Type of its weights; empty where it has none or does not tell.
        matrix: Whether it multiplies matrices or convolves.
        reformat: Whether it only changes a format or a type.
        ms: Median of the runs of a profile; None where it was not timed.
    """

    name: str
    kind: str
    op: str
    nodes: tuple[str, ...]
    module: str
    inputs: tuple[LayerTensor, ...] = ()
    outputs: tuple[LayerTensor, ...] = ()
    weights: str = ""
    matrix: bool = False
    reformat: bool = False
    ms: float | None = None

    @property
    def dtype(self) -> str:
        """What it writes, which stands for what it works in; ``unknown`` where only the name is told."""
        return self.outputs[0].dtype if self.outputs else "unknown"


@dataclass(frozen=True)
class LayerShare:
    """What layers are together.

    Attributes:
        name: Of the module or operator.
        layers: How many.
        ms: Together; None where nothing was timed.
        dtypes: How many write each type, the commonest first.
    """

    name: str
    layers: int
    ms: float | None
    dtypes: dict[str, int]


@dataclass(frozen=True)
class LayerFinding:
    """What costs time for nothing in an engine.

    Attributes:
        kind: A few words for it.
        problem: What it is, one sentence.
        layers: The nodes of the layers it was found in, else their names.
        ms: Of these layers together; None where nothing was timed.
        fix: The option that mends it.
    """

    kind: str
    problem: str
    layers: tuple[str, ...]
    ms: float | None
    fix: str


@dataclass(frozen=True)
class EngineLayers(ShownInNotebooks):
    """What ``trtexec --exportLayerInfo`` or a build of ours wrote of an engine.

    Attributes:
        file: Its name.
        schema: ``10.x`` or ``11.x``, whichever's words it uses; empty where it tells neither.
        bindings: Inputs and outputs of the engine.
        layers: In the order of execution.
        unclear: What it says that is not known here, in words.
        findings: What costs time for nothing, the most time first.
        source: ``engine``, or ``network``: the layers that went into an engine which was not inspected: built without
            its GPU, with ``--strip-plan``, for another target, or one that did not load. What the builder fused, and
            where it reformats, they do not tell.
        engine: In an artifact's evidence the engine's file; empty where the artifact has none.
        engine_sha256: Of it.
    """

    file: str
    schema: str
    bindings: tuple[str, ...]
    layers: tuple[EngineLayer, ...]
    unclear: tuple[str, ...] = ()
    findings: tuple[LayerFinding, ...] = ()
    source: Literal["engine", "network"] = "engine"
    engine: str = ""
    engine_sha256: str = ""

    @property
    def label(self) -> str:
        """What distinguishes it from those of other engines."""
        return saved_path(self.engine or self.file).name.removesuffix(".json").removesuffix(".engine")

    @property
    def ms(self) -> float | None:
        """Of all layers that were timed; None where none was."""
        return _sum(self.layers)

    def by_operator(self) -> tuple[LayerShare, ...]:
        """What each operator takes, the most first."""
        return _shares((layer.op, layer) for layer in self.layers)

    def by_module(self, depth: int | None = None) -> tuple[LayerShare, ...]:
        """What each module takes with all that is inside of it, the most first.

        Args:
            depth: How many parts of a path are told apart; None for whole paths.
        """
        return _shares((module_part(layer.module, depth), layer) for layer in self.layers)

    def depth_of(self, rows: int) -> int:
        """The largest depth at which there are at most so many modules; at least 1."""
        deepest = max((layer.module.count(".") + 1 for layer in self.layers), default=1)
        return next((depth for depth in range(deepest, 1, -1) if len(self.by_module(depth)) <= rows), 1)


@dataclass(frozen=True)
class Spread:
    """How long something took over many runs, in milliseconds.

    Attributes:
        name: ``compute``, ``host to device``, ``device to host``, ``latency`` or ``enqueue``.
        median: Half of the runs took less.
        p90: Nine of ten took less.
        p99: 99 of 100 took less.
        max: The slowest.
    """

    name: str
    median: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True)
class RunTimes(ShownInNotebooks):
    """What ``trtexec --exportTimes`` wrote.

    Attributes:
        file: Its name.
        runs: How many.
        spreads: Of each part of a run.
    """

    file: str
    runs: int
    spreads: tuple[Spread, ...]


def _sum(layers: Iterable[EngineLayer]) -> float | None:
    times = [layer.ms for layer in layers if layer.ms is not None]
    return sum(times) if times else None


def _shares(named: Iterable[tuple[str, EngineLayer]]) -> tuple[LayerShare, ...]:
    groups: dict[str, list[EngineLayer]] = {}
    for name, layer in named:
        groups.setdefault(name, []).append(layer)
    shares = [
        LayerShare(name, len(layers), _sum(layers), dict(Counter(layer.dtype for layer in layers).most_common()))
        for name, layers in groups.items()
    ]
    return tuple(sorted(shares, key=lambda share: (-(share.ms or 0.0), -share.layers)))
