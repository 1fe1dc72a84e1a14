"""From a collection to batches of model inputs."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.data.feeds import ModelInputs
from s2mlp_deploy.data.samples import Collection, Sample, Skipped
from s2mlp_deploy.errors import DataError, ImageError, InputError


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch of model inputs.

    Attributes:
        feeds: By input name, each [batch, ...] in the input's type.
        labels: int64, shape (batch,), −1 where a sample has none; None if no sample of the batch has one.
        paths: Where the samples are.
        end: How many samples of the collection lie before the next batch, those that were skipped among them.
    """

    feeds: dict[str, NDArray[Any]]
    labels: NDArray[np.int64] | None
    paths: tuple[Path, ...]
    end: int


def batches(
    collection: Collection,
    inputs: ModelInputs,
    batch_size: int,
    *,
    on_broken: Literal["raise", "skip"] = "raise",
    workers: int = 0,
    drop_last: bool = False,
    skipped: Skipped | None = None,
    start: int = 0,
) -> Iterator[Batch]:
    """Make the inputs of a collection, batch by batch, in its order.

    Memory holds one batch and, with workers, a few samples ahead, however large the collection is.

    Args:
        collection: The samples.
        inputs: What each becomes.
        batch_size: Samples in a batch. The next sample takes the place of a skipped one, so only the last
            batch may be smaller.
        on_broken: Whether an image that cannot be used raises its ``ImageError`` or is left out. Arrays that do not
            fit the model always raise.
        workers: Threads that decode and resize ahead (Pillow lets them run side by side); 0 for none. The
            batches are the same with any number.
        drop_last: Whether a smaller last batch is left out, for models whose batch is fixed.
        skipped: Filled with the images that are left out.
        start: Samples of the collection to pass over unread, for an iteration that goes on where another ended.

    Returns:
        An iterator over the batches; the arguments are checked at once, samples are read as it goes.

    Raises:
        InputError: ``batch_size``, ``workers`` or ``on_broken`` has a value that cannot be used.
        ImageError: While iterating: an image cannot be used, and ``on_broken`` is "raise".
        DataError: While iterating: every image had to be skipped, or an array does not fit the model.
    """
    if batch_size < 1:
        raise InputError(f"The batch size is {batch_size}", fix="give at least 1")
    if workers < 0:
        raise InputError(f"The number of workers is {workers}", fix="give 0 or more")
    if on_broken not in ("raise", "skip"):
        raise InputError(f"on_broken is {on_broken!r}", fix='give "raise" or "skip"')
    record = Skipped() if skipped is None else skipped
    return _batches(collection, inputs, batch_size, on_broken == "skip", workers, drop_last, record, start)


def _batches(
    collection: Collection,
    inputs: ModelInputs,
    batch_size: int,
    skip: bool,
    workers: int,
    drop_last: bool,
    skipped: Skipped,
    start: int,
) -> Iterator[Batch]:
    first_problem, done, end = None, 0, start
    loaded: list[tuple[Sample, _Arrays]] = []
    # Closed at once when an image raises, so that no thread is left decoding.
    with closing(_load_all(itertools.islice(collection, start, None), inputs, workers)) as outcomes:
        for end, (sample, outcome) in enumerate(outcomes, start + 1):
            if isinstance(outcome, ImageError):
                if not skip:
                    raise outcome
                first_problem = first_problem or outcome
                skipped.add(sample.path, outcome.problem)
                continue
            loaded.append((sample, outcome))
            done += 1
            if len(loaded) == batch_size:
                yield _batch(loaded, end)
                loaded = []
    if loaded and not drop_last:
        yield _batch(loaded, end)
    if not done and not start and first_problem is not None:
        raise DataError(
            f"None of the {len(collection)} images can be used; the first: {first_problem.problem}",
            where=first_problem.where,
            fix=first_problem.fix,
        ) from first_problem


_Arrays: TypeAlias = dict[str, NDArray[Any]]


def _batch(loaded: Sequence[tuple[Sample, _Arrays]], end: int) -> Batch:
    samples = [sample for sample, _ in loaded]
    first = loaded[0][1]
    for sample, arrays in loaded:
        if odd := next((name for name in first if arrays[name].shape != first[name].shape), None):
            raise DataError(
                f"Samples of one batch differ in shape: {arrays[odd].shape} and {first[odd].shape}",
                where=str(sample.path),
                fix="give samples of one shape, or a batch size of 1",
            )
    labels = np.asarray([-1 if sample.label is None else sample.label for sample in samples], np.int64)
    return Batch(
        {name: np.stack([arrays[name] for _, arrays in loaded]) for name in first},
        labels if (labels >= 0).any() else None,
        tuple(sample.path for sample in samples),
        end,
    )


_Outcome: TypeAlias = _Arrays | ImageError


def _load(sample: Sample, inputs: ModelInputs) -> _Outcome:
    """Return the arrays, or the error as a value: one broken image must not end the iteration."""
    try:
        return inputs.load(sample)
    except ImageError as error:
        return error


def _load_all(
    samples: Iterable[Sample], inputs: ModelInputs, workers: int
) -> Generator[tuple[Sample, _Outcome], None, None]:
    if workers == 0:
        for sample in samples:
            yield sample, _load(sample, inputs)
        return
    # The window bounds what is decoded ahead; taking from its left keeps the samples' order.
    window: deque[tuple[Sample, Future[_Outcome]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="images") as pool:
        try:
            for sample in samples:
                window.append((sample, pool.submit(_load, sample, inputs)))
                if len(window) > 2 * workers:
                    first, future = window.popleft()
                    yield first, future.result()
            while window:
                first, future = window.popleft()
                yield first, future.result()
        finally:
            for _, future in window:
                future.cancel()
