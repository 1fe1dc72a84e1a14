"""Reading what ONNX Runtime writes when it times every node."""

from __future__ import annotations

import statistics
from typing import Any

import msgspec

from s2mlp_deploy.evidence.profile import NETWORK, NodeTime, Profile

_SUFFIX = "_kernel_time"


class _Event(msgspec.Struct):
    """An event of the profile; those of nodes say which."""

    cat: str = ""
    name: str = ""
    dur: float = 0.0
    args: dict[str, Any] = {}


def read_profile(document: bytes, *, warmup: int) -> Profile:
    """Reads a profile of several runs.

    Args:
        document: The file, a JSON list of events.
        warmup: How many of the first runs do not count.

    Raises:
        ValueError: It is no such file, or has no other runs.
    """
    events = msgspec.json.decode(document, type=list[_Event])
    totals = [event.dur / 1e3 for event in events if event.cat == "Session" and event.name == "model_run"]
    if len(totals) <= warmup:
        raise ValueError(f"{len(totals)} runs were profiled, and {warmup} of them do not count")
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


def module_of(name: str) -> str:
    """The module's path in a node's name: ``stages.0.mlp.fc1`` of ``stages.0.mlp.fc1/MatMul``.

    Exporters that write ``/stages.0/mlp/fc1/MatMul`` are understood too. A name without a slash says nothing: the
    runtime gave it.
    """
    if name.startswith("/"):
        return ".".join(name.split("/")[1:-1]) or NETWORK
    path, slash, _ = name.partition("/")
    return path if slash else ""
