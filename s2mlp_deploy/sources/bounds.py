"""What a checkpoint's file claims, seen before a library makes it: a small file can say that it holds gigabytes."""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from s2mlp_deploy.errors import CheckpointError

MAX_STEPS = 1_000_000
"""Steps of a pickle. A tensor takes about forty; making a million lists takes half a second and 60 MB."""

MAX_HEADER = 4 * 2**20
"""Bytes of a safetensors file's list of tensors. A tensor takes about a hundred."""

_LEGACY_PICKLES = 5
"""In a file of torch before 1.6: magic number, protocol, system, the objects, the keys of their storages."""


def check_bounds(path: Path) -> None:
    """Refuses a checkpoint that would take minutes or gigabytes to read, though its file is small.

    A file that is damaged or of another kind passes: whoever reads it says so.

    Args:
        path: safetensors, or what ``torch.save`` writes: a zip archive of a pickle and of storages, none compressed;
            before torch 1.6 a row of pickles.

    Raises:
        CheckpointError: Members of the archive are larger than the file, or it lists more tensors than any model has.
        OSError: It cannot be read.
    """
    with path.open("rb") as stream:
        if path.suffix == ".safetensors":
            size = int.from_bytes(stream.read(8), "little")
            # A size past the file's end is damage, which safetensors tells.
            if MAX_HEADER < size < path.stat().st_size:
                raise _refused(path, f"its list of tensors has {size:,} bytes, and {MAX_HEADER:,} are the most")
        elif zipfile.is_zipfile(stream):
            _check_archive(path, stream)
        else:
            stream.seek(0)
            _check_pickles(path, stream, _LEGACY_PICKLES)


def _check_archive(path: Path, stream: IO[bytes]) -> None:
    try:
        with zipfile.ZipFile(stream) as archive:
            claimed, there = sum(member.file_size for member in archive.infolist()), path.stat().st_size
            if claimed > there:
                raise _refused(path, f"its members have {claimed:,} bytes in a file of {there:,}")
            for member in archive.infolist():
                if member.filename.endswith(".pkl"):
                    with archive.open(member) as inner:
                        _check_pickles(path, inner, 1)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError):
        return


def _check_pickles(path: Path, stream: IO[bytes], count: int) -> None:
    left = MAX_STEPS
    for _ in range(count):
        for _ in _steps(stream):
            left -= 1
            if not left:
                raise _refused(path, f"making what it holds takes more than {MAX_STEPS:,} steps")


def _steps(stream: IO[bytes]) -> Iterator[object]:
    """The steps of a pickle, as far as it is one."""
    try:
        yield from pickletools.genops(stream)
    except Exception:  # Whatever a damaged one makes of pickletools, which promises nothing about them.
        return


def _refused(path: Path, problem: str) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint is not read: {problem}",
        where=str(path),
        fix="save the weights alone: torch.save(model.state_dict(), ...), or better safetensors",
    )
