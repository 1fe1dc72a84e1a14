"""Statistics on disk: a second calibration with the same data and graph is instant, an interrupted one goes on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from s2mlp_deploy.calibration.histogram import BINS, Histogram
from s2mlp_deploy.calibration.observe import Statistics
from s2mlp_deploy.errors import QuantizationError
from s2mlp_deploy.files import replacing

_VERSION = 1

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
    described = json.dumps({"version": _VERSION, "complete": complete, **asdict(key)})
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            described=np.array(described),
            names=np.array(names),
            counts=np.array([histogram.counts for histogram in histograms], np.int64).reshape(-1, BINS),
            bounds=np.array([(h.limit, h.minimum, h.maximum) for h in histograms], np.float64).reshape(-1, 3),
            magnitude_names=np.array(list(statistics.magnitudes)),
            magnitudes=np.array(list(statistics.magnitudes.values()), np.float64),
            samples=np.array(statistics.samples),
            skipped=np.array(statistics.skipped),
        )


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
        with np.load(path, allow_pickle=False) as stored:
            described = json.loads(str(stored["described"]))
            found = Key(described["graph"], described["data"], described["preprocessing"])
            statistics = Statistics(
                magnitudes=dict(zip(stored["magnitude_names"].tolist(), stored["magnitudes"].tolist(), strict=True)),
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
            version, complete = described["version"], bool(described["complete"])
    except Exception as error:  # On damaged bytes NumPy raises whatever zip, zlib, its tokenizer and JSON raise.
        raise QuantizationError(
            f"not a calibration cache: {error}",
            where=str(path),
            fix="name another file with --calibration-cache, or remove this one",
        ) from error
    other = "graph" if version != _VERSION or found.graph != key.graph else "data" if found != key else ""
    if other and (foreign == "refuse" or (foreign == "refuse graph" and other == "graph")):
        raise QuantizationError(
            f"the calibration cache is of {'another graph' if other == 'graph' else 'other data or preprocessing'}",
            where=str(path),
            fix="remove the file, or name another one with --calibration-cache",
        )
    return None if other else (statistics, complete)
