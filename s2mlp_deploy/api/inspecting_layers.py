"""Looking into what runtimes write of a run or of an engine: profiles, layers, times. Needs no GPU and no TensorRT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from s2mlp_deploy.api.evidence import save_evidence
from s2mlp_deploy.artifact import read_manifest
from s2mlp_deploy.bench.profile import profile_of
from s2mlp_deploy.engines.sidecar import layers_of
from s2mlp_deploy.engines.tensorrt.flavours import NAMES
from s2mlp_deploy.engines.tensorrt.layer_file import is_layers, is_times, read_layers, read_times, with_times
from s2mlp_deploy.engines.tensorrt.layer_lints import with_findings
from s2mlp_deploy.engines.tensorrt.layer_names import without_profile
from s2mlp_deploy.errors import ArtifactError, InputError
from s2mlp_deploy.evidence.build import BuildRecord
from s2mlp_deploy.evidence.engine_layers import EngineLayers, RunTimes
from s2mlp_deploy.evidence.profile import Profile
from s2mlp_deploy.evidence.store import read_evidence
from s2mlp_deploy.files import from_json, is_regular, read_file
from s2mlp_deploy.text import join_names, problem_of

_TENSORRT, _MAJOR_OF_RTX = NAMES[0], "11"
"""The library of TensorRT-RTX 1.7.1 has the words of 11.x in it (``I/O Tensors``), and not those of 10.x."""

_FIX = (
    "name what trtexec's --exportLayerInfo, --exportProfile or --exportTimes wrote, the layers beside an engine, "
    "or ONNX Runtime's profile"
)
_BOTH = (
    "on its GPU export both in one run: trtexec --loadEngine=FILE --exportLayerInfo=LAYERS.json "
    "--exportProfile=PROFILE.json --profilingVerbosity=detailed"
)


def inspect_json(path: str | Path, *, profile: str | Path | None = None) -> EngineLayers | RunTimes | Profile:
    """Reads what a runtime wrote, whatever it is of these.

    Args:
        path: Layers (``trtexec --exportLayerInfo`` of TensorRT 10 or 11, or ``<engine>.layers.json``), times
            (``--exportTimes``) or a profile, as :func:`~s2mlp_deploy.api.read_profile` takes it.
        profile: For layers, what ``--exportProfile`` wrote of the same engine: their times.

    Raises:
        ArtifactError: It is none of them, or damaged.
        InputError: A profile is given to what has no layers, or is of another engine: most of its time is of no layer,
            and most layers have no row in it.
    """
    file = Path(path)
    try:
        document = from_json(read_file(file, "profile"))
        if is_layers(document):
            layers = read_layers(document, file.name)
            return with_findings(layers if profile is None else _timed(layers, file, Path(profile)))
        if profile is not None:
            raise InputError(
                "--profile gives layers their times, and this file has none",
                where=str(path),
                fix="name the layers first: inspect LAYERS.json --profile PROFILE.json",
            )
        if is_times(document):
            return read_times(document, file.name)
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"no layers, times or profile of a runtime: {problem_of(error)}", where=str(path), fix=_FIX
        ) from error
    return profile_of(file)


def keep_layers(
    path: str | Path, directory: str | Path, *, profile: str | Path | None = None, engine: str | None = None
) -> EngineLayers:
    """Reads the layers of an engine and keeps them as evidence of an artifact, whose report draws them.

    Args:
        path: Layers, as :func:`inspect_json` takes them.
        directory: The artifact.
        profile: What ``--exportProfile`` wrote of the same engine: their times.
        engine: Which of the artifact's engine files they are of; default: the one that ``path`` is named after, or the
            only one whose TensorRT writes layers so. Where there is none they are kept all the same, as those of an
            engine that was built elsewhere of one of its graphs.

    Returns:
        What was kept.

    Raises:
        ArtifactError: The file holds no layers, or the directory is no artifact.
        InputError: The artifact has no such engine, or several; or the layers are of a network with other inputs and
            outputs.
        OutputError: The artifact cannot be written.
    """
    place = Path(directory)
    manifest = read_manifest(place)
    found = inspect_json(path, profile=profile)
    if not isinstance(found, EngineLayers):
        raise InputError(
            "only layers are kept in an artifact, and this file has none",
            where=str(path),
            fix="name the layers first: inspect LAYERS.json --profile PROFILE.json --artifact DIR",
        )
    records = (item.record for item in read_evidence(place).of(BuildRecord))
    # An engine of OpenVINO has no such layers.
    built = {record.engine: record for record in records if record.flavour in NAMES}
    name = _engine_of(Path(path), place, built, engine, found.schema)
    record = built.get(name)
    infos = (*record.inputs, *record.outputs) if record is not None else (*manifest.inputs, *manifest.outputs)
    own, theirs = {info.name for info in infos}, {without_profile(binding) for binding in found.bindings}
    if own and theirs and own != theirs:
        raise InputError(
            f"the layers are of another network: its inputs and outputs are {join_names(sorted(theirs))}, those here "
            f"{join_names(sorted(own))}",
            where=str(path),
            fix="name the artifact that the engine was built from, or --engine FILE where it has several",
        )
    kept = replace(found, engine=name, engine_sha256=record.engine_sha256 if record is not None else "")
    save_evidence(place, kept)
    return kept


def _engine_of(path: Path, place: Path, built: Mapping[str, BuildRecord], engine: str | None, schema: str) -> str:
    """The engine of an artifact that a file of layers is of; empty where the artifact has none that it can be of."""
    names = sorted(built)
    if engine is not None:
        if Path(engine).name not in built:
            raise InputError(
                f"the artifact has no engine of TensorRT {engine}",
                where=str(place),
                fix=f"choose from {join_names(names)}" if names else "leave --engine out: it has none",
            )
        return Path(engine).name
    if named := [name for name in names if path.name == layers_of(Path(name)).name]:
        return named[0]
    names = [name for name in names if _may_write(built[name], schema)]
    if len(names) > 1:
        raise InputError(
            f"the artifact has {len(names)} engines, and the layers do not tell of which they are",
            where=str(place),
            fix=f"--engine FILE: {join_names(names, last='or')}",
        )
    return names[0] if names else ""


def _may_write(record: BuildRecord, schema: str) -> bool:
    """Whether the library of an engine writes layers in these words; what tells no release may be of any."""
    major = record.version.partition(".")[0] if record.flavour == _TENSORRT else _MAJOR_OF_RTX
    return schema in ("", f"{major}.x")


def layers_beside(engine: Path, *, profile: str | Path | None = None) -> EngineLayers | None:
    """The layers that the build of an engine wrote beside it; None where there are none.

    Args:
        engine: The engine file.
        profile: As :func:`inspect_json` takes it.

    Raises:
        ArtifactError: They cannot be read.
    """
    path = layers_of(engine)
    if not is_regular(path):
        return None
    found = inspect_json(path, profile=profile)
    if not isinstance(found, EngineLayers):
        raise ArtifactError("it has no layers", where=str(path), fix="build the engine again with --force")
    return found


def _timed(layers: EngineLayers, file: Path, profile: Path) -> EngineLayers:
    if layers.source == "network":
        # A fused layer has the name of several of them, and whichever kept its own would stand for the whole.
        raise InputError(
            f"{file.name} holds the layers of the parsed network, and a profile times what the builder made of them",
            where=str(profile),
            fix=_BOTH,
        )
    rows = profile_of(profile)
    timed, others, left = with_times(layers, rows)
    without = sum(layer.ms is None for layer in timed.layers)
    lost = f"{others} of {len(rows.nodes)} rows of the profile, {left:.3g} of {rows.ms:.3g} ms, "
    # One of the same engine may have more rows than layers are told, or times of one of its profiles alone; not both.
    if without == len(timed.layers) or (2 * without > len(timed.layers) and 2 * left > rows.ms):
        raise InputError(
            f"the profile is of another engine than {file}: {lost}are of no layer of it, and {without} of its "
            f"{len(timed.layers)} layers have no row",
            where=str(profile),
            fix=_BOTH,
        )
    if others:
        timed = replace(timed, unclear=(*timed.unclear, f"{lost}are of no layer that the file names"))
    return timed
