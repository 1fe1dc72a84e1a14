"""What runs an artifact: one protocol, and how an engine tells whether it can run here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from s2mlp_deploy.artifact import SizeLimit, TensorInfo

Arrays = dict[str, NDArray[Any]]


class Engine(Protocol):
    """Something that computes a graph's outputs from its inputs."""

    @property
    def name(self) -> str:
        """What it is called in reports."""
        ...

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Its inputs, in order."""
        ...

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Its outputs, in order."""
        ...

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Computes all outputs.

        Args:
            feeds: One array per input, with the input's dtype.

        Returns:
            One array per output.
        """
        ...


class FileEngine(Engine, Protocol):
    """An engine of a file."""

    @property
    def limits(self) -> tuple[SizeLimit, ...]:
        """What free sizes of the inputs may be."""
        ...

    @property
    def metadata(self) -> dict[str, str]:
        """What the file says of itself, as the ONNX file's own metadata entries do."""
        ...


@dataclass(frozen=True)
class EngineStatus:
    """Whether an engine can be used here.

    Attributes:
        name: The engine's name on the command line.
        available: Whether its packages are there.
        version: Of its package.
        detail: What it offers: providers, targets, devices.
        missing: What is not there.
        install_hint: The command that installs it.
    """

    name: str
    available: bool
    version: str | None = None
    detail: str = ""
    missing: str = ""
    install_hint: str = ""
