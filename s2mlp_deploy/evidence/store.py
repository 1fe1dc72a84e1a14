"""Saving and reading evidence: one writer and one reader for every kind of record.

A document is a JSON object: ``kind`` and ``schema_version``, then the record's fields by their names. JSON has no NaN
and no infinity: such a figure is saved as null and reads as None. Fields that a record does not have are ignored.
A new kind of evidence is a module with its record type and a line in :data:`KINDS`.
"""

from __future__ import annotations

import dataclasses
import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from s2mlp_deploy.artifact import EVIDENCE
from s2mlp_deploy.errors import ArtifactError, InputError, OutputError
from s2mlp_deploy.evidence.accuracy import AccuracyReport
from s2mlp_deploy.evidence.bench import BenchReport
from s2mlp_deploy.evidence.build import BuildRecord
from s2mlp_deploy.evidence.calibration import CalibrationReport
from s2mlp_deploy.evidence.engine_layers import EngineLayers
from s2mlp_deploy.evidence.layers import LayersReport
from s2mlp_deploy.evidence.machine import Environment
from s2mlp_deploy.evidence.modules import ModulesReport
from s2mlp_deploy.evidence.notebook import ShownInNotebooks
from s2mlp_deploy.evidence.parity import ParityReport
from s2mlp_deploy.evidence.tune import TuneReport
from s2mlp_deploy.files import LIMITS, from_json, inside, read_file, to_json, write_file

R = TypeVar("R")


@dataclass(frozen=True)
class Kind:
    """A kind of evidence.

    Attributes:
        name: In the document, and the first part of the file's name.
        record: The type of its records.
        version: Of the record's fields; a document of another version is migrated or not read.
        renew: The command that measures anew, with ``DIR`` for the artifact and ``SOURCE`` for what it was made of.
        renew_labelled: The same for a label that tells more; None where it does not.
        labelled: Whether an artifact has several: ``<name>-<label>.json`` then, else ``<name>.json``.
        migrations: By older version what makes fields of the next version of that version's. Every version that was
            ever released has one (docs/contributing/release.md).
    """

    name: str
    record: type[Any]
    version: int
    renew: str
    labelled: bool = False
    renew_labelled: Callable[[str], str | None] | None = None
    migrations: Mapping[int, Callable[[Mapping[str, Any]], dict[str, Any]]] = field(default_factory=dict)

    def file_name(self, label: str = "") -> str:
        """The name of a document in the evidence folder."""
        return f"{self.name}-{label}.json" if self.labelled else f"{self.name}.json"

    def owns(self, file_name: str) -> bool:
        """Whether a file of the evidence folder is of this kind, by its name."""
        if self.labelled:
            return file_name.startswith(f"{self.name}-") and file_name.endswith(".json")
        return file_name == f"{self.name}.json"

    def renewal(self, directory: str = "DIR", file_name: str = "") -> str:
        """The command line that measures anew what a document says of an artifact.

        Args:
            directory: The artifact.
            file_name: Of the document, whose label may tell of what it is.
        """
        label = file_name.removeprefix(f"{self.name}-").removesuffix(".json")
        command = (self.renew_labelled(label) if self.renew_labelled is not None else None) or self.renew
        return f"s2mlp-deploy {command.replace('DIR', directory, 1)}"

    def migrated(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The fields of a document of an older version, with those of this version where that can be told."""
        for older, migrate in sorted(self.migrations.items()):
            if values.get("schema_version") == older:
                values = migrate(values) | {"schema_version": older + 1}
        return values


_ENGINE = re.compile(r"([\w.-]+)\.(tensorrt-rtx|tensorrt|openvino)\.([\w-]+)")
"""The label of an engine that has its usual name: graph, engine, targets."""

_QUANTIZED = re.compile(r"\.(int8|fp8)(-trt)?$")


def _build_again(label: str) -> str | None:
    """What builds an engine of that name."""
    if (found := _ENGINE.fullmatch(label)) is None:
        return None
    targets = "".join(f" --target {target}" for target in found[3].split("-"))
    return f"build DIR/{found[1]}.onnx --engine {found[2]}{targets}"


def _look_at_modules(label: str) -> str | None:
    """What writes a quantized file again; to export over an artifact would remove it."""
    if (found := _QUANTIZED.search(label)) is None:
        return None
    return "quantize DIR --data IMAGES" + (" --precision fp8" if found[1] == "fp8" else "")


# Version 1 had neither kind nor, but for builds, a version in the document. Parity of version 2 did not say whether its
# data was noise, and was kept under the file's name alone; accuracy of version 2 knew no environment, and there was one
# of it, accuracy.json. None of them was released: nothing migrates them.
KINDS = (
    Kind("parity", ParityReport, 3, "parity SOURCE DIR --data IMAGES", labelled=True),
    Kind("accuracy", AccuracyReport, 3, "quantize DIR --data IMAGES", labelled=True),
    Kind("layers", LayersReport, 1, "parity SOURCE DIR --per-layer --data IMAGES", labelled=True),
    Kind(
        "modules",
        ModulesReport,
        1,
        "export SOURCE --output DIR --force",
        labelled=True,
        renew_labelled=_look_at_modules,
    ),
    Kind("calibration", CalibrationReport, 2, "quantize DIR --data IMAGES"),
    Kind("build", BuildRecord, 2, "build DIR", labelled=True, renew_labelled=_build_again),
    Kind("bench", BenchReport, 1, "bench DIR", labelled=True),
    Kind("engine-layers", EngineLayers, 1, "inspect LAYERS.json --artifact DIR", labelled=True),
    Kind("tune", TuneReport, 1, "tune DIR"),
)


@dataclass(frozen=True)
class Saved(Generic[R]):
    """A record that was read.

    Attributes:
        name: Of its file.
        record: What it holds.
    """

    name: str
    record: R


@dataclass(frozen=True)
class Unreadable:
    """A document that was left out.

    Attributes:
        name: Of its file.
        record: The type of the record that it should hold.
        problem: Why it cannot be read.
    """

    name: str
    record: type[Any]
    problem: str


@dataclass(frozen=True)
class Evidence(ShownInNotebooks):
    """All evidence of an artifact, in the order of the file names.

    Attributes:
        saved: The records that could be read.
        unreadable: Documents that are damaged, or of a version that this package does not read.
        others: Names of files that are of no known kind.
    """

    saved: tuple[Saved[Any], ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
    others: tuple[str, ...] = ()

    def of(self, record: type[R]) -> tuple[Saved[R], ...]:
        """The records of a type."""
        return tuple(item for item in self.saved if type(item.record) is record)

    def one(self, record: type[R]) -> R | None:
        """The record of a type that an artifact has one of; None where there is none."""
        return next((item.record for item in self.of(record)), None)

    def newest(self, record: type[R]) -> tuple[R, ...]:
        """The records of a type, the newest first."""

        def time(item: R) -> str:
            environment: Environment | None = getattr(item, "environment", None)
            return environment.time if environment is not None else ""

        return tuple(sorted((item.record for item in self.of(record)), key=time, reverse=True))


def kind_of(record: type[Any]) -> Kind:
    """The kind whose records are of a type."""
    return next(kind for kind in KINDS if kind.record is record)


def document_of(record: Any) -> dict[str, Any]:
    """A record's document: its kind and version, then its fields, whose values are left as they are."""
    kind = kind_of(type(record))
    values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    return {"kind": kind.name, "schema_version": kind.version} | values


def encode(record: Any) -> bytes:
    """A record's document, as readable JSON.

    Raises:
        OutputError: It would be larger than what is read.
    """
    document = to_json(document_of(record))
    if len(document) > LIMITS["evidence"]:
        raise OutputError(
            f"the {kind_of(type(record)).name} record would have {len(document) / 2**20:.0f} MiB, and one of more than "
            f"{LIMITS['evidence'] // 2**20} MiB is not read",
            fix="measure fewer files at once; layers export without --profilingVerbosity=detailed",
        )
    return document


def decode(document: bytes, record: type[R]) -> R:
    """The record that a document holds.

    Args:
        document: JSON, as :func:`encode` makes it.
        record: The type of the record.

    Raises:
        ArtifactError: The document is damaged, of another kind, or of a version that cannot be migrated.
    """
    kind = kind_of(record)
    again = f"measure again with this version: {kind.renewal()}"
    try:
        values = from_json(document)
        if not isinstance(values, Mapping):
            raise ArtifactError("it holds no JSON object", fix=again)
        if "kind" not in values:
            raise ArtifactError("it names no kind of evidence: an older version wrote it", fix=again)
        if values["kind"] != kind.name:
            raise ArtifactError(f"its kind is {reprlib.repr(values['kind'])}, not {kind.name!r}", fix=again)
        values = kind.migrated(values)
        version = values.get("schema_version")
        if version != kind.version:
            raise ArtifactError(
                f"it is of schema version {reprlib.repr(version)}, this package reads {kind.version}", fix=again
            )
        return msgspec.convert(values, record)
    except ArtifactError:
        raise
    # A record whose own checks refuse a value raises an InputError; a migration meets whatever stands in its fields.
    except (ValueError, LookupError, TypeError, AttributeError, InputError) as error:
        raise ArtifactError(f"it is damaged: {getattr(error, 'problem', error)}", fix=again) from error


def save_record(directory: Path, record: Any, label: str = "") -> Path:
    """Saves a record in an artifact's evidence folder, in place of an earlier one of that kind and label.

    Args:
        directory: The artifact.
        record: Of a type of :data:`KINDS`.
        label: What distinguishes it from others of its kind: the name of the file it is about, say; by default the
            record's own.

    Returns:
        Its file.

    Raises:
        OutputError: It cannot be written, would be larger than what is read, or the folder is a link to elsewhere.
    """
    folder = inside(directory, EVIDENCE)
    if folder is None:
        raise OutputError(
            f"{EVIDENCE} leads out of the artifact, and nothing is written there",
            where=str(directory / EVIDENCE),
            fix="put a folder in place of the link",
        )
    path = folder / kind_of(type(record)).file_name(label or getattr(record, "label", ""))
    write_file(path, encode(record))
    if isinstance(record, ParityReport):
        _remove_older_version(folder / kind_of(ParityReport).file_name(record.stem), ParityReport)
    if isinstance(record, AccuracyReport):
        _remove_older_version(folder / "accuracy.json", AccuracyReport)
    return path


def _remove_older_version(path: Path, record: type[Any]) -> None:
    """Removes a measurement of the same that an earlier version kept: it has been measured again."""
    if not path.is_file() or path.is_symlink():
        return
    try:
        decode(read_file(path, "evidence"), record)
    except ArtifactError:
        path.unlink(missing_ok=True)
    except OSError:
        return


def remove_records(directory: Path, record: type[R], unwanted: Callable[[R], bool]) -> None:
    """Removes records of a type that tell of nothing any more.

    Args:
        directory: The artifact.
        record: The type.
        unwanted: Which.
    """
    for saved in read_evidence(directory).of(record):
        if unwanted(saved.record):
            (directory / EVIDENCE / saved.name).unlink(missing_ok=True)


def read_record(directory: Path, record: type[R], label: str = "") -> R | None:
    """The record of a kind, and of a label where an artifact has several; None where there is none that can be read."""
    path = inside(directory, f"{EVIDENCE}/{kind_of(record).file_name(label)}")
    try:
        return decode(read_file(path, "evidence"), record) if path is not None else None
    except (OSError, ArtifactError):
        return None


def read_evidence(directory: str | Path) -> Evidence:
    """Reads ``evidence/`` of an artifact; a directory without one, or that is none, has none.

    What cannot be read is listed, never raised: a damaged file must not hide the others.
    """
    directory = Path(directory)
    saved: list[Saved[Any]] = []
    unreadable: list[Unreadable] = []
    others: list[str] = []
    folder = inside(directory, EVIDENCE)
    # Hidden names are files that are being written.
    there = folder is not None and folder.is_dir()
    paths = (path for path in folder.iterdir() if not path.name.startswith(".")) if folder and there else ()
    for path in sorted(paths):
        kind = next((kind for kind in KINDS if kind.owns(path.name)), None)
        if kind is None:
            others.append(path.name)
            continue
        if inside(directory, f"{EVIDENCE}/{path.name}") is None:
            unreadable.append(Unreadable(path.name, kind.record, "it is a link that leads out of the artifact"))
            continue
        try:
            saved.append(Saved(path.name, decode(read_file(path, "evidence"), kind.record)))
        except OSError as error:
            unreadable.append(Unreadable(path.name, kind.record, f"it cannot be read: {error.strerror or error}"))
        except ArtifactError as error:
            unreadable.append(Unreadable(path.name, kind.record, error.problem))
    return Evidence(tuple(saved), tuple(unreadable), tuple(others))
