"""Profiles: where the time of a run goes, by node, by module and by operator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from s2mlp_deploy.evidence.notebook import ShownInNotebooks

UNATTRIBUTED = "(no module)"
"""Stands for nodes that a runtime made or fused and named without a trace of a module."""

MATRIX_OPS = frozenset(
    (
        *("Gemm", "MatMul", "Conv", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "NhwcFusedConv"),
        *("QGemm", "QLinearMatMul", "QLinearConv", "MatMulInteger", "MatMulIntegerToFloat", "ConvInteger"),
        *("DynamicQuantizeMatMul", "MatMulNBits"),
        *("FullyConnected", "Convolution", "GroupConvolution", "ConvolutionBackpropData", "Deconvolution"),
    )
)
"""Operators of ONNX, of ONNX Runtime and of OpenVINO that multiply matrices or convolve."""


@dataclass(frozen=True)
class NodeTime:
    """One node of the graph as the runtime executes it: fused, moved and renamed.

    Attributes:
        name: As the runtime calls it; several may have one name.
        op: Its operator, which may be the runtime's own.
        module: Path of the module it comes from; empty where its name does not say.
        ms: Median over the runs.
    """

    name: str
    op: str
    module: str
    ms: float


@dataclass(frozen=True)
class Share:
    """What nodes take together.

    Attributes:
        name: Of the module or operator.
        nodes: How many.
        ms: Together.
        matrix_ms: Of that in GEMMs and convolutions.
    """

    name: str
    nodes: int
    ms: float
    matrix_ms: float


@dataclass(frozen=True)
class Profile(ShownInNotebooks):
    """A run in which every node was timed. Timing them takes time itself: shares count, not sums.

    Attributes:
        runs: How many.
        run_ms: Median of a whole run, with the timing.
        nodes: In the order of execution.
    """

    runs: int
    run_ms: float
    nodes: tuple[NodeTime, ...]

    @property
    def ms(self) -> float:
        """Of all nodes."""
        return sum(node.ms for node in self.nodes)

    @property
    def matrix_ms(self) -> float:
        """Of GEMMs and convolutions."""
        return sum(node.ms for node in self.nodes if node.op in MATRIX_OPS)

    def by_operator(self) -> tuple[Share, ...]:
        """What each operator takes, the most first."""
        return _shares((node.op, node) for node in self.nodes)

    def by_module(self, depth: int | None = None) -> tuple[Share, ...]:
        """What each module takes with all that is inside of it, the most first.

        Args:
            depth: How many parts of a path are told apart; None for whole paths.
        """
        return _shares((module_part(node.module, depth), node) for node in self.nodes)

    def depth_of(self, rows: int) -> int:
        """The largest depth at which there are at most so many modules; at least 1."""
        deepest = max((node.module.count(".") + 1 for node in self.nodes), default=1)
        return next((depth for depth in range(deepest, 1, -1) if len(self.by_module(depth)) <= rows), 1)


def module_part(module: str, depth: int | None) -> str:
    """The first parts of a module's path; :data:`UNATTRIBUTED` where it is empty."""
    return ".".join(module.split(".")[:depth]) or UNATTRIBUTED


def _shares(named: Iterable[tuple[str, NodeTime]]) -> tuple[Share, ...]:
    groups: dict[str, list[NodeTime]] = {}
    for name, node in named:
        groups.setdefault(name, []).append(node)
    shares = [
        Share(name, len(nodes), sum(n.ms for n in nodes), sum(n.ms for n in nodes if n.op in MATRIX_OPS))
        for name, nodes in groups.items()
    ]
    return tuple(sorted(shares, key=lambda share: -share.ms))
