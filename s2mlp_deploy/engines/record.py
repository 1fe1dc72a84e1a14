"""The sidecar of an engine file: everything it was made from and for, checked before the engine is loaded."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from s2mlp_deploy.artifact import MANIFEST, lock_artifact
from s2mlp_deploy.engines.openvino.library import OPENVINO, RULES
from s2mlp_deploy.engines.profiles import text_of
from s2mlp_deploy.engines.sidecar import companions_of, layers_of, sidecar_of
from s2mlp_deploy.engines.tensorrt.flavours import FP8_CAPABILITY, NAMES, capability_of, flavour
from s2mlp_deploy.errors import ArtifactError, OutputError
from s2mlp_deploy.evidence.build import BuildRecord, Profile
from s2mlp_deploy.evidence.store import decode, encode
from s2mlp_deploy.files import is_plain_name, read_file, replacing, sha256_of, write_file
from s2mlp_deploy.processor import processor
from s2mlp_deploy.text import command_line

_AMPERE = 80

INSTRUCTIONS = "instructions"
"""The flag of engines of processors that names what their kernels were chosen by."""

GRAPH_RULES = "graph_rules"
"""The flag of OpenVINO's engines that names what was made of the graph before it was compiled."""


def instructions_here() -> str:
    """The instruction sets of this machine, as :data:`INSTRUCTIONS` keeps them."""
    here = processor()
    return " ".join(here.instructions or (here.name,))


def this_platform() -> str:
    """Operating system and processor: ``linux-x86_64``."""
    return f"{platform.system().lower()}-{platform.machine()}"


def key_of(values: dict[str, Any]) -> str:
    """One hash of everything that determines an engine."""
    return hashlib.sha256(msgspec.json.encode(values, order="sorted")).hexdigest()


def profile_arguments(profiles: tuple[Profile, ...]) -> list[str]:
    """The shape options that give these profiles."""
    words = []
    for profile in profiles:
        for bound in ("min", "opt", "max"):
            shapes = ",".join(f"{name}:{text_of(getattr(ranges, bound))}" for name, ranges in profile.items())
            words += [f"--{bound}-shapes", shapes]
    return words


def write_engine(engine: Path, plan: memoryview, record: BuildRecord, *, layers: str | None = None) -> None:
    """Writes an engine and its sidecar: both or neither. What lay beside an older one of that name goes.

    The sidecar takes its place first. Between the two it speaks of an engine that is not there, so nothing looks whole,
    and the next build knows both names for its own.

    Raises:
        OutputError: They cannot be written.
    """
    with replacing(engine) as temporary:
        temporary.write_bytes(plan)
        write_sidecar(engine, record)
    for companion in companions_of(engine):
        with contextlib.suppress(OSError):
            companion.unlink(missing_ok=True)
    if layers is not None:
        write_file(layers_of(engine), layers.encode())


def write_beside(
    graph: Path, engine: Path, plan: memoryview, record: BuildRecord, *, layers: str | None = None
) -> None:
    """Writes an engine and its sidecar while nobody replaces its graph.

    Args:
        graph: What it was built from, with the hash that the record states.
        engine: Where to write.
        plan: Its bytes.
        record: Its sidecar.
        layers: The inspector's account of its layers, or the parsed network's where none was had; None for neither.

    Raises:
        OutputError: They cannot be written, or the graph was replaced since.
    """
    home = graph.parent
    # Where this user may not write, no lock can be made, and no command of this user replaces anything.
    locks = (home / MANIFEST).is_file() and os.access(home, os.W_OK | os.X_OK)
    with lock_artifact(home) if locks else contextlib.nullcontext():
        # A forced export removes the engines of the graphs that it replaces; this one would come after that.
        if not graph.is_file() or sha256_of(graph) != record.onnx_sha256:
            raise OutputError(
                "the graph was replaced while the engine was built, which would be of the older one",
                where=str(graph),
                fix="build again",
            )
        write_engine(engine, plan, record, layers=layers)


def write_sidecar(engine: Path, record: BuildRecord) -> None:
    """Writes a record beside its engine.

    Raises:
        OutputError: It cannot be written.
    """
    write_file(sidecar_of(engine), encode(replace(record, cached=False)))


def read_sidecar(engine: Path) -> BuildRecord:
    """What the sidecar says, whether or not the engine agrees.

    Raises:
        ArtifactError: The engine or its sidecar is missing, damaged or of another schema version.
    """
    path = sidecar_of(engine)
    if not engine.is_file():
        raise ArtifactError(
            "no such engine file",
            where=str(engine),
            fix="check the path; `s2mlp-deploy build --help` shows how one is built",
        )
    fix = "copy both files together, or build it again: a plan alone does not say what it was built for"
    try:
        raw = read_file(path, "sidecar")
    except OSError as error:
        raise ArtifactError(
            f"the engine has no readable sidecar: {error.strerror or error}", where=str(path), fix=fix
        ) from error
    try:
        return decode(raw, BuildRecord)
    except ArtifactError as error:
        raise ArtifactError(
            f"the engine's sidecar cannot be used: {error.problem}", where=str(path), fix=fix
        ) from error


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
            fix=build_again(engine, record),
        )
    return record


def build_again(engine: Path, record: BuildRecord) -> str:
    """The command that builds an engine again, as it can be typed where its graph lies beside it."""
    graph = engine.parent / record.onnx
    if is_plain_name(record.onnx) and graph.is_file():
        return f"build it again: {command_line('build', graph, *record.arguments)}"
    return f"build it again, in the folder of {record.onnx}: {record.command}"


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
    built, here = str(record.flags.get(INSTRUCTIONS, "")), instructions_here()
    if built and here != built:
        more, less = sorted({*built.split()} - {*here.split()}), sorted({*here.split()} - {*built.split()})
        found.append(Mismatch("instruction sets", ", ".join(more) or "fewer", ", ".join(less) or "fewer"))
    rules = record.flags.get(GRAPH_RULES, "none")
    if record.flavour == OPENVINO and rules != RULES:
        found.append(Mismatch("rules of s2mlp-deploy", str(rules), str(RULES)))
    return tuple(found)


def _loads(record: BuildRecord, version: str) -> bool:
    if record.flavour not in NAMES:
        return record.version == version
    compatible = bool(record.flags.get("version_compatible"))
    return flavour(record.flavour).loads(record.version, version, version_compatible=compatible)


def _runs_on(record: BuildRecord, capability: str) -> bool:
    if capability in record.targets:
        return True
    if record.flags.get("hardware_compatible") != "ampere+":
        return False
    # Hopper and later run what was built for Ampere; fp8 needs arithmetic that Ampere has not.
    lowest = FP8_CAPABILITY if "fp8" in (record.precision, *record.layer_dtypes) else _AMPERE
    return all(capability_of(target) >= lowest for target in (capability, *record.targets))


def gpu_warning(record: BuildRecord, gpu: str) -> str:
    """What to say of an engine whose kernels were chosen on another GPU of the same capability; empty where it fits.

    Args:
        record: Its sidecar.
        gpu: Name of the GPU that is to run it.
    """
    if record.gpu is None or record.gpu == gpu:
        return ""
    return f"the kernels of {record.engine} were chosen on {record.gpu}; on this {gpu} others may be faster"


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
            fix=build_again(engine, record),
        )
