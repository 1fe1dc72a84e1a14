"""Reading and writing files: hashes, JSON, and writing that appears whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

import msgspec

from s2mlp_deploy.errors import OutputError

_TEMPORARY = ".tmp"


def sha256_of(path: Path) -> str:
    """Hash of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def to_json(value: Any) -> bytes:
    """Readable JSON of dataclasses and plain values."""
    try:
        encoded = msgspec.json.encode(value, enc_hook=_plain)
    except UnicodeEncodeError:
        # A file name that is not UTF-8 reaches us with surrogates in it, which JSON cannot hold.
        encoded = msgspec.json.encode(_without_surrogates(msgspec.to_builtins(value, enc_hook=_plain)))
    return msgspec.json.format(encoded, indent=2) + b"\n"


def _plain(value: Any) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} cannot be written as JSON")


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_surrogates(item) for item in value]
    return value


def remove_abandoned(directory: Path) -> None:
    """Removes what :func:`replacing` left in a directory when its process was killed."""
    for path in directory.glob(f".*{_TEMPORARY}"):
        if has_ended(path.name.removesuffix(_TEMPORARY).rpartition(".")[2].partition("-")[0]):
            path.unlink(missing_ok=True)


def has_ended(process: str) -> bool:
    """Whether a number, as it stands in a file name, is that of a process that is no more."""
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (ValueError, OverflowError, OSError):
        return False
    return False


def write_file(path: Path, data: bytes) -> None:
    """Writes a file that appears whole or not at all.

    Raises:
        OutputError: The place cannot be written, or the disk is full.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well.

    Raises:
        OutputError: The place cannot be written, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.{os.getpid()}-", suffix=_TEMPORARY, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise output_error(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        # mkstemp makes files private; the result gets the permissions any other file would get.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def output_error(path: Path, error: OSError) -> OutputError:
    """What to tell the user of a write that the operating system refused."""
    return OutputError(
        f"cannot write: {error.strerror or error}",
        where=str(path),
        fix="choose a place that exists, is yours to write and has room",
    )
