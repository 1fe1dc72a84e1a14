"""Statistics on disk: a second calibration with the same data and graph is instant, an interrupted one goes on."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.calibration.histogram import BINS, Histogram
from s2mlp_deploy.calibration.observe import Statistics
from s2mlp_deploy.data.archive import check_members
from s2mlp_deploy.errors import QuantizationError
from s2mlp_deploy.files import replacing

_VERSION = 2

_MOST_BYTES = 2**28
"""Of a cache's arrays: a histogram takes 16 KiB, and networks have hundreds to thousands."""

Foreign: TypeAlias = Literal["refuse", "refuse graph", "ignore"]
"""What to do with statistics of another graph, or of other data: raise for either, raise for the graph, or never.

What is not raised for is calibrated anew and replaced.
"""


@dataclass(frozen=True)
class Key:
    """What statistics are of.

    Attributes:
        graph: SHA-256 of the float32 file.
        data: SHA-256 of the samples.
        preprocessing: How a sample becomes the input, as JSON; empty where it is one already.
    """

    graph: str
    data: str
    preprocessing: str


def save(path: Path, key: Key, statistics: Statistics, *, complete: bool) -> None:
    """Writes statistics beside their place and renames them into it.

    Args:
        path: An ``.npz`` file.
        key: What they are of.
        statistics: What was seen so far.
        complete: Whether that is all.

    Raises:
        OutputError: The file cannot be written.
    """
    names = list(statistics.histograms)
    histograms = [statistics.histograms[name] for name in names]
    arrays: dict[str, Any] = {
        "names": np.array(names, np.str_),
        "counts": np.array([histogram.counts for histogram in histograms], np.int64).reshape(-1, BINS),
        "bounds": np.array([(h.limit, h.minimum, h.maximum) for h in histograms], np.float64).reshape(-1, 3),
        "magnitude_names": np.array(list(statistics.magnitudes), np.str_),
        "magnitudes": np.array(list(statistics.magnitudes.values()), np.float64),
        "subnormal_names": np.array(list(statistics.subnormal), np.str_),
        "subnormal": np.array(list(statistics.subnormal.values()), np.int64),
        "samples": np.array(statistics.samples),
        "skipped": np.array(statistics.skipped),
    }
    described = json.dumps({"version": _VERSION, "complete": complete, "sha256": _digest(arrays), **asdict(key)})
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, described=np.array(described), **arrays)


def _digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Hash of all statistics: a cache that was edited writes files that compute something else."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def _check(stored: Mapping[str, NDArray[Any]], sha256: object) -> None:
    """Refuses statistics that no run has measured.

    Raises:
        ValueError: They were edited, or are no statistics.
    """
    if _digest(stored) != sha256:
        raise ValueError("it was changed since it was written")
    counts = stored["counts"]
    bounds = stored["bounds"][counts.sum(axis=1) > 0]  # Of a value that was never finite there are none.
    limit, low, high = bounds.T
    if not np.isfinite(bounds).all() or not np.isfinite(stored["magnitudes"]).all():
        raise ValueError("it holds NaN or infinite numbers")
    if (low > high).any() or (np.maximum(-low, high) > limit).any() or (counts < 0).any():
        raise ValueError("its ranges do not fit together")


def load(path: Path, key: Key, *, foreign: Foreign = "refuse graph") -> tuple[Statistics, bool] | None:
    """Reads statistics of the same graph, data and preprocessing.

    Args:
        path: What :func:`save` wrote.
        key: What is wanted.
        foreign: What to do with those of another graph or other data.

    Returns:
        The statistics and whether they are complete; None where there are none of this data.

    Raises:
        QuantizationError: The file is damaged, or of another graph or other data.
    """
    if not path.exists():
        return None
    try:
        if not path.is_file():
            raise ValueError("it is no regular file")
        with zipfile.ZipFile(path) as archive:
            check_members(path, archive.infolist())
            if sum(member.file_size for member in archive.infolist()) > _MOST_BYTES:
                raise ValueError(f"its arrays take more than {_MOST_BYTES >> 20} MiB")
        with np.load(path, allow_pickle=False) as archived:
            stored = {name: archived[name] for name in archived.files}
            described = json.loads(str(stored.pop("described")))
            version = described["version"]
            if version == _VERSION:
                _check(stored, described["sha256"])
            found = Key(described["graph"], described["data"], described["preprocessing"])
            statistics = Statistics(
                magnitudes=dict(zip(stored["magnitude_names"].tolist(), stored["magnitudes"].tolist(), strict=True)),
                # Caches of before have none.
                subnormal=dict(
                    zip(
                        stored.get("subnormal_names", np.array([], np.str_)).tolist(),
                        stored.get("subnormal", np.array([], np.int64)).tolist(),
                        strict=True,
                    )
                ),
                samples=int(stored["samples"]),
                skipped=int(stored["skipped"]),
            )
            counted = stored["counts"].astype(np.int64, casting="safe").reshape(-1, BINS)
            columns = zip(stored["names"].tolist(), counted, stored["bounds"].tolist(), strict=True)
            for name, counts, (limit, minimum, maximum) in columns:
                histogram = Histogram()
                histogram.counts, histogram.limit = counts, limit
                histogram.minimum, histogram.maximum = minimum, maximum
                statistics.histograms[name] = histogram
            complete = bool(described["complete"])
    except Exception as error:  # On damaged bytes NumPy raises whatever zip, zlib, its tokenizer and JSON raise.
        raise QuantizationError(
            f"not a calibration cache: {error}",
            where=str(path),
            fix="name another file with --calibration-cache, or remove this one",
        ) from error
    if version != _VERSION and foreign != "refuse":
        return None
    other = "graph" if version != _VERSION or found.graph != key.graph else "data" if found != key else ""
    if other and (foreign == "refuse" or (foreign == "refuse graph" and other == "graph")):
        raise QuantizationError(
            f"the calibration cache is of {'another graph' if other == 'graph' else 'other data or preprocessing'}",
            where=str(path),
            fix="remove the file, or name another one with --calibration-cache",
        )
    return None if other else (statistics, complete)
