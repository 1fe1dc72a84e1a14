"""Two engines compared by their layers, without a GPU and without TensorRT."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from s2mlp_deploy.api.inspecting_layers import inspect_json, layers_beside
from s2mlp_deploy.api.opening import is_engine
from s2mlp_deploy.engines.openvino.library import OPENVINO
from s2mlp_deploy.engines.record import read_sidecar
from s2mlp_deploy.errors import ArtifactError, InputError
from s2mlp_deploy.evidence.engine_difference import EngineDifference, EngineFacts, SharePair
from s2mlp_deploy.evidence.engine_layers import EngineLayers, LayerShare
from s2mlp_deploy.text import command_line

_MODULES = 24


def diff_layers(
    before: str | Path,
    after: str | Path,
    *,
    profiles: Sequence[str | Path] = (),
    depth: int | None = None,
) -> EngineDifference:
    """Compares the layers of two engines, module by module and operator by operator.

    Args:
        before: The older one: a file of layers as :func:`~s2mlp_deploy.api.inspect_json` reads, or an engine of ours
            with ``<engine>.layers.json`` beside it.
        after: The newer one.
        profiles: None, or what ``trtexec --exportProfile`` wrote of each, in this order.
        depth: How many parts of a module's path are told apart; default: as many as 24 modules allow.

    Raises:
        ArtifactError: A file is missing or damaged, or has no layers.
        InputError: There are no layers beside an engine, those of one are the parsed network's and of the other not, or
            there is another number of profiles than none or two.
    """
    if len(profiles) not in (0, 2):
        raise InputError(
            f"{len(profiles)} profile was given for two engines" if len(profiles) == 1 else "more than two profiles",
            where="--profile",
            fix="give --profile twice, first A's and then B's, or leave it out",
        )
    given: Sequence[str | Path | None] = profiles or (None, None)
    one, other = (_layers(Path(path), profile) for path, profile in zip((before, after), given, strict=True))
    if one.source != other.source:
        network = Path(before if one.source == "network" else after)
        raise InputError(
            "one engine's layers are those of the parsed network, the other's those that were built of it",
            where=str(network),
            fix="on its GPU, trtexec --loadEngine=FILE --exportLayerInfo=LAYERS.json, and compare that file; or "
            "compare the ONNX files that the engines were built from",
        )
    if depth is None:
        depth = min(found.depth_of(_MODULES) for found in (one, other))
    return EngineDifference(
        _facts(one, Path(before)),
        _facts(other, Path(after)),
        _pairs(one.by_module(depth), other.by_module(depth)),
        _pairs(one.by_operator(), other.by_operator()),
        differs=_kinds(one) != _kinds(other),
    )


def _layers(path: Path, profile: str | Path | None) -> EngineLayers:
    if not is_engine(path):
        found = inspect_json(path, profile=profile)
        if isinstance(found, EngineLayers):
            return found
        raise ArtifactError(
            "it has times, and no layers of an engine", where=str(path), fix="name what --exportLayerInfo wrote"
        )
    if not path.is_file():
        raise ArtifactError("no such engine", where=str(path), fix="check the path")
    layers = layers_beside(path, profile=profile)
    if layers is None and _is_compiled(path):
        raise InputError(
            "OpenVINO writes no layers beside what it compiles",
            where=str(path),
            fix="compare the ONNX files that they were compiled from; what one computes in: "
            + command_line("inspect", path),
        )
    if layers is None:
        raise InputError(
            "the engine's layers are not known: another tool or an older version built it",
            where=str(path),
            fix="on its GPU, trtexec --loadEngine=FILE --exportLayerInfo=LAYERS.json, and compare that file; or "
            "compare the ONNX files that the engines were built from",
        )
    return layers


def _is_compiled(engine: Path) -> bool:
    """Whether OpenVINO made an engine, by its sidecar."""
    try:
        return read_sidecar(engine).flavour == OPENVINO
    except ArtifactError:
        return False


def _facts(found: EngineLayers, path: Path) -> EngineFacts:
    return EngineFacts(
        str(path),
        found.schema,
        len(found.layers),
        sum(layer.reformat for layer in found.layers),
        dict(Counter(layer.dtype for layer in found.layers).most_common()),
        found.ms,
        found.findings,
        found.source,
        found.unclear,
    )


def _pairs(before: Sequence[LayerShare], after: Sequence[LayerShare]) -> tuple[SharePair, ...]:
    one, other = ({share.name: share for share in shares} for shares in (before, after))
    pairs = [SharePair(name, one.get(name), other.get(name)) for name in dict.fromkeys((*one, *other))]
    return tuple(sorted(pairs, key=lambda pair: (not pair.differs, -abs(pair.ms or 0.0), -_change(pair))))


def _change(pair: SharePair) -> int:
    before, after = (0 if share is None else share.layers for share in (pair.before, pair.after))
    return abs(after - before)


def _kinds(found: EngineLayers) -> Counter[tuple[object, ...]]:
    """Layers without their names, which hold numbers that a build gives."""
    return Counter(
        (
            layer.module,
            layer.op,
            layer.weights,
            layer.reformat,
            *((tensor.shape, tensor.dtype, tensor.format) for tensor in (*layer.inputs, *layer.outputs)),
        )
        for layer in found.layers
    )
