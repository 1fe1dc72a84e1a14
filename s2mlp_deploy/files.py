"""Reading and writing files: hashes, JSON, locks, and writing that appears whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

import msgspec

from s2mlp_deploy.errors import OutputError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_TEMPORARY = ".tmp"
_MODE = 0o666
"""Of new files, less what the user's umask takes away."""

_POLL = 0.02
"""Seconds between two looks at a lock that somebody else holds."""


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
        if is_abandoned(path):
            with contextlib.suppress(OSError):
                path.unlink()


def is_abandoned(path: Path) -> bool:
    """Whether nobody holds the lock of a file. A lock ends with its holder, on whatever machine or container it ran."""
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        return _try_lock(handle)
    except OSError:  # A file system without locks cannot tell.
        return False
    finally:
        os.close(handle)


@contextlib.contextmanager
def holding(path: Path) -> Iterator[None]:
    """Makes a file and holds its lock: as long as it is held, :func:`is_abandoned` is False."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, _MODE)
    try:
        with contextlib.suppress(OSError):
            _try_lock(handle)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(path: Path, *, wait: float = 60.0) -> Iterator[None]:
    """Holds a lock that one process or thread has at a time, in the file ``path``, which goes when it is released.

    Not reentrant. Where the file system has no locks, nothing is held.

    Args:
        path: The lock's file; its directory exists.
        wait: Seconds to wait for another holder.

    Raises:
        OutputError: Another command held it all the time, or the file cannot be made.
    """
    deadline = time.monotonic() + wait
    while (handle := _acquired(path)) is None:
        if time.monotonic() > deadline:
            raise OutputError(
                f"another command has been writing here for {wait:.0f} seconds",
                where=str(path.parent),
                fix="wait for it to end, or choose another directory",
            )
        time.sleep(_POLL)
    try:
        yield
    finally:
        if os.name == "nt":  # An open file cannot be removed there.
            os.close(handle)
        with contextlib.suppress(OSError):
            path.unlink()
        if os.name != "nt":
            os.close(handle)


def _acquired(path: Path) -> int | None:
    """A handle of the locked file; None where somebody else has it."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, _MODE)
    except OSError as error:
        raise output_error(path.parent, error) from error
    try:
        mine = _try_lock(handle)
    except OSError:
        mine = True
    # The last holder may have removed the file after it was opened here: then the lock is of a file that is gone.
    with contextlib.suppress(OSError):
        if mine and os.path.samestat(os.fstat(handle), path.stat()):
            return handle
    os.close(handle)
    return None


def _try_lock(handle: int) -> bool:
    """Locks an open file unless somebody else has.

    Own code rather than filelock: that leaves its file behind, and an artifact holds nothing but what it says it holds.

    Raises:
        OSError: The file system has no locks.
    """
    try:
        if sys.platform == "win32":
            # Of one byte that no file reaches: locked bytes cannot be written there.
            os.lseek(handle, 2**31 - 2, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            return False
        raise
    return True


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
        temporary, handle = _temporary(path)
    except OSError as error:
        raise output_error(path, error) from error
    try:
        yield temporary
        if os.name == "nt":  # An open file cannot be renamed there.
            os.close(handle)
            handle = -1
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        if not is_write_error(error, path.parent):
            raise
        raise output_error(path, error) from error
    finally:
        if handle >= 0:
            os.close(handle)
        temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> tuple[Path, int]:
    """A new file beside ``path`` with the permissions that the user's umask gives, and a handle that holds its lock."""
    while True:
        # Not tempfile.mkstemp, which makes files private: widening that means changing the umask of the whole process.
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}{_TEMPORARY}")
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, _MODE)
        with contextlib.suppress(OSError):
            _try_lock(handle)
        # Somebody who cleans up may have taken it for abandoned before it was locked.
        if temporary.exists():
            return temporary, handle
        os.close(handle)


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def is_write_error(error: OSError, directory: Path) -> bool:
    """Whether an error tells of writing to a directory, and not of reading something else meanwhile."""
    if error.errno in _NO_ROOM:
        return True
    if error.filename is None or isinstance(error.filename, int):
        return False
    place = Path(os.fsdecode(error.filename)).resolve()
    return place.is_relative_to(directory.resolve())


def output_error(path: Path, error: OSError) -> OutputError:
    """What to tell the user of a write that the operating system refused."""
    return OutputError(
        f"cannot write: {error.strerror or error}",
        where=str(path),
        fix="choose a place that exists, is yours to write and has room",
    )
