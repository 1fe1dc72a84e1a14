"""Reading what runtimes write when they time every node: ONNX Runtime, OpenVINO's engine, TensorRT through trtexec."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from s2mlp_deploy.artifact import common_path, module_of
from s2mlp_deploy.engines.openvino.counters import CountersFile
from s2mlp_deploy.engines.tensorrt.layer_file import is_layers, is_times
from s2mlp_deploy.engines.tensorrt.layer_names import (
    REFORMAT,
    is_reformatting,
    module_of_nodes,
    nodes_in,
    operator_of,
)
from s2mlp_deploy.errors import ArtifactError
from s2mlp_deploy.evidence.profile import NodeTime, Profile
from s2mlp_deploy.files import from_json, read_file
from s2mlp_deploy.text import problem_of

_SUFFIX = "_kernel_time"
_NO_RUN = "no run was profiled"


class _Event(msgspec.Struct):
    """An event of the profile; those of nodes say which."""

    cat: str = ""
    name: str = ""
    dur: float = 0.0
    args: dict[str, Any] = {}


def profile_of(path: Path) -> Profile:
    """Reads a profile that a runtime wrote.

    Args:
        path: What ONNX Runtime's ``enable_profiling`` writes, where the first run does not count if there are several;
            what OpenVINO's engine writes; or what ``trtexec --exportProfile`` does.

    Raises:
        ArtifactError: It is neither.
    """
    try:
        profile = _of_any(read_file(path, "profile"))
        if not profile.nodes:
            raise ValueError("it times no layers and no nodes")
        return profile
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"no profile of ONNX Runtime, OpenVINO or TensorRT: {problem_of(error)}",
            where=str(path),
            fix="name what `trtexec --exportProfile=FILE.json` or ONNX Runtime's profiling wrote",
        ) from error


def _of_any(document: bytes) -> Profile:
    records = from_json(document)
    if is_times(records):
        raise ValueError("it has the times of whole runs (--exportTimes), and none of layers")
    if records and is_layers(records):
        raise ValueError("it has layers (--exportLayerInfo), and no times of them")
    if isinstance(records, dict):
        return _of_openvino(document)
    records = msgspec.convert(records, list[dict[str, Any]])
    if records and "count" in records[0]:
        return _of_tensorrt(records)
    return read_profile(document, warmup=1 if document.count(b'"model_run"') > 1 else 0)


class _Layer(msgspec.Struct):
    """A layer in an exported profile; older releases have no median."""

    name: str
    averageMs: float  # noqa: N815 - TensorRT's name.
    medianMs: float | None = None  # noqa: N815


def _of_tensorrt(records: Sequence[dict[str, Any]]) -> Profile:
    runs = msgspec.convert(records[0]["count"], int)
    layers = msgspec.convert(records[1:], list[_Layer])
    if runs < 1:
        raise ValueError(_NO_RUN)
    nodes = tuple(_layer_time(layer) for layer in layers)
    total = sum(node.ms for node in nodes)
    if nodes and not (all(0 <= node.ms < math.inf for node in nodes) and total > 0):
        raise ValueError("the times of its layers are none")
    return Profile(runs, total, nodes)


def _layer_time(layer: _Layer) -> NodeTime:
    """The nodes of the ONNX file that a layer was made of stand in its name, as far as TensorRT keeps them."""
    milliseconds = layer.averageMs if layer.medianMs is None else layer.medianMs
    if is_reformatting(layer.name):
        return NodeTime(layer.name, REFORMAT, "", milliseconds)
    nodes = nodes_in(layer.name)
    return NodeTime(layer.name, operator_of(nodes), module_of_nodes(nodes), milliseconds)


def _of_openvino(document: bytes) -> Profile:
    counted: CountersFile = from_json(document, CountersFile)
    if not counted.runs:
        raise ValueError("no run of it counts")
    nodes = []
    for node in counted.nodes:
        # What OpenVINO made itself has names without a module, which say nothing of what it belongs to.
        modules = [module for part in node.made_of if (module := module_of(part))]
        nodes.append(NodeTime(node.name, node.op, common_path(modules), node.ms))
    return Profile(len(counted.runs), statistics.median(counted.runs), tuple(nodes))


def read_profile(document: bytes, *, warmup: int) -> Profile:
    """Reads a profile of several runs.

    Args:
        document: What an engine wrote: ONNX Runtime a JSON list of events, OpenVINO's a JSON object.
        warmup: How many of the first runs do not count; OpenVINO's engine has left them out already.

    Raises:
        ValueError: It is no such file, or has no other runs.
    """
    if document.lstrip()[:1] == b"{":
        return _of_openvino(document)
    events: list[_Event] = from_json(document, list[_Event])
    totals = [event.dur / 1e3 for event in events if event.cat == "Session" and event.name == "model_run"]
    if len(totals) <= warmup:
        raise ValueError(f"{len(totals)} runs were profiled, and {warmup} of them do not count" if totals else _NO_RUN)
    times: dict[tuple[str, str, str], list[float]] = {}
    for event in events:
        if event.cat == "Node" and event.name.endswith(_SUFFIX):
            # Fused nodes may all have one name, which only their numbers tell apart.
            key = (
                str(event.args.get("node_index", "")),
                event.name.removesuffix(_SUFFIX),
                str(event.args.get("op_name", "")),
            )
            times.setdefault(key, []).append(event.dur / 1e3)
    nodes = tuple(
        NodeTime(name, op, module_of(name), _per_run(values, len(totals), warmup))
        for (_, name, op), values in times.items()
    )
    return Profile(len(totals) - warmup, statistics.median(totals[warmup:]), nodes)


def _per_run(values: list[float], runs: int, warmup: int) -> float:
    """What a node takes in a run. In a loop it runs several times, in a branch maybe not every time."""
    times, rest = divmod(len(values), runs)
    if rest:
        return sum(values) / runs
    return statistics.median(sum(values[run * times : (run + 1) * times]) for run in range(warmup, runs))
