"""Files of trtexec: ``--exportLayerInfo``, and ``--exportTimes``. Builds of ours write the first beside an engine."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from s2mlp_deploy.engines.tensorrt.inspector import (
    is_matrix,
    is_reformat,
    layers_in,
    onnx_names,
    text_of,
    type_of,
    unclear_in,
)
from s2mlp_deploy.engines.tensorrt.layer_names import (
    REFORMAT,
    is_reformatting,
    module_of_nodes,
    nodes_in,
    operator_of,
    without_profile,
)
from s2mlp_deploy.evidence.engine_layers import EngineLayer, EngineLayers, LayerTensor, RunTimes, Spread
from s2mlp_deploy.evidence.profile import Profile

SOURCE, NETWORK = "Source", "network"
"""In our own files: that the layers are those of a parsed network."""

_BINDINGS, _IO_TENSORS = "Bindings", "I/O Tensors"
_SPREADS = {
    "latencyMs": "latency",
    "computeMs": "compute",
    "h2dMs": "host to device",
    "d2hMs": "device to host",
    # TensorRT-RTX calls the two copies so.
    "inMs": "host to device",
    "outMs": "device to host",
}


def is_layers(document: Any) -> bool:
    """Whether a document looks like a list of layers: under one of its keys, or as it is."""
    try:
        entries = layers_in(document)
    except ValueError:
        return False
    if isinstance(document, dict):
        return True
    return all(isinstance(entry, str) or (isinstance(entry, dict) and "Name" in entry) for entry in entries[:1])


def is_times(document: Any) -> bool:
    """Whether a document looks like what ``--exportTimes`` writes."""
    return isinstance(document, list) and any(isinstance(row, dict) and "computeMs" in row for row in document[:1])


def read_layers(document: Any, file: str) -> EngineLayers:
    """Reads the layers of an engine.

    Args:
        document: The JSON: layers as objects or as names, in a list or under ``Layers``, ``layers`` or ``LayerInfo``.
        file: Name of the file.

    Raises:
        ValueError: It is none, or its layers are something else.
    """
    entries = layers_in(document)
    if not entries:
        raise ValueError("its list of layers is empty")
    for index, entry in enumerate(entries):
        if not isinstance(entry, str) and not (isinstance(entry, dict) and isinstance(entry.get("Name"), str)):
            raise ValueError(f"layer {index} is neither a name nor an object with a Name")
    objects = [entry for entry in entries if isinstance(entry, dict)]
    of_network = isinstance(document, dict) and document.get(SOURCE) == NETWORK
    return EngineLayers(
        file,
        "" if of_network else _schema(document, objects),
        _bindings(document),
        tuple(_layer(entry) for entry in entries),
        tuple(unclear_in(entries, objects)),
        source="network" if of_network else "engine",
    )


def with_times(layers: EngineLayers, profile: Profile) -> tuple[EngineLayers, int, float]:
    """Gives each layer its time in a profile of the same engine. Of layers with one name each takes the next.

    An engine with several profiles has layers for each, which only what their names end with tells apart: a row goes to
    the layer of its very name, and only what is left then to one that is called so but for that end.

    Returns:
        The layers, how many rows of the profile are of none of them, and the ms of these.
    """
    times: defaultdict[str, deque[float]] = defaultdict(deque)
    for node in profile.nodes:
        times[node.name].append(node.ms)
    found = [rows.popleft() if (rows := times[layer.name]) else None for layer in layers.layers]
    left: defaultdict[str, deque[float]] = defaultdict(deque)
    for name, rows in times.items():
        left[without_profile(name)].extend(rows)
    timed = []
    for layer, ms in zip(layers.layers, found, strict=True):
        rows = left[without_profile(layer.name)]
        timed.append(replace(layer, ms=rows.popleft() if ms is None and rows else ms))
    others = [ms for rows in left.values() for ms in rows]
    return replace(layers, layers=tuple(timed)), len(others), sum(others)


def read_times(document: Sequence[Any], file: str) -> RunTimes:
    """Reads what ``trtexec --exportTimes`` wrote.

    Raises:
        ValueError: A run has no times, or something else in their place.
    """
    found: defaultdict[str, list[float]] = defaultdict(list)
    for index, row in enumerate(document):
        if not isinstance(row, dict) or not isinstance(row.get("computeMs"), int | float):
            raise ValueError(f"run {index} has no computeMs")
        try:
            times = {key: float(value) for key, value in row.items() if isinstance(value, int | float)}
        except OverflowError:
            raise ValueError(f"run {index} has a time that is no time") from None
        for key, name in _SPREADS.items():
            if key in times:
                if not 0 <= times[key] < math.inf:
                    raise ValueError(f"run {index} has a {key} that is no time: {row[key]}")
                found[name].append(times[key])
        if times.keys() >= {"startEnqMs", "endEnqMs"}:
            found["enqueue"].append(times["endEnqMs"] - times["startEnqMs"])
    return RunTimes(file, len(document), tuple(_spread(name, values) for name, values in found.items()))


def _spread(name: str, values: Sequence[float]) -> Spread:
    ordered = sorted(values)
    # The smallest time that so many runs do not exceed.
    p90, p99 = (ordered[max(0, -(-len(ordered) * part // 100) - 1)] for part in (90, 99))
    return Spread(name, statistics.median(ordered), p90, p99, ordered[-1])


def _layer(entry: str | dict[str, Any]) -> EngineLayer:
    if isinstance(entry, str):
        nodes, reformat = nodes_in(entry), is_reformatting(entry)
        op = REFORMAT if reformat else operator_of(nodes)
        return EngineLayer(entry, "", op, nodes, module_of_nodes(nodes), reformat=reformat)
    nodes = () if is_reformat(entry) else onnx_names(entry)
    kind = str(entry.get("LayerType") or "")
    told = operator_of(nodes)
    weights = entry.get("Weights")
    return EngineLayer(
        name=entry["Name"],
        kind=kind,
        op=REFORMAT if is_reformat(entry) else told if any("/" in node for node in nodes) else kind or told,
        nodes=nodes,
        module=module_of_nodes(nodes),
        inputs=_tensors(entry.get("Inputs")),
        outputs=_tensors(entry.get("Outputs")),
        weights=type_of(str(weights.get("Type"))) if isinstance(weights, Mapping) and weights.get("Count") else "",
        matrix=is_matrix(entry),
        reformat=is_reformat(entry),
    )


def _tensors(found: Any) -> tuple[LayerTensor, ...]:
    return tuple(
        LayerTensor(str(tensor.get("Name", "")), _shape(tensor.get("Dimensions")), type_of(text), text)
        for tensor in _objects(found)
        for text in (text_of(tensor),)
    )


def _objects(found: Any) -> list[dict[str, Any]]:
    """The objects of a list; none of anything else."""
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _shape(sizes: Any) -> tuple[int, ...]:
    return tuple(sizes) if isinstance(sizes, list) and all(isinstance(size, int) for size in sizes) else ()


def _bindings(document: Any) -> tuple[str, ...]:
    if not isinstance(document, dict):
        return ()
    found = document.get(_BINDINGS, document.get(_IO_TENSORS))
    items = found if isinstance(found, list) else []
    return tuple(str(item.get("Name") if isinstance(item, dict) else item) for item in items)


def _schema(document: Any, layers: Sequence[dict[str, Any]]) -> str:
    if isinstance(document, dict):
        for key, schema in ((_BINDINGS, "10.x"), (_IO_TENSORS, "11.x")):
            if key in document:
                return schema
    sides = (layer.get(side) for layer in layers for side in ("Inputs", "Outputs"))
    keys = {key for tensors in sides for tensor in _objects(tensors) for key in tensor}
    if "Format/Datatype" in keys:
        return "10.x"
    return "11.x" if keys & {"DataType", "Datatype"} else ""
