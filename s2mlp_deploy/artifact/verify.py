"""Whether the files of an artifact are those that its manifest describes."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from s2mlp_deploy.artifact.manifest import FileRecord, Manifest, read_manifest
from s2mlp_deploy.artifact.names import MANIFEST, data_file
from s2mlp_deploy.errors import ArtifactError
from s2mlp_deploy.files import inside, is_regular, sha256_of


def verify_file(directory: Path, record: FileRecord) -> Path:
    """The path of an artifact's file, after comparing its hash.

    Raises:
        ArtifactError: The file is missing or was changed, or is a link to a file elsewhere.
    """
    path = inside(directory, record.path)
    if path is None:
        raise ArtifactError(
            "a file of the artifact leads out of its directory",
            where=str(directory / record.path),
            fix="put the file itself there, or export again with --force",
        )
    if not is_regular(path.resolve()):
        raise ArtifactError("a file of the artifact is missing", where=str(path), fix="export again with --force")
    if sha256_of(path) != record.sha256:
        raise ArtifactError(
            "a file of the artifact is not the one its manifest describes",
            where=str(path),
            fix="export again with --force",
        )
    return path


def verify_precision(directory: Path, manifest: Manifest, precision: str) -> Path:
    """The graph of a precision, after comparing its hash and those of the weights beside it.

    Raises:
        ArtifactError: The artifact has none, or one of its files is missing or was changed.
    """
    return verify_graph(directory, manifest, manifest.file(precision).path)


def verify_graph(directory: Path, manifest: Manifest, name: str) -> Path:
    """The graph of a name, after comparing its hash and those of the weights beside it.

    Raises:
        ArtifactError: The manifest lists none, or one of its files is missing or was changed.
    """
    records = {record.path: record for record in manifest.files}
    if name not in records:
        raise ArtifactError(
            f"the artifact has no file {name}",
            where=str(directory / MANIFEST),
            fix=f"choose one of {', '.join(records)}",
        )
    if (beside := records.get(data_file(name))) is not None:
        verify_file(directory, beside)
    return verify_file(directory, records[name])


def verify_weights(graph: Path, names: Collection[str]) -> None:
    """Compares the weights beside a graph with what the manifest of its artifact says; elsewhere there is none.

    Args:
        graph: An ONNX file.
        names: Of the files that it names as holding its weights.

    Raises:
        ArtifactError: A file that the manifest lists was changed.
    """
    if not names or not (graph.parent / MANIFEST).is_file():
        return
    try:
        manifest = read_manifest(graph.parent)
    except ArtifactError:
        return
    for record in manifest.files:
        if record.path in names:
            verify_file(graph.parent, record)
