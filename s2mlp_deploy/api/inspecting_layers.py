"""Looking into what runtimes write of a run or of an engine: profiles, layers, times. Needs no GPU and no TensorRT."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from s2mlp_deploy.bench.profile import profile_of
from s2mlp_deploy.engines.sidecar import layers_of
from s2mlp_deploy.engines.tensorrt.layer_file import is_layers, is_times, read_layers, read_times, with_times
from s2mlp_deploy.engines.tensorrt.layer_lints import with_findings
from s2mlp_deploy.errors import ArtifactError, InputError
from s2mlp_deploy.evidence.engine_layers import EngineLayers, RunTimes
from s2mlp_deploy.evidence.profile import Profile
from s2mlp_deploy.files import from_json, is_regular, read_file
from s2mlp_deploy.text import first_line_of

_FIX = (
    "name what trtexec's --exportLayerInfo, --exportProfile or --exportTimes wrote, the layers beside an engine, "
    "or ONNX Runtime's profile"
)


def inspect_json(path: str | Path, *, profile: str | Path | None = None) -> EngineLayers | RunTimes | Profile:
    """Reads what a runtime wrote, whatever it is of these.

    Args:
        path: Layers (``trtexec --exportLayerInfo`` of TensorRT 10 or 11, or ``<engine>.layers.json``), times
            (``--exportTimes``) or a profile, as :func:`~s2mlp_deploy.api.read_profile` takes it.
        profile: For layers, what ``--exportProfile`` wrote of the same engine: their times.

    Raises:
        ArtifactError: It is none of them, or damaged.
        InputError: A profile is given to what has no layers, or is of another engine.
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
        problem = (error.strerror if isinstance(error, OSError) else None) or first_line_of(error)
        raise ArtifactError(
            f"no layers, times or profile of a runtime: {problem}", where=str(path), fix=_FIX
        ) from error
    return profile_of(file)


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
    timed, others = with_times(layers, profile_of(profile))
    if timed.ms is None:
        raise InputError(
            f"the profile times none of the layers in {file}: it is of another engine",
            where=str(profile),
            fix="export both in one run: trtexec --loadEngine=FILE --exportLayerInfo=LAYERS.json "
            "--exportProfile=PROFILE.json --profilingVerbosity=detailed",
        )
    if others:
        note = f"{others} rows of the profile are of no layer that the file names"
        timed = replace(timed, unclear=(*timed.unclear, note))
    return timed
