"""Reading and writing files: hashes, JSON, and writing that appears whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Any, Literal, TypeVar

import msgspec

from s2mlp_deploy.errors import OutputError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_TEMPORARY = ".tmp"
_TEMPORARY_NAME = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")
"""What :func:`_temporary` makes; other hidden files are somebody else's."""

_SCRATCH, _SCRATCH_LOCK = "s2mlp-deploy-", ".lock"

_LONGEST_NAME = 255
"""Bytes of a file's name. Asking whether there is one with a longer name is an error of its own."""

MODE = 0o666
"""Of new files, less what the user's umask takes away."""


_TRIES, _PAUSE = 10, 0.02
"""How often a directory may be gone in a row, and seconds between two tries. Some are never there."""

T = TypeVar("T")

FileKind = Literal["manifest", "evidence", "sidecar", "description", "profile", "kernels", "list"]

_MEGABYTE = 2**20
LIMITS: dict[FileKind, int] = {
    "manifest": 16 * _MEGABYTE,
    "evidence": 16 * _MEGABYTE,
    "sidecar": 16 * _MEGABYTE,
    "description": _MEGABYTE,
    "profile": 64 * _MEGABYTE,
    "kernels": 1024 * _MEGABYTE,
    "list": 1024 * _MEGABYTE,
}
"""Bytes of the largest file of a kind that is read: tens of times what this package writes for the largest networks.

Text takes ten to twenty times its size once it is decoded.
"""


def is_file(path: str | Path) -> bool:
    """Whether there is a file: none where the name is too long, or below a folder that may not be looked into."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises there.


def is_folder(path: str | Path) -> bool:
    """Whether there is a folder, likewise."""
    return os.path.isdir(path)  # noqa: PTH112


def is_regular(path: Path) -> bool:
    """Whether a path is a regular file itself: no link, folder, pipe or device."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def inside(directory: Path, name: str) -> Path | None:
    """The file of that name in a directory or below it; None where it leads out, by ``..`` or by a link.

    The one place that decides whether a path that a file names may be followed.
    """
    path = directory / name
    try:
        place = path.resolve()
        # From Python 3.13 on endless links are no error: what they resolve to is a link still.
        return path if place.is_relative_to(directory.resolve()) and not place.is_symlink() else None
    except (OSError, RuntimeError, ValueError):  # Endless links, a name with a zero byte.
        return None


def is_plain_name(name: str) -> bool:
    """Whether a name can be of something in a directory: it has no folder in it, and is not the directory itself."""
    try:
        length = len(os.fsencode(name))
    except UnicodeEncodeError:
        return False
    return PurePath(name).name == name and name not in ("", ".", "..") and "\0" not in name and length <= _LONGEST_NAME


def read_file(path: Path, kind: FileKind) -> bytes:
    """The bytes of a regular file, or of a link to one. A pipe would keep the reader waiting, a device never ends.

    Args:
        path: The file.
        kind: What it is: :data:`LIMITS` says how large such a file may be.

    Raises:
        OSError: It cannot be read, is no regular file, or is larger; ``strerror`` says it in words.
    """
    # Without O_NONBLOCK, opening a pipe waits for its writer.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as stream:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        if status.st_size > LIMITS[kind]:
            raise OSError(
                errno.EFBIG,
                f"it has {status.st_size / _MEGABYTE:.0f} MiB, and a {kind} of more than "
                f"{LIMITS[kind] // _MEGABYTE} MiB is not read",
                str(path),
            )
        # What grows meanwhile is cut, and then damaged.
        return stream.read(LIMITS[kind])


def from_json(document: bytes | str, kind: type[Any] | Any = Any) -> Any:
    """What a JSON document holds.

    Args:
        document: The text, UTF-8.
        kind: The type that it must have.

    Raises:
        ValueError: It is no JSON, is nested too deeply, or has another type.
    """
    try:
        return msgspec.json.decode(document, type=kind)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def import_path() -> list[str]:
    """The folders in which a process of this package's own finds what this one does, this very package among them."""
    root = str(Path(__file__).resolve().parents[1])
    paths = [path for path in sys.path if path]
    return paths if root in paths else [root, *paths]


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


def user_cache() -> Path:
    """The folder of this package among the user's caches: in ``$XDG_CACHE_HOME``, by default ``~/.cache``.

    Raises:
        OutputError: The user has no home, as in containers that run as a user whom nothing there knows.
    """
    place = os.environ.get("XDG_CACHE_HOME", "")
    # By the specification a relative path counts as none.
    if place and Path(place).is_absolute():
        return Path(place) / "s2mlp-deploy"
    try:
        return Path("~/.cache").expanduser() / "s2mlp-deploy"
    except RuntimeError:
        raise OutputError("this user has no home for caches", where="~/.cache", fix="set XDG_CACHE_HOME") from None


def remove_abandoned(directory: Path) -> None:
    """Removes what :func:`replacing` left in a directory when its process was killed."""
    for path in directory.glob(f".*{_TEMPORARY}"):
        if _TEMPORARY_NAME.fullmatch(path.name) and _is_abandoned(path):
            with contextlib.suppress(OSError):
                path.unlink()


def _is_abandoned(path: Path) -> bool:
    """Whether nobody holds the lock of a file. A lock ends with its holder, on whatever machine or container it ran."""
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        return try_lock(handle)
    except OSError:  # A file system without locks cannot tell.
        return False
    finally:
        os.close(handle)


@contextlib.contextmanager
def scratch_directory() -> Iterator[Path]:
    """A directory of this process's own, outside of anything of the user's, for files of moments.

    It goes when the block ends; what killed processes of the same user left of theirs goes when the next one begins.

    Raises:
        OutputError: There is no place for temporary files.
    """
    place = Path(tempfile.gettempdir())
    for left in place.glob(f"{_SCRATCH}*"):
        lock = left / _SCRATCH_LOCK
        with contextlib.suppress(OSError):  # It may go meanwhile.
            # One that is empty is of a process that has not come to locking it yet.
            if is_regular(lock) and lock.stat().st_size and _is_abandoned(lock):
                shutil.rmtree(left, ignore_errors=True)
    try:
        directory = Path(tempfile.mkdtemp(prefix=_SCRATCH))
        handle = os.open(directory / _SCRATCH_LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise output_error(place, error) from error
    try:
        with contextlib.suppress(OSError):  # A file system without locks: what is left there stays.
            try_lock(handle)
            os.write(handle, b"\n")
        yield directory
    finally:
        os.close(handle)
        shutil.rmtree(directory, ignore_errors=True)


def try_lock(handle: int) -> bool:
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


def check_parents(path: Path) -> None:
    """Refuses, before any work is done, a place that nothing can be written to.

    Directories above it that are missing are made by whoever writes, with every option that names an output.

    Args:
        path: Of the file or directory that is to be written.

    Raises:
        OutputError: What there is of the directories above it is none, or not this user's to write; or it has no name
            of its own, as ``.`` and ``..``.
    """
    if path.name in ("", ".."):
        raise OutputError("the output is a directory that is there", where=str(path), fix="name something new in it")
    try:
        above = path.absolute().parent
        while not os.path.lexists(above) and above != above.parent:  # Not every drive of Windows is there.
            above = above.parent
        writable = above.is_dir() and os.access(above, os.W_OK | os.X_OK)
    except OSError as error:  # A name that is too long, for example.
        raise output_error(path, error) from error
    if not writable:
        problem = "it is not yours to write" if above.is_dir() else "it is no directory"
        raise OutputError(
            f"{path.name} cannot be written below {above}: {problem}",
            where=str(path),
            fix="choose a place that is yours to write; directories that are missing are made",
        )


@contextlib.contextmanager
def no_empty_parents(path: Path) -> Iterator[None]:
    """Removes the directories above a path that are made within the block, and are empty when it ends."""
    made = [
        directory
        for directory in path.parents
        # Not Path.exists, which raises where a directory above may not be looked into. What a path leaves by ".." again
        # is empty and needed: nothing is found by "new/../file" where "new" is gone.
        if not os.path.lexists(directory) and ".." not in path.parts[len(directory.parts) :]
    ]
    try:
        yield
    finally:
        for directory in made:
            with contextlib.suppress(OSError):
                directory.rmdir()


def make_below(directory: Path, make: Callable[[], T]) -> T:
    """What makes something in a directory, which is made for it.

    Others remove what they made and left empty (:func:`no_empty_parents`), also between the two: then it is made again.

    Raises:
        OSError: The directory cannot be made, or what is to be in it.
    """
    for left in reversed(range(_TRIES)):
        try:
            directory.mkdir(parents=True, exist_ok=True)
            return make()
        except (FileNotFoundError, FileExistsError):
            # mkdir takes a directory that goes while it runs for something that is none; /proc lets nobody make one.
            if not left or (os.path.lexists(directory) and not directory.is_dir()):
                raise
            time.sleep(_PAUSE)
    raise AssertionError("the last try returns or raises")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well. Its directory is made for it.

    Raises:
        OutputError: The place cannot be written, or the disk is full.
    """
    with no_empty_parents(path):
        try:
            temporary, handle = make_below(path.parent, lambda: _temporary(path))
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
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, MODE)
        with contextlib.suppress(OSError):
            try_lock(handle)
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
    # Of a link that leads nowhere the system says that it is there, or that nothing is.
    with contextlib.suppress(OSError):
        for link in (path, *path.parents) if error.errno in (errno.EEXIST, errno.ENOENT) else ():
            if link.is_symlink() and not link.exists():
                return OutputError(
                    "cannot write: a link that leads nowhere is in the way",
                    where=str(link),
                    fix=f"make the directory {link.parent / link.readlink()}, remove the link, or choose another place",
                )
    return OutputError(
        f"cannot write: {error.strerror or error}",
        where=str(path),
        fix="choose a place that exists, is yours to write and has room",
    )
