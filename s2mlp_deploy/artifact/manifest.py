"""What an artifact says of itself, and reading it."""

from __future__ import annotations

import reprlib
import shlex
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from s2mlp_deploy.artifact.limits import SizeLimit
from s2mlp_deploy.artifact.names import MANIFEST, model_file
from s2mlp_deploy.deprecation import MANIFEST_1, warn_deprecated
from s2mlp_deploy.errors import ArtifactError, ShiftError
from s2mlp_deploy.files import from_json, is_plain_name, is_regular, read_file
from s2mlp_deploy.shift.origin import Origin
from s2mlp_deploy.shift.spec import ShiftSpec
from s2mlp_deploy.text import command_line, first_line_of

SCHEMA_VERSION = 2
HazardKind = Literal["race", "compiler", "smear"]


@dataclass(frozen=True)
class TensorInfo:
    """An input or output.

    Attributes:
        name: Its name in the graph.
        dtype: NumPy's name of the element type.
        shape: Sizes; dynamic axes by name.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


def is_scores(info: TensorInfo) -> bool:
    """Whether an output is a list of scores for each sample: float [batch, classes], a free number of classes too."""
    return info.dtype.startswith("float") and len(info.shape) == 2 and info.shape[1] != 1


@dataclass(frozen=True)
class SourceInfo:
    """Where the network and its weights come from.

    Attributes:
        reference: What the user named. ``parity`` with the same source takes all other fields from here.
        config: The configuration's fields, where there is one.
        checkpoint: File name of the weights, without its folder: it is found again by name and hash. None for seeded
            random ones.
        checkpoint_sha256: Hash of that file.
        seed: Seed of random weights.
        overrides: What was given with ``--set``, of the configuration or of a factory's arguments.
        preprocess: Name of the file that was given with ``--preprocess``.
    """

    reference: str
    config: dict[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None
    checkpoint_sha256: str | None = None
    seed: int | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    preprocess: str | None = None


@dataclass(frozen=True)
class Hazard:
    """A line of the source whose result is not the same in every runtime.

    Attributes:
        kind: ``race``: an overlapping write, which eager PyTorch does not define. ``compiler``: well defined, because
            the right-hand side is cloned first, but a known compiler drops that clone (pytorch issue 197829).
            ``smear``: an ONNX file holds what an overlapping copy left of a shift.
        where: ``file.py:12``, or a node of an ONNX file; empty where it cannot be told.
        code: That line; of a node what is smeared.
        writes: How often it happened in one run.
        elements: How many elements were both read and written, over all of them.
        eager_deviation: For races, by number of threads: the largest absolute difference of eager outputs from the
            functional meaning that was exported, on the example inputs; None where it is not finite.
        repaired: Of a smear, whether the files compute the shift that was meant in its place.
    """

    kind: HazardKind
    where: str
    code: str
    writes: int
    elements: int
    eager_deviation: dict[str, float | None] | None = None
    repaired: bool = False


@dataclass(frozen=True)
class ShiftRecord:
    """One shift of the network, from recognition to the manifest.

    Attributes:
        spec: Groups, axes, channel axis and border.
        origin: Where it comes from and how the source wrote it.
        form: How the ONNX files write it; empty where no file was written.
        nodes: ONNX nodes it became; 0 where none was written, or where nothing moves.
        name: What the names of these nodes begin with, before a slash; empty where none was written.
    """

    spec: ShiftSpec
    origin: Origin
    form: str = ""
    nodes: int = 0
    name: str = ""


@dataclass(frozen=True)
class PrecisionException:
    """A layer that a file computes in higher precision than its own.

    Attributes:
        layer: Module, or node where only a node stays.
        precision: What it computes in: ``fp32`` or ``fp16``.
        reason: Why.
        file: The file it is of.
    """

    layer: str
    precision: str
    reason: str
    file: str

    def covers(self, node: str) -> bool:
        """Whether a node of that name belongs to it."""
        return node == self.layer or node.startswith((f"{self.layer}/", f"{self.layer}."))


@dataclass(frozen=True)
class CalibrationRecord:
    """What the ranges of quantized and float16 files were measured on.

    Attributes:
        data: In words; of the last run, while each file's metadata holds its own.
        sha256: Of the samples and their labels.
        samples: How many were seen.
        skipped: How many could not be decoded.
        duplicates: How many were equal to an earlier one.
        method: How a range was chosen.
        files: The files it is of.
    """

    data: str
    sha256: str
    samples: int
    skipped: int
    duplicates: int
    method: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class FileRecord:
    """A file of the artifact.

    Attributes:
        path: A name in the artifact's directory. Of two of a precision the second, ``model.fp32-tuned.onnx``, is what
            ``tune`` found faster.
        precision: ``fp32``, ``fp16``, ...
        sha256: Of the file's bytes.
        bytes: Its size.
        nodes: Nodes of its graph; 0 for the weights beside a graph that is too large for one file.
    """

    path: str
    precision: str
    sha256: str
    bytes: int
    nodes: int


@dataclass(frozen=True)
class Manifest:
    """Everything an artifact says of itself.

    Attributes:
        name: The served name: ``--name`` (letters, digits, ``.``, ``_``, ``-``), else the checkpoint's stem, or the
            model's name.
        source: Network and weights.
        preprocessing: How an image becomes the input: size, mean, std, interpolation, crop, colour order; None where
            none is configured for this model.
        classes: Names of the outputs' classes in output order, where known.
        inputs: Of the graph.
        outputs: Of the graph.
        opset: Of the files.
        shifts: Every shift found. Equal shifts of one tensor are computed once and listed once, with the first one's
            origin.
        hazards: Lines that mean different things to different runtimes.
        notes: Sentences: why the batch is fixed, which limits a free size has, and what else capturing had to say.
        files: Every ONNX file.
        tools: Versions that shaped the bytes of the files.
        preprocessing_in_graph: Whether the graph does the preprocessing itself, on decoded images: the input is then
            ``image``, uint8 [batch, height, width, 3].
        precision_exceptions: Layers in higher precision than their file's.
        calibration: What ranges were measured on, where some were.
        limits: What free sizes of inputs may be, where that is not every size.
        schema_version: Of this description. Version 1 is read too; others are refused, not guessed.
    """

    name: str
    source: SourceInfo
    preprocessing: dict[str, Any] | None
    classes: tuple[str, ...] | None
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    opset: int
    shifts: tuple[ShiftRecord, ...]
    tools: dict[str, str]
    hazards: tuple[Hazard, ...] = ()
    notes: tuple[str, ...] = ()
    files: tuple[FileRecord, ...] = ()
    preprocessing_in_graph: bool = False
    precision_exceptions: tuple[PrecisionException, ...] = ()
    calibration: CalibrationRecord | None = None
    limits: tuple[SizeLimit, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def timeless(self, precision: str, **own: str) -> str:
        """The part that goes into the metadata of a file of the given precision, as JSON.

        What is said of other files is left out, so that a file's bytes do not depend on which others were made.

        Args:
            precision: Of the file.
            **own: What else that file says of itself.
        """
        name = model_file(precision)
        data = asdict(self)
        del data["files"]
        data["precision_exceptions"] = [asdict(item) for item in self.precision_exceptions if item.file == name]
        if self.calibration is not None:
            has_own = name in self.calibration.files
            # float16 asks for the largest magnitudes, by whatever method the ranges beside it were chosen.
            method = "maxima" if precision == "fp16" else self.calibration.method
            data["calibration"] = asdict(replace(self.calibration, files=(name,), method=method)) if has_own else None
        return msgspec.json.encode(data | {"precision": precision} | own, order="sorted").decode()

    def file(self, precision: str) -> FileRecord:
        """The file of a precision.

        Raises:
            ArtifactError: The artifact has none.
        """
        for record in self.files:
            if record.precision == precision and record.path.endswith(".onnx"):
                return record
        raise ArtifactError(
            f"the artifact has no {precision} file",
            fix=f"choose one of {', '.join(record.precision for record in self.files)}",
        )


def read_manifest(directory: Path) -> Manifest:
    """Reads and validates ``manifest.json``.

    Raises:
        ArtifactError: Missing, damaged, or of a version this package does not know.
    """
    path = directory / MANIFEST
    try:
        raw = read_file(path, "manifest")
    except OSError as error:
        if is_regular(directory):
            raise ArtifactError(
                "a file is no artifact, which is a directory", where=str(directory), fix=_artifact_of(directory)
            ) from error
        raise ArtifactError(
            f"not an artifact: {error.strerror or error}",
            where=str(path),
            fix="check the path; `s2mlp-deploy export --help` shows how one is made",
        ) from error
    again = "export again, into another directory"
    try:
        data = from_json(raw)
        version = data.get("schema_version")
        if version not in (1, SCHEMA_VERSION):
            raise ArtifactError(
                f"the manifest is of schema version {reprlib.repr(version)}, this package reads 1 and {SCHEMA_VERSION}",
                where=str(path),
                fix=f"{again}, or use the version of s2mlp-deploy that wrote it",
            )
        manifest = msgspec.convert(current_fields(data), Manifest)
        if not manifest.inputs or not manifest.outputs:
            raise ValueError("it names no input, or no output")
        for record in manifest.files:
            if not is_plain_name(record.path):
                raise ValueError(f"it lists {record.path!r}, which is no file of its directory")
        return manifest
    except (ValueError, AttributeError, KeyError, TypeError, ShiftError) as error:
        raise ArtifactError(f"the manifest is damaged: {first_line_of(error)}", where=str(path), fix=again) from error


def _artifact_of(file: Path) -> str:
    """What to name instead of a file."""
    if (file.parent / MANIFEST).is_file():
        return f"name the one that it lies in: {shlex.quote(str(file.parent))}"
    if file.suffix == ".onnx":
        return f"make one of it: {command_line('export', file, '--output', 'DIR')}"
    return "check the path; `s2mlp-deploy export --help` shows how one is made"


def current_fields(data: dict[str, Any]) -> dict[str, Any]:
    """A manifest, or the metadata of a file, of any version that is read, with the fields of this version.

    Raises:
        KeyError: A field is missing.
    """
    if data.get("schema_version") != 1:
        return data
    warn_deprecated(MANIFEST_1)
    shifts = [
        {
            "spec": shift["spec"],
            "origin": {"module": shift["where"], "line": shift["line"], "idiom": shift["spelling"]},
            "form": shift["form"],
            "nodes": shift["nodes"],
        }
        for shift in data["shifts"]
    ]
    hazards = [
        {key: hazard[key] for key in ("kind", "where", "code", "writes")}
        | {"elements": hazard["cells"], "eager_deviation": hazard.get("effect")}
        for hazard in data.get("hazards", ())
    ]
    return data | {"shifts": shifts, "hazards": hazards, "schema_version": SCHEMA_VERSION}


@dataclass(frozen=True)
class _Described:
    """The fields of a file's own description that are used, and their types."""

    precision: str | None = None
    preprocessing_in_graph: bool = False
    precision_exceptions: tuple[dict[str, Any], ...] = ()
    shifts: tuple[dict[str, Any], ...] = ()
    hazards: tuple[dict[str, Any], ...] = ()
    name: str | None = None
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    preprocessing: dict[str, Any] | None = None


def read_description(text: str | None, path: Path) -> dict[str, Any]:
    """What an ONNX file's metadata says of it, with the fields of this version; empty where it says nothing.

    Args:
        text: The metadata entry.
        path: The file.

    Raises:
        ArtifactError: It is no description of ours.
    """
    if not text:
        return {}
    try:
        described: dict[str, Any] = current_fields(from_json(text, dict[str, Any]))
        msgspec.convert(described, _Described)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"the file's own description is damaged: {first_line_of(error)}", where=str(path), fix="export it again"
        ) from error
    return described
