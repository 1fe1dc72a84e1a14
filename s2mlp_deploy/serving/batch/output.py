"""The data set that a batch writes: a file for each chunk, so that whoever is killed goes on where it stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from s2mlp_deploy.errors import InputError, OutputError
from s2mlp_deploy.files import from_json, read_file, remove_abandoned, replacing, to_json, write_file
from s2mlp_deploy.locks import locked
from s2mlp_deploy.serving.batch.worker import ChunkResult
from s2mlp_deploy.text import join_names

STATE = "_batch.json"
"""Readers of data sets pass over names that begin so."""

_LOCK = "_batch.lock"
_COUNTS = b"s2mlp_deploy.counts"
_VERSION = 1


@dataclass(frozen=True)
class Question:
    """What is asked of a batch: one that goes on must ask the same.

    Attributes:
        input: The images, in words.
        input_sha256: What they are, see :class:`~s2mlp_deploy.serving.batch.inputs.BatchInput`.
        images: How many.
        chunk: Images in a file.
        model: The artifact's name.
        file: Which of its files runs.
        file_sha256: Of that file.
        engine: What runs it.
        output: Which output holds the scores, where that was said.
        top: How many classes are named.
        outputs: Whether all outputs are kept.
        schema_version: Of this description.
    """

    input: str
    input_sha256: str
    images: int
    chunk: int
    model: str
    file: str
    file_sha256: str
    engine: str
    output: str | None
    top: int
    outputs: bool
    schema_version: int = _VERSION


@dataclass(frozen=True)
class Counts:
    """How many images there were.

    Attributes:
        images: All.
        broken: Those that could not be used.
        failed: Others of which the model said what is not finite.
    """

    images: int = 0
    broken: int = 0
    failed: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.images + other.images, self.broken + other.broken, self.failed + other.failed)


def part_name(index: int) -> str:
    """The file of a chunk."""
    return f"part-{index:06d}.parquet"


@contextlib.contextmanager
def open_output(folder: Path, question: Question) -> Iterator[dict[int, Counts]]:
    """Takes a folder for a batch, or goes on with the one that was begun there.

    Args:
        folder: Where the parts go.
        question: What is asked.

    Yields:
        What is done already, by chunk.

    Raises:
        OutputError: The folder holds something else, is in use, or cannot be written.
        InputError: Another batch was begun there; says what differs.
    """
    check_output(folder, question)
    with locked(folder / _LOCK, wait=0.0):
        remove_abandoned(folder)
        begun = (folder / STATE).exists()
        if not begun:
            write_file(folder / STATE, to_json(asdict(question)))
        try:
            yield dict(_done(folder))
        except BaseException:
            # What ends before its first chunk has begun nothing: an engine that cannot be opened, for example.
            if not begun and not any(folder.glob("part-*.parquet")):
                (folder / STATE).unlink(missing_ok=True)
            raise


def check_output(folder: Path, question: Question) -> None:
    """Refuses a folder that a batch cannot be written to; writes nothing.

    Raises:
        OutputError: It holds something else, or cannot be written.
        InputError: Another batch was begun there; says what differs.
    """
    try:
        names = [path.name for path in folder.iterdir()] if folder.exists() else []
    except OSError as error:
        raise OutputError(
            f"the results cannot be written there: {error.strerror}", where=str(folder), fix="name another folder"
        ) from error
    if STATE in names:
        _check_same(folder, question)
    elif any(not name.startswith((".", _LOCK)) for name in names):
        raise OutputError(
            "the folder is not empty, and no batch was begun there", where=str(folder), fix="name another --output"
        )


def _check_same(folder: Path, question: Question) -> None:
    fix = "name another --output, or remove this one"
    try:
        begun: Question = from_json(read_file(folder / STATE, "evidence"), Question)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise OutputError("what was begun there cannot be read", where=str(folder / STATE), fix=fix) from error
    before, now = asdict(begun), asdict(question)
    # Where the input lies may be said in other words; what it is must be the same.
    different = [name for name in now if name != "input" and before[name] != now[name]]
    if different:
        told = [f"{name} {before[name]!s:.20} is now {now[name]!s:.20}" for name in different]
        raise InputError(f"another batch was begun there: {join_names(told)}", where=str(folder), fix=fix)


def _done(folder: Path) -> Iterator[tuple[int, Counts]]:
    for path in sorted(folder.glob("part-*.parquet")):
        number = path.stem.removeprefix("part-")
        # What cannot be read is made again.
        with contextlib.suppress(OSError, ValueError, pa.ArrowException):
            metadata = pq.read_schema(path).metadata or {}
            yield int(number), from_json(metadata.get(_COUNTS, b""), Counts)


def write_part(folder: Path, result: ChunkResult) -> Counts:
    """Writes the file of a chunk, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    counts = Counts(result.images, result.broken, result.failed)
    with pa.ipc.open_stream(result.table) as reader:
        table = reader.read_all()
    described = table.replace_schema_metadata({_COUNTS: to_json(asdict(counts))})
    with replacing(folder / part_name(result.index)) as temporary:
        pq.write_table(described, temporary)
    return counts
