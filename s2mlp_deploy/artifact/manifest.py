"""What an artifact says of itself, and reading it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from s2mlp_deploy.errors import ArtifactError
from s2mlp_deploy.files import sha256_of

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
EVIDENCE = "evidence"
REPORT = "report.html"
CALIBRATION_CACHE = "calibration.npz"
"""Statistics of the float32 graph over the calibration data; no part of what an engine needs."""
METADATA_KEY = "s2mlp_deploy"
"""The ONNX metadata entry that holds the manifest's timeless part."""


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


@dataclass(frozen=True)
class SourceInfo:
    """Where the network and its weights come from.

    Attributes:
        reference: What the user named.
        config: The configuration's fields, where there is one.
        checkpoint: File name of the weights; None for seeded random ones.
        checkpoint_sha256: Hash of that file.
        seed: Seed of random weights.
    """

    reference: str
    config: dict[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None
    checkpoint_sha256: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class HazardRecord:
    """A line of the source whose result is not the same in every runtime.

    Attributes:
        kind: ``race`` (eager PyTorch does not define the result) or ``compiler`` (a known compiler gets it wrong).
        where: ``file.py:12``; empty where it cannot be told.
        code: That line.
        writes: How often it happened in one run.
        cells: How many cells were read and written at once.
        effect: For races, by number of threads: the largest difference of eager outputs from the functional meaning
            that was exported, on the example inputs.
    """

    kind: str
    where: str
    code: str
    writes: int
    cells: int
    effect: dict[str, float] | None = None


@dataclass(frozen=True)
class ShiftRecord:
    """One shift of the network.

    Attributes:
        where: The module it happens in.
        line: ``file.py:12`` of the source; empty where it cannot be told.
        spec: Groups, axes, channel axis and border, as JSON.
        idiom: How the source wrote it.
        form: How the ONNX files write it.
        nodes: ONNX nodes it became.
    """

    where: str
    line: str
    spec: dict[str, Any]
    idiom: str
    form: str
    nodes: int


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
        data: In words.
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
        path: Relative to the artifact.
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
    """Everything an artifact says of itself. See ``docs/manifest.md``.

    Attributes:
        name: The served name.
        source: Network and weights.
        preprocessing: How an image becomes the input; None where nobody said.
        classes: Names of the outputs' classes, where known.
        inputs: Of the graph.
        outputs: Of the graph.
        opset: Of the files.
        shifts: Every shift found.
        hazards: Lines that mean different things to different runtimes.
        notes: What was tried and did not work: why the batch is fixed, for example.
        files: Every ONNX file.
        tools: Versions that wrote the files.
        preprocessing_in_graph: Whether the graph does the preprocessing itself, on decoded pictures.
        precision_exceptions: Layers in higher precision than their file's.
        calibration: What ranges were measured on, where some were.
        schema_version: Of this description.
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
    hazards: tuple[HazardRecord, ...] = ()
    notes: tuple[str, ...] = ()
    files: tuple[FileRecord, ...] = ()
    preprocessing_in_graph: bool = False
    precision_exceptions: tuple[PrecisionException, ...] = ()
    calibration: CalibrationRecord | None = None
    schema_version: int = SCHEMA_VERSION

    def timeless(self, precision: str) -> str:
        """The part that goes into the metadata of a file of the given precision, as JSON.

        What is said of other files is left out, so that a file's bytes do not depend on which others were made.
        """
        name = f"model.{precision}.onnx"
        data = asdict(self)
        del data["files"]
        data["precision_exceptions"] = [asdict(item) for item in self.precision_exceptions if item.file == name]
        if self.calibration is not None:
            own = name in self.calibration.files
            # float16 asks for the largest magnitudes, by whatever method the ranges beside it were chosen.
            method = "maxima" if precision == "fp16" else self.calibration.method
            data["calibration"] = asdict(replace(self.calibration, files=(name,), method=method)) if own else None
        return msgspec.json.encode(data | {"precision": precision}, order="sorted").decode()

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
        raw = path.read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"not an artifact: {error.strerror or error}",
            where=str(path),
            fix="export one with `s2mlp-deploy export`",
        ) from error
    try:
        version = msgspec.json.decode(raw).get("schema_version")
        if version != SCHEMA_VERSION:
            raise ArtifactError(
                f"the manifest is of schema version {version}, this package reads {SCHEMA_VERSION}",
                where=str(path),
                fix="export again with this version",
            )
        return msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, AttributeError) as error:
        raise ArtifactError(
            f"the manifest is damaged: {error}", where=str(path), fix="export again with --force"
        ) from error


def verify_file(directory: Path, record: FileRecord) -> Path:
    """The path of an artifact's file, after comparing its hash.

    Raises:
        ArtifactError: The file is missing or was changed.
    """
    path = directory / record.path
    if not path.is_file():
        raise ArtifactError("a file of the artifact is missing", where=str(path), fix="export again with --force")
    if sha256_of(path) != record.sha256:
        raise ArtifactError(
            "a file of the artifact is not the one its manifest describes",
            where=str(path),
            fix="export again with --force",
        )
    return path
