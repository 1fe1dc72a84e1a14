"""Saved tensors of layers: written as safetensors and JSON, and judged again without running anything."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from s2mlp_deploy.api.saved_folder import FolderKind, check_place, read_index, read_tensors
from s2mlp_deploy.errors import ArtifactError, InputError
from s2mlp_deploy.evidence.layers import LayerParity, LayersReport
from s2mlp_deploy.evidence.parity import Tolerances
from s2mlp_deploy.evidence.store import decode, encode
from s2mlp_deploy.files import no_empty_parents, output_error, sha256_of, to_json
from s2mlp_deploy.parity.sketch import LayerFigures
from s2mlp_deploy.parity.tolerances import Limit, default_tolerances, limit_of, tolerances_by_output
from s2mlp_deploy.text import whole_number

INDEX = "layers.json"
_PART_BYTES = 64 << 20
_AGAIN = "compare again with --save"
KIND = FolderKind("saved layers", 2, INDEX, _AGAIN)


@dataclass(frozen=True)
class _Index:
    kind: str
    schema_version: int
    reports: tuple[msgspec.Raw, ...]
    tensors: dict[str, str]


class LayerWriter:
    """Writes pairs of tensors as they come, into a folder that appears whole or not at all.

    Args:
        directory: Where to; must not exist.
        files: The compared files' paths, in the order of the reports.

    Raises:
        OutputError: The place cannot be written.
    """

    def __init__(self, directory: Path, files: list[str]) -> None:
        check_place(directory)
        self._directory = directory.absolute()
        self._numbers = {file: number for number, file in enumerate(files)}
        self._staging = self._directory.with_name(f".{self._directory.name}.saving")
        self._tensors: dict[str, NDArray[Any]] = {}
        self._bytes = 0
        self._hashes: dict[str, str] = {}
        self._parents = contextlib.ExitStack()
        self._parents.enter_context(no_empty_parents(self._staging))
        try:
            shutil.rmtree(self._staging, ignore_errors=True)
            self._staging.mkdir(parents=True)
        except OSError as error:
            self._parents.close()
            raise output_error(self._staging, error) from error

    def __call__(
        self,
        file: str,
        path: str,
        batch: int,
        reference: NDArray[Any],
        candidate: NDArray[Any],
        own: NDArray[Any] | None,
    ) -> None:
        """See :class:`~s2mlp_deploy.parity.layers.Keeper`.

        Raises:
            OutputError: The disk is full.
        """
        for side, array in (("reference", reference), ("candidate", candidate), ("own", own)):
            if array is None:
                continue
            self._tensors[f"{self._numbers[file]}/{path}/{batch}/{side}"] = np.ascontiguousarray(array)
            self._bytes += array.nbytes
        if self._bytes > _PART_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._tensors:
            return
        name = f"tensors-{len(self._hashes):05}.safetensors"
        self._write(name, save(self._tensors))
        self._hashes[name] = sha256_of(self._staging / name)
        self._tensors, self._bytes = {}, 0

    def _write(self, name: str, data: bytes) -> None:
        try:
            (self._staging / name).write_bytes(data)
        except OSError as error:
            raise output_error(self._directory, error) from error

    def commit(self, reports: tuple[LayersReport, ...]) -> None:
        """Writes what is left and the index, and moves the folder into place.

        Raises:
            OutputError: The disk is full, or something has taken the place meanwhile.
        """
        self._flush()
        documents = tuple(msgspec.Raw(encode(report)) for report in reports)
        self._write(INDEX, to_json(_Index(KIND.name, KIND.version, documents, self._hashes)))
        check_place(self._directory)
        try:
            self._staging.rename(self._directory)
        except OSError as error:
            raise output_error(self._directory, error) from error

    def close(self) -> None:
        """Removes what was not committed."""
        shutil.rmtree(self._staging, ignore_errors=True)
        self._parents.close()


def rejudge_layers(
    directory: str | Path, *, tolerances: Tolerances | None = None, atol: Limit = None, rtol: Limit = None
) -> tuple[LayersReport, ...]:
    """Judges saved layers again, from their tensors, without a model, a file or an engine.

    Args:
        directory: What ``parity_per_layer(..., save=...)`` wrote.
        tolerances: Limits of every layer; default those that were saved.
        atol: See :func:`~s2mlp_deploy.api.parity_per_layer`.
        rtol: See there.

    Raises:
        ArtifactError: It is no such folder, of another version, or damaged.
        InputError: A limit is given for an output that there is not.
    """
    directory = Path(directory)
    index = read_index(directory, KIND, _Index)
    reports = []
    for document in index.reports:
        try:
            reports.append(decode(bytes(document), LayersReport))
        except ArtifactError as error:
            raise ArtifactError(error.problem, where=str(directory / INDEX), fix=_AGAIN) from error
    outputs = sorted({layer.path for report in reports for layer in report.layers if layer.kind == "output"})
    if reports:
        # A limit is for an output that there is, or for all.
        tolerances_by_output(outputs, Tolerances(0, 0, 0, 0), atol=atol, rtol=rtol)
    figures: dict[tuple[int, str], _Figures] = {}
    for name, expected in index.tensors.items():
        _add(figures, read_tensors(directory, name, expected, KIND), directory / name)
    return tuple(
        replace(
            report,
            layers=tuple(
                _judged(layer, report.precision, figures.get((number, layer.path)), directory, tolerances, atol, rtol)
                for layer in report.layers
            ),
        )
        for number, report in enumerate(reports)
    )


@dataclass
class _Figures:
    layer: LayerFigures = field(default_factory=LayerFigures)
    own: LayerFigures | None = None


def _add(figures: dict[tuple[int, str], _Figures], tensors: dict[str, NDArray[Any]], where: Path) -> None:
    for key, reference in tensors.items():
        stem, _, side = key.rpartition("/")
        if side != "reference":
            continue
        candidate = tensors.get(f"{stem}/candidate")
        number, _, path = stem.rpartition("/")[0].partition("/")
        place = whole_number(number)
        if candidate is None or place is None:
            raise ArtifactError("it is damaged: a tensor has no counterpart", where=str(where), fix=_AGAIN)
        try:
            found = figures.setdefault((place, path), _Figures())
            found.layer.update(reference, candidate)
            if (own := tensors.get(f"{stem}/own")) is not None:
                found.own = found.own or LayerFigures()
                found.own.update(own, candidate)
        except InputError as error:
            raise ArtifactError(f"it is damaged: {error.problem}", where=str(where), fix=_AGAIN) from error


def _judged(
    layer: LayerParity,
    precision: str,
    figures: _Figures | None,
    directory: Path,
    tolerances: Tolerances | None,
    atol: Limit,
    rtol: Limit,
) -> LayerParity:
    if figures is None:
        raise ArtifactError(f"it is damaged: {layer.path} has no tensors", where=str(directory / INDEX), fix=_AGAIN)
    asked = {name: limit_of(limit, layer.path) for name, limit in (("atol", atol), ("rtol", rtol))}
    given = {name: value for name, value in asked.items() if value is not None}
    metrics, errors = figures.layer.result()
    own = None if figures.own is None else figures.own.result()[0]
    layer = replace(layer, metrics=metrics, errors=errors, own=own)
    base = tolerances or layer.tolerances or default_tolerances(precision)
    if tolerances is None and not given:
        return layer
    return replace(layer, tolerances=replace(base, **given), own_tolerances=None)
