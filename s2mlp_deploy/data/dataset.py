"""The one way to data: whatever the user names becomes batches of a model's inputs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.data.batches import batches
from s2mlp_deploy.data.collect import collect, split_path
from s2mlp_deploy.data.feeds import ModelInputs
from s2mlp_deploy.data.iterables import open_iterable
from s2mlp_deploy.data.samples import Collection, Skipped, digest
from s2mlp_deploy.errors import DataError, ImageError
from s2mlp_deploy.preprocess import Preprocessing
from s2mlp_deploy.progress import ProgressCallback, no_progress

Feeds: TypeAlias = dict[str, NDArray[Any]]
Labels: TypeAlias = NDArray[np.int64]

_MAX_WORKERS = 8


@dataclass(frozen=True)
class _Mark:
    """Where a batch begins: the samples of the collection before it, how many were used, and what was skipped.

    ``paths`` are those of the batch that ends there.
    """

    end: int
    used: int
    skipped: Skipped
    paths: tuple[Path, ...] = ()


@dataclass(frozen=True)
class _Contents:
    """The hash of all samples in order, and how many of them had been seen before."""

    sha256: str
    duplicates: int


class ModelData:
    """Batches of a model's inputs, made anew in each iteration: ``for feeds, labels in data``.

    ``feeds`` has an array [batch, ...] for each input, in the input's type; ``labels`` is int64 [batch] (−1: not
    known) or None. Every iteration gives the same batches. Memory holds one of them, and a few samples ahead.

    Made by :func:`open_data`.

    Attributes:
        described: What it is, in words.
        batch: Samples in a batch; the last one may have fewer, unless only whole batches fit the model.
        skipped: Images that were left out, by the latest iteration; complete when that has ended.
        used: Samples that the latest iteration has given.
    """

    def __init__(
        self,
        collection: Collection,
        inputs: ModelInputs,
        described: str,
        *,
        batch: int,
        fixed: bool,
        workers: int,
        minimum: int,
        on_broken: Literal["raise", "skip"],
        progress: ProgressCallback,
    ) -> None:
        self.described = described
        self.batch = batch
        self.skipped: Skipped = Skipped()
        self.used: int = 0
        self._collection = collection
        self._inputs = inputs
        self._fixed = fixed
        self._workers = workers
        self._minimum = minimum
        self._on_broken: Literal["raise", "skip"] = on_broken
        self._progress = progress
        self._marks = [_Mark(0, 0, Skipped())]

    @property
    def count(self) -> int:
        """Samples of an iteration that has nothing to skip."""
        drawn = len(self._collection)
        if self._inputs.takes_pixels:
            return drawn * self._copies
        return drawn - drawn % self.batch if self._fixed else drawn

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names the labels are indices into, if known."""
        return self._collection.class_names

    @property
    def labelled(self) -> bool:
        """Whether labels exist."""
        return self._collection.labelled

    @property
    def content_hash(self) -> str:
        """SHA-256 of the drawn samples and their labels, in order: 64 hexadecimal digits.

        Names, times, the batch size and the preprocessing are not in it. The first use reads every sample, without
        decoding any.
        """
        return self._contents.sha256

    @property
    def duplicates(self) -> int:
        """Samples whose content had come before. The first use reads every sample."""
        return self._contents.duplicates

    @cached_property
    def _contents(self) -> _Contents:
        found, seen, total = hashlib.sha256(), set(), len(self._collection)
        for done, sample in enumerate(self._collection):
            self._progress("hashing the data", done, total)
            content = digest(sample)
            seen.add(content)
            found.update(content + f"{sample.label}\n".encode())
        self._progress("hashing the data", total, total)
        return _Contents(found.hexdigest(), total - len(seen))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know, in sentences: duplicates and, after an iteration, skipped images."""
        found = []
        if self.duplicates:
            found.append(f"{self.duplicates} of {len(self._collection)} samples are duplicates of others")
        if self.skipped.count:
            path, problem = self.skipped.examples[0]
            found.append(f"{self.skipped.count} broken images were skipped; the first: {path}: {problem}")
        return tuple(found)

    def name_of(self, index: int) -> str:
        """What a sample is called: its path in the data, or its place in an array.

        Args:
            index: In the order of an iteration.

        Returns:
            Nothing for a sample that no iteration has given yet.
        """
        copies = self._copies if self._inputs.takes_pixels else 1
        batch = copies if self._inputs.takes_pixels else self.batch
        place, within = index // batch + 1, index % batch // copies
        if place >= len(self._marks) or within >= len(self._marks[place].paths):
            return ""
        path = self._marks[place].paths[within]
        root = self._collection.root
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name

    @property
    def _copies(self) -> int:
        """How often an image is repeated in a batch of raw pixels, which cannot hold images of other sizes."""
        size = self._inputs.tensors[0].shape[0]
        return size if isinstance(size, int) else 1

    def __len__(self) -> int:
        """Return the number of batches of an iteration that has nothing to skip."""
        return -(-self.count // self.batch)

    def __iter__(self) -> Iterator[tuple[Feeds, Labels | None]]:
        """Iterate over feeds and labels; raises what :meth:`from_batch` raises."""
        return self.from_batch(0)

    def from_batch(self, index: int) -> Iterator[tuple[Feeds, Labels | None]]:
        """Iterate from a batch on, without making those before it where an iteration has passed it already.

        Args:
            index: Of the first batch.

        Raises:
            DataError: At the end, if so many images had to be skipped that too few were left.
            ImageError: An image is broken, and such are not to be skipped.
        """
        number = min(index, len(self._marks) - 1)
        mark, pixels = self._marks[number], self._inputs.takes_pixels
        skipped, used = mark.skipped.copy(), mark.used
        self.skipped, self.used = skipped, used
        for item in batches(
            self._collection,
            self._inputs,
            1 if pixels else self.batch,
            on_broken=self._on_broken,
            workers=self._workers,
            drop_last=self._fixed and not pixels,
            skipped=skipped,
            start=mark.end,
        ):
            feeds, labels = item.feeds, item.labels
            used += len(item.paths)
            self.used = used
            if pixels and self._copies > 1:
                feeds = {name: np.repeat(array, self._copies, axis=0) for name, array in feeds.items()}
                labels = None if labels is None else np.repeat(labels, self._copies)
            number += 1
            if number == len(self._marks):
                self._marks.append(_Mark(item.end, used, skipped.copy(), item.paths))
            if number > index:
                yield feeds, labels
        if used < self._minimum:
            path, problem = skipped.examples[0] if skipped.examples else (self._collection.root, "the batch is fixed")
            raise DataError(
                f"Only {used} of {len(self._collection)} samples can be used, at least {self._minimum} are needed; "
                f"the first that cannot: {problem}",
                where=str(path),
                fix="repair or remove the broken ones, or give more",
            )


def open_data(
    data: str | Path | Iterable[Any],
    *,
    inputs: Sequence[TensorInfo],
    preprocessing: Preprocessing | None = None,
    classes: Sequence[str] | None = None,
    samples: int | None = None,
    seed: int = 0,
    batch: int = 8,
    whole: bool = False,
    workers: int | None = None,
    minimum: int = 1,
    on_broken: Literal["raise", "skip"] = "skip",
    progress: ProgressCallback = no_progress,
) -> ModelData:
    """Open what the user named.

    Args:
        data: A path that :func:`~s2mlp_deploy.data.collect.collect` takes (a folder or archive of images, an
            ``.npy`` or ``.npz`` file, a saved ``datasets`` directory), or a Python object that
            :func:`~s2mlp_deploy.data.iterables.open_iterable` takes.
        inputs: The model's inputs. A fixed batch is kept to: what does not fill one is left out.
        preprocessing: How an image becomes the input.
        classes: The model's class names, in the order of its outputs; the data's classes are matched with them.
        samples: Draw at most so many (default: all).
        seed: Chooses them.
        batch: Samples in a batch. A graph that does its own preprocessing gets one image a batch.
        whole: Whether what does not fill a batch is left out: for models that take multiples of it only.
        workers: Threads that decode ahead; default by the number of processors.
        minimum: Fewest samples.
        on_broken: What is done about an image that cannot be used.
        progress: Told how far listing and hashing are.

    Returns:
        The data. The first sample was made into inputs already, so that what fits nowhere is refused here.

    Raises:
        DataError: There is no data, too little of it, or it does not fit the model.
        PreprocessingError: It is images, and no preprocessing is configured.
        MissingDependencyError: It was saved by ``datasets``, which is not installed.
    """
    model = ModelInputs(tuple(inputs), preprocessing)
    if isinstance(data, str | Path):
        path = Path(data)
        collection = collect(path, classes=classes, limit=samples, seed=seed, progress=progress)
        file, inside = split_path(path)
        name = f"{file.name}/{inside}" if inside else file.name
    else:
        collection = open_iterable(data, model.ranks, classes=classes, limit=samples, seed=seed)
        name = f"a Python {type(data).__name__}"
    size = inputs[0].shape[0] if inputs[0].shape else batch
    fixed = isinstance(size, int)
    if len(collection) < minimum:
        limited = " (--samples)" if samples is not None and samples < minimum else ""
        raise DataError(
            f"There are only {len(collection)} samples{limited}, at least {minimum} are needed",
            where=str(collection.root),
            fix="give more; some hundreds that look like the model's work are best",
        )
    opened = ModelData(
        collection,
        model,
        f"{'raw pixels of ' if model.takes_pixels else ''}{len(collection)} {_probe(collection, model)} of {name}",
        batch=size if isinstance(size, int) else 1 if model.takes_pixels else batch,
        fixed=fixed or whole,
        workers=min(_MAX_WORKERS, os.cpu_count() or 1) if workers is None else workers,
        minimum=minimum,
        on_broken=on_broken,
        progress=progress,
    )
    if not opened.count:
        raise DataError(
            f"The model takes batches of {opened.batch}, and there are only {len(collection)} samples",
            where=str(collection.root),
            fix="give more samples, or export the model with a dynamic batch",
        )
    return opened


def _probe(collection: Collection, model: ModelInputs) -> str:
    """What the samples are called, by the first one; and that one tried, unless it is a broken image."""
    first = next(iter(collection))
    images = model.is_image(first) or isinstance(first.source, ImageError)
    try:
        model.load(first)
    except ImageError:
        return "images"  # skipped or raised when its turn comes
    return "images" if images else "samples"
