"""The modules of an ONNX file: nodes, weights and what each computes in. Read off the graph when it is written."""

from __future__ import annotations

from dataclasses import dataclass, field

from s2mlp_deploy.evidence.labels import saved_path
from s2mlp_deploy.evidence.notebook import ShownInNotebooks


@dataclass(frozen=True)
class ModuleRecord:
    """What a file has of one module, without the modules inside of it.

    Attributes:
        path: Of the module; ``(network)`` for the network's own forward, empty for nodes that belong to no module.
        operators: Number of nodes by operator.
        weights: Bytes by type of number: ``{"int8": 4096, "fp32": 256}``.
        computes: Number of its GEMMs and convolutions by the type that they compute in; of all its nodes where it has
            none of those.
    """

    path: str
    operators: dict[str, int] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)
    computes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = (*self.operators.values(), *self.weights.values(), *self.computes.values())
        if counts and not (min(counts) >= 0 and max(counts) < 2**63):
            raise ValueError(f"the module {self.path} has impossible counts")


@dataclass(frozen=True)
class ModulesReport(ShownInNotebooks):
    """A file by module: nodes, weights and types of each.

    Attributes:
        file: Its name in the artifact.
        precision: Of the file.
        file_sha256: Of the file.
        modules: In the order of the graph.
    """

    file: str
    precision: str
    file_sha256: str
    modules: tuple[ModuleRecord, ...]

    @property
    def label(self) -> str:
        """What distinguishes it from those of other files."""
        return saved_path(self.file).stem
