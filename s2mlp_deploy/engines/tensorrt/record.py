"""The sidecar of an engine file: everything it was made from and for, checked before the engine is loaded."""

from __future__ import annotations

import hashlib
import platform
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.engines.profiles import Profile, text_of
from s2mlp_deploy.engines.tensorrt.network import Contents
from s2mlp_deploy.errors import ArtifactError
from s2mlp_deploy.files import sha256_of, to_json, write_file

SCHEMA_VERSION = 1


def this_platform() -> str:
    """Operating system and processor: ``linux-x86_64``."""
    return f"{platform.system().lower()}-{platform.machine()}"


@dataclass(frozen=True)
class BuildRecord:
    """What a build made: the sidecar beside the engine, and the evidence of an artifact.

    Attributes:
        onnx: The file that was built.
        onnx_sha256: Its hash; the key knows the weights beside it too.
        engine: The file that was written.
        engine_sha256: Its hash.
        bytes: Its size.
        flavour: ``tensorrt`` or ``tensorrt-rtx``.
        version: Of the builder.
        targets: Compute capabilities it runs on.
        profiles: Shapes it accepts.
        layers: Layers of the parsed network.
        layer_dtypes: How many of their outputs have each element type.
        seconds: Wall time of parsing and building.
        platform: Operating system and processor the engine is for.
        precision: What the file promised and the network kept; None where nothing was promised.
        flags: The options that shaped the engine.
        inputs: Of the network.
        outputs: Of the network.
        contents: What the parsed network holds.
        engine_contents: What the EngineInspector saw; None where no GPU was there.
        exceptions: Layers left in higher precision on purpose.
        advice: Why int8 is likely slower than fp16; empty where nothing speaks for it.
        timing_cache_sha256: Of the timing cache after the build; None without one.
        arguments: The command-line arguments that build it again.
        preprocessing_in_graph: Whether the graph takes decoded pictures.
        key: Hash of everything that determines the engine.
        cached: Whether an engine of that key was there and nothing was built.
        schema_version: Of this description.
    """

    onnx: str
    onnx_sha256: str
    engine: str
    engine_sha256: str
    bytes: int
    flavour: str
    version: str
    targets: tuple[str, ...]
    profiles: tuple[Profile, ...]
    layers: int
    layer_dtypes: dict[str, int]
    seconds: float
    platform: str = field(default_factory=this_platform)
    precision: str | None = None
    flags: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()
    contents: Contents | None = None
    engine_contents: Contents | None = None
    exceptions: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    timing_cache_sha256: str | None = None
    arguments: tuple[str, ...] = ()
    preprocessing_in_graph: bool = False
    key: str = ""
    cached: bool = False
    schema_version: int = SCHEMA_VERSION

    @property
    def command(self) -> str:
        """The command that builds it again, in the engine's directory."""
        return shlex.join(["s2mlp-deploy", "build", self.onnx, *self.arguments])


def key_of(values: dict[str, Any]) -> str:
    """One hash of everything that determines an engine."""
    return hashlib.sha256(msgspec.json.encode(values, order="sorted")).hexdigest()


def profile_arguments(profiles: tuple[Profile, ...]) -> list[str]:
    """The shape options that give these profiles."""
    words = []
    for profile in profiles:
        for option, part in (("min", "minimum"), ("opt", "optimum"), ("max", "maximum")):
            shapes = ",".join(f"{name}:{text_of(getattr(ranges, part))}" for name, ranges in profile.items())
            words += [f"--{option}-shapes", shapes]
    return words


def sidecar_of(engine: Path) -> Path:
    """``<engine>.json`` beside the engine."""
    return engine.with_name(f"{engine.name}.json")


def write_sidecar(engine: Path, record: BuildRecord) -> None:
    """Writes the sidecar, after the engine: an engine without one is not whole.

    Raises:
        OutputError: It cannot be written.
    """
    write_file(sidecar_of(engine), to_json(replace(record, cached=False)))


def read_sidecar(engine: Path) -> BuildRecord:
    """What the sidecar says, whether or not the engine agrees.

    Raises:
        ArtifactError: The engine or its sidecar is missing, damaged or of another schema version.
    """
    path = sidecar_of(engine)
    if not engine.is_file():
        raise ArtifactError("no such engine file", where=str(engine), fix="build one with `s2mlp-deploy build`")
    fix = "build the engine again with `s2mlp-deploy build`: a plan alone does not say what it was built for"
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"the engine has no readable sidecar: {error.strerror or error}", where=str(path), fix=fix
        ) from error
    try:
        version = msgspec.json.decode(raw).get("schema_version")
        if version != SCHEMA_VERSION:
            raise ArtifactError(
                f"the sidecar is of schema version {version}, this package reads {SCHEMA_VERSION}",
                where=str(path),
                fix=fix,
            )
        return msgspec.json.decode(raw, type=BuildRecord)
    except (msgspec.DecodeError, AttributeError) as error:
        raise ArtifactError(f"the sidecar is damaged: {error}", where=str(path), fix=fix) from error


def read_engine(engine: Path) -> BuildRecord:
    """The sidecar of an engine file that is the one it describes.

    Raises:
        ArtifactError: As :func:`read_sidecar`, or the engine was changed since it was built.
    """
    record = read_sidecar(engine)
    actual = sha256_of(engine)
    if actual != record.engine_sha256:
        raise ArtifactError(
            f"the engine is not the one its sidecar describes: its sha256 begins with {actual[:12]}, the sidecar says "
            f"{record.engine_sha256[:12]}",
            where=str(engine),
            fix=f"build it again, in {engine.parent}: {record.command}",
        )
    return record


@dataclass(frozen=True)
class Mismatch:
    """Something the engine was built for that is different here.

    Attributes:
        field: Which entry of the sidecar.
        built: What it says.
        here: What is here.
    """

    field: str
    built: str
    here: str


def mismatches(record: BuildRecord, *, version: str | None, capability: str | None) -> tuple[Mismatch, ...]:
    """What keeps an engine from running here.

    Args:
        record: Its sidecar.
        version: Of the library that would load it; None where that is not known.
        capability: Of the GPU, as ``sm89``; None where that is not known.
    """
    found = []
    if record.platform != this_platform():
        found.append(Mismatch("platform", record.platform, this_platform()))
    if version is not None and not _loads(record, version):
        found.append(Mismatch("version", record.version, version))
    if capability is not None and not _runs_on(record, capability):
        found.append(Mismatch("targets", ", ".join(record.targets), capability))
    return tuple(found)


def _loads(record: BuildRecord, version: str) -> bool:
    if record.version == version:
        return True
    # Version-compatible engines load in later versions of the same major.
    built, here = ([int(part) for part in text.split(".") if part.isdecimal()] for text in (record.version, version))
    return bool(record.flags.get("version_compatible")) and built[:1] == here[:1] and built <= here


def _runs_on(record: BuildRecord, capability: str) -> bool:
    if capability in record.targets:
        return True
    level, built = record.flags.get("hardware_compatible"), record.targets
    return level == "ampere+" and int(capability[2:]) >= 80 and all(int(target[2:]) >= 80 for target in built)


def check_runs_here(engine: Path, record: BuildRecord, *, version: str | None, capability: str | None) -> None:
    """Refuses an engine that was built for something else.

    Raises:
        ArtifactError: Says which entries do not match, and the command that builds the engine again.
    """
    found = mismatches(record, version=version, capability=capability)
    if found:
        lines = [f"{item.field}: built for {item.built}, here is {item.here}" for item in found]
        raise ArtifactError(
            "the engine was not built for this machine\n    " + "\n    ".join(lines),
            where=str(engine),
            fix=f"build it again, in {engine.parent}: {record.command}",
        )
