"""The time of every node, as OpenVINO counts it: averages over all runs of a compiled graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s2mlp_deploy.files import to_json, write_file

WARMUP = 3
"""Runs that do not count: the first ones choose kernels, pack weights and allocate."""

_SKIPPED = "not_executed"


@dataclass(frozen=True)
class CountedNode:
    """A node of the graph as OpenVINO executes it.

    Attributes:
        name: Its name there.
        op: Its kind.
        kernel: What computes it: ``brgconv_avx2_1x1_f32``.
        precision: What it computes in: ``f32``, ``u8``.
        made_of: Names of the nodes of the ONNX file that it was made of, and of some that OpenVINO made itself.
        ms: On average over the runs that count.
    """

    name: str
    op: str
    kernel: str
    precision: str
    made_of: tuple[str, ...]
    ms: float


@dataclass(frozen=True)
class CountersFile:
    """What is written.

    Attributes:
        openvino: Its version.
        runs: Milliseconds of the runs that count.
        nodes: In the order of execution, without those that were not executed.
    """

    openvino: str
    runs: tuple[float, ...]
    nodes: tuple[CountedNode, ...]


@dataclass
class Counters:
    """Collects the times of a compiled graph.

    OpenVINO has averages alone, in whole microseconds, from the first run on. What came before the runs that count is
    taken out again by multiplying: that is right to about a microsecond.

    Attributes:
        compiled: The graph, compiled with ``PERF_COUNT``.
        version: Of OpenVINO.
        folder: Where to write.
    """

    compiled: Any
    version: str
    folder: Path
    _runs: list[float] = field(default_factory=list)
    _before: dict[str, float] = field(default_factory=dict)

    def ran(self, milliseconds: float) -> None:
        """Notes a run that has ended."""
        self._runs.append(milliseconds)
        if len(self._runs) == WARMUP:
            self._before = {name: average * WARMUP for name, average, _ in self._averages()}

    def _averages(self) -> list[tuple[str, float, dict[str, str]]]:
        """By node in the order of execution: its microseconds, and what else is told of it."""
        found = []
        for node in self.compiled.get_runtime_model().get_ordered_ops():
            told = {name: str(value.value) for name, value in node.get_rt_info().items() if hasattr(value, "value")}
            if told.get("execTimeMcs", _SKIPPED) != _SKIPPED:
                found.append((node.get_friendly_name(), float(told["execTimeMcs"]), told))
        return sorted(found, key=lambda item: int(item[2].get("execOrder", 0)))

    def write(self, kinds: Mapping[str, str], ends: Collection[str]) -> Path:
        """Writes the file.

        Args:
            kinds: By node what kind it is, where that is known better than the executed graph tells.
            ends: Names of the graph's inputs and outputs, after which OpenVINO calls the nodes beside them.

        Raises:
            OutputError: It cannot be written.
        """
        count = len(self._runs) - WARMUP
        nodes = []
        for name, average, told in self._averages() if count > 0 else ():
            parts = told.get("originalLayersNames", "").split(",")
            total = max(0.0, average * len(self._runs) - self._before.get(name, 0.0))
            nodes.append(
                CountedNode(
                    name,
                    kinds.get(name) or told.get("layerType", ""),
                    told.get("primitiveType", ""),
                    told.get("runtimePrecision", ""),
                    tuple(part for part in parts if part and part.partition("/")[0] not in ends),
                    total / count / 1e3,
                )
            )
        path = self.folder / "openvino-counters.json"
        write_file(path, to_json(CountersFile(self.version, tuple(self._runs[WARMUP:]), tuple(nodes))))
        return path
