"""Statistics over the calibration data: from the cache, or measured from where the cache ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import onnx_ir as ir
from numpy.typing import NDArray

from s2mlp_deploy.calibration import store
from s2mlp_deploy.calibration.observe import Observer, Statistics
from s2mlp_deploy.calibration.store import Key
from s2mlp_deploy.data.caching import CachedBatches
from s2mlp_deploy.data.dataset import ModelData
from s2mlp_deploy.errors import DataError, QuantizationError
from s2mlp_deploy.files import sha256_of
from s2mlp_deploy.preprocess import Preprocessing
from s2mlp_deploy.progress import ProgressCallback

LOG = logging.getLogger(__name__)

_SAVE_EVERY = 10.0
"""Seconds between two savings of an unfinished calibration."""


def cache_key(path: Path, data: ModelData, preprocessing: Preprocessing | None) -> Key:
    """The key of statistics of a graph over data.

    Args:
        path: The float32 file.
        data: The calibration data; every sample is read once, to hash it.
        preprocessing: How a sample becomes the input.
    """
    settings = msgspec.json.encode(preprocessing.to_dict(), order="sorted").decode() if preprocessing else ""
    return Key(sha256_of(path), data.content_hash, settings)


def known_statistics(
    values: Sequence[ir.Value], cache: Path, key: Key, foreign: store.Foreign
) -> tuple[Statistics, bool]:
    """The statistics that the cache holds of this graph and data, and whether they are of all of it.

    Args:
        values: Whose histograms are wanted; a cache that lacks one is of no use.
        cache: Where the statistics are kept.
        key: What they are of.
        foreign: What to do with those of another graph.

    Raises:
        QuantizationError: The cache is damaged, or of another graph.
    """
    known = store.load(cache, key, foreign=foreign)
    if known is None or not known[0].samples:
        return Statistics(), False
    # float16 alone measures no histograms, so what it left is not enough for int8.
    if missing := [value for value in values if str(value.name) not in known[0].histograms]:
        LOG.info("the cache lacks %d histograms; calibrating anew", len(missing))
        return Statistics(), False
    return known


def measure(
    model: ir.Model,
    values: Sequence[ir.Value],
    data: ModelData,
    batches: CachedBatches,
    cache: Path,
    key: Key,
    statistics: Statistics,
    *,
    threads: int,
    progress: ProgressCallback,
) -> Statistics:
    """Goes on from statistics to those of all the data, saving them now and then, and when the user interrupts.

    Args:
        model: The float32 graph.
        values: Whose histograms are wanted.
        data: What the batches are made of.
        batches: The data, in the same order every time.
        cache: Where the statistics are saved.
        key: What they are of.
        statistics: Of the first samples, which are not seen again.
        threads: Of ONNX Runtime; 0 lets it choose.
        progress: Told how far it is.

    Raises:
        QuantizationError: A value is NaN or infinite.
        DataError: All samples are equal.
        OutputError: The cache cannot be written.
    """
    observer = Observer(model, values, threads=threads)
    there = cache.exists()
    # A histogram that is not wanted would end with the samples of the interrupted run alone, and be taken for complete.
    wanted = {str(value.name) for value in values}
    statistics = replace(statistics, histograms={n: h for n, h in statistics.histograms.items() if n in wanted})
    done, saved, varied = 0, time.monotonic(), False
    first: dict[str, NDArray[Any]] = {}
    progress("calibrating", 0, data.count)
    try:
        for feeds, _ in batches:
            # Samples come in the same order every time: what an interrupted run has seen is not seen again. Its
            # batches may have been of another size, so it may have ended within this one.
            size, seen = len(next(iter(feeds.values()))), max(statistics.samples - done, 0)
            if seen < size:
                rest = {name: array[seen:] for name, array in feeds.items()} if seen else feeds
                statistics = observer.update(statistics, rest)
            done += size
            first = first or {name: array[:1] for name, array in feeds.items()}
            varied = varied or any(bool((array != first[name]).any()) for name, array in feeds.items())
            progress("calibrating", done, data.count)
            if time.monotonic() - saved > _SAVE_EVERY:
                store.save(cache, key, statistics, complete=False)
                saved = time.monotonic()
    except KeyboardInterrupt:
        if statistics.samples:
            store.save(cache, key, statistics, complete=False)
            LOG.warning("interrupted after %d samples; the next run goes on from there", statistics.samples)
        raise
    except QuantizationError:
        if not there:
            cache.unlink(missing_ok=True)
        raise
    assert statistics.samples == done, "every sample is seen once"
    if not varied:
        if not there:
            cache.unlink(missing_ok=True)
        raise DataError(
            f"all {done} samples are equal (all black, perhaps), so there is no range to measure",
            where=data.described,
            fix="give real images",
        )
    statistics = replace(statistics, skipped=data.skipped.count)
    store.save(cache, key, statistics, complete=True)
    return statistics
