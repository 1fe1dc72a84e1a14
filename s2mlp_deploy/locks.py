"""Locks that one process or thread has at a time, whatever machine or container it runs on."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import platform
import shlex
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from s2mlp_deploy.errors import OutputError
from s2mlp_deploy.files import MODE, make_below, no_empty_parents, output_error, to_json, try_lock

LOG = logging.getLogger(__name__)

_POLL = 0.02
"""Seconds between two looks at a lock that somebody else holds."""

_PATIENCE = 3.0
"""Seconds of waiting for a lock after which the user is told for whom."""

_HOLDER_BYTES = 4096
"""What is read of a lock's file at most: it may be anybody's."""


@contextlib.contextmanager
def locked(path: Path, *, wait: float = 60.0) -> Iterator[bool]:
    """Holds a lock that one process or thread has at a time, in the file ``path``, which goes when it is released.

    The lock is the kernel's, so it ends with its holder and holds between containers that share the directory, where
    the number of a process says nothing. The file says who holds it, for whoever waits: after some seconds that is a
    warning. Not reentrant.

    Args:
        path: The lock's file. Its directory is made where there is none, and goes again if it is empty in the end.
        wait: Seconds to wait for another holder.

    Yields:
        Whether the lock is held: False where the file system has none.

    Raises:
        OutputError: Another command held it all the time, or the file cannot be made.
    """
    with no_empty_parents(path):
        handle, held = _wait_for(path, wait)
        try:
            yield held
        finally:
            if os.name == "nt":  # An open file cannot be removed there.
                os.close(handle)
            with contextlib.suppress(OSError):
                path.unlink()
            if os.name != "nt":
                os.close(handle)


def _wait_for(path: Path, wait: float) -> tuple[int, bool]:
    """A handle of the locked file, and whether there are locks here."""
    start, told = time.monotonic(), False
    while (acquired := _acquired(path)) is None:
        waited = time.monotonic() - start
        if waited > wait:
            raise OutputError(
                f"{_holder_of(path)} has been writing here for more than {wait:.0f} seconds",
                where=str(path.parent),
                fix="wait for it to end, or end it, and run this again; or choose another directory",
            )
        if waited > _PATIENCE and not told:
            told = True
            LOG.warning("waiting: %s is writing to %s", _holder_of(path), path.parent)
        time.sleep(_POLL)
    return acquired


def _acquired(path: Path) -> tuple[int, bool] | None:
    """As :func:`_wait_for`; None where somebody else has it."""
    handle = _opened(path)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OutputError("something that is no file stands where a lock goes", where=str(path), fix="remove it")
    try:
        mine, held = try_lock(handle), True
    except OSError:
        mine, held = True, False
    # The last holder may have removed the file after it was opened here: then the lock is of a file that is gone.
    with contextlib.suppress(OSError):
        if mine and os.path.samestat(os.fstat(handle), path.stat()):
            with contextlib.suppress(OSError):  # A full disk: then nobody learns who holds it.
                os.ftruncate(handle, 0)
                os.write(handle, _description())
            return handle, held
    os.close(handle)
    return None


def _opened(path: Path) -> int:
    """A handle of the lock's file, which is made with its directory where it is not there."""
    # A link would be followed to a file that is nobody's lock.
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    try:
        return make_below(path.parent, lambda: os.open(path, flags, MODE))
    except OSError as error:
        raise output_error(path.parent, error) from error


def _description() -> bytes:
    """Who holds a lock: this process."""
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv else ["python"])
    since = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    holder = {"host": platform.node(), "pid": os.getpid(), "command": command[:1000], "since": since}
    return to_json(holder)


def _holder_of(path: Path) -> str:
    """Who holds a lock, in words, from what its file says."""
    try:
        with path.open("rb") as stream:
            holder = msgspec.json.decode(stream.read(_HOLDER_BYTES), type=dict[str, str | int])
        return "another command, `{command}` (process {pid} on {host}, since {since}),".format_map(holder)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, KeyError):
        return f"somebody, who left no name in {path.name},"
