"""What a reader of others' bytes is, and what must hold of it whatever the bytes are.

A reader either succeeds or raises one of the package's errors that end with status 2, with a way to mend it. Anything
else is a fault: another exception, seconds of work or hundreds of megabytes for a small file, a file written outside of
its folder or left there half-written, a program started. ``run_fuzz.py`` makes the bytes.
"""

from __future__ import annotations

import importlib
import os
import random
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s2mlp_deploy.errors import S2MLPDeployError

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
FAMILIES = ("artifact", "sidecars", "layers", "images", "archives", "arrays", "onnx", "weights", "options", "service")
"""Of readers: ``readers_<family>.py`` has them, in a tuple ``READERS``."""

SECONDS = 5.0
"""Of the processor, that a reader may take for a file of the size that is tried here."""

Mutator = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Reader:
    """A reader of others' bytes.

    Attributes:
        name: ``family/what``; its seeds lie in the folder of that name.
        read: Puts the bytes where the reader expects them, in an empty folder, and calls it.
        mutate: Changes a file of the format so that it stays one; None where single bytes are changed alone.
        largest: Bytes of the largest file that is tried.
        memory: Bytes that reading may take.
        leaves: Names that may lie in the folder afterwards; None for any, of readers that write there too.
    """

    name: str
    read: Callable[[bytes, Path], object]
    mutate: Mutator | None = None
    largest: int = 16_384
    memory: int = 512 * 2**20
    leaves: frozenset[str] | None = None

    @property
    def seeds(self) -> list[Path]:
        """Files to begin with."""
        folder = CORPUS / self.name
        return sorted(folder.iterdir()) if folder.is_dir() else []


class FaultError(Exception):
    """What must hold of a reader does not.

    Attributes:
        mark: The same for the same fault in other files.
    """

    def __init__(self, mark: str, told: str) -> None:
        super().__init__(told)
        self.mark = mark


def family(name: str) -> tuple[Reader, ...]:
    """The readers of a family."""
    found: tuple[Reader, ...] = importlib.import_module(f"readers_{name}").READERS
    return found


def reader(name: str) -> Reader:
    """The reader of a name."""
    return next(item for item in family(name.partition("/")[0]) if item.name == name)


def check(item: Reader, data: bytes, folder: Path) -> S2MLPDeployError | None:
    """Gives bytes to a reader, and tells what it made of them.

    Args:
        item: The reader.
        data: The bytes.
        folder: An empty folder of its own; it is empty again afterwards.

    Returns:
        The reader's error; None where it succeeded.

    Raises:
        FaultError: What must hold of it does not.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    refused = None
    try:
        with _watched(folder):
            item.read(data, folder)
    except S2MLPDeployError as error:
        refused = error
    except FaultError:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise FaultError(_mark(error), "".join(traceback.format_exception(error)[-12:])) from error
    finally:
        left = sorted(path.name for path in folder.iterdir())
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    seconds = time.process_time() - start
    if seconds > SECONDS:
        raise FaultError("slow", f"it took {seconds:.1f} s of the processor")
    # Only growth beyond what was taken before can be seen: of a fault the first file shows.
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024
    if grown > item.memory:
        raise FaultError("memory", f"it took {grown >> 20} MiB")
    if item.leaves is not None and (strange := set(left) - item.leaves):
        raise FaultError("left", f"it left {sorted(strange)}")
    if refused is not None:
        _check_words(refused)
    return refused


def _check_words(error: S2MLPDeployError) -> None:
    if error.exit_code != 2:
        raise FaultError(f"status {error.exit_code}", f"it ends with status {error.exit_code}: {error}")
    if not error.problem.strip() or not (error.fix or "").strip():
        raise FaultError("words", f"it says no problem, or no way to mend it: {error!r}")
    if len(str(error)) > 20_000:
        raise FaultError("long " + _mark(error), f"its message has {len(str(error)):,} characters: {str(error)[:200]}")


def _mark(error: BaseException) -> str:
    """Type and place: the last line of the package, or of these tests, that was run."""
    place = "?"
    for frame in traceback.extract_tb(error.__traceback__):
        if "s2mlp_deploy/" in frame.filename:
            place = f"{frame.filename.rpartition('s2mlp_deploy/')[2]}:{frame.lineno}"
    return f"{type(error).__name__} {place}"


_folder: list[str] = []
_outside: list[str] = []
_hooked = False
_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "socket.connect")
_CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree")
_LINKS = ("os.link", "os.symlink")


@contextmanager
def _watched(folder: Path) -> Iterator[None]:
    """Tells what is written outside of a folder, and programs that are started, as far as Python itself does it."""
    global _hooked
    if not _hooked:
        sys.addaudithook(_audit)
        _hooked = True
    _outside.clear()
    _folder.append(os.path.realpath(folder))
    # What is imported late is compiled, and that is written beside it.
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        _folder.pop()
        sys.dont_write_bytecode = before
    if _outside:
        raise FaultError(f"outside {_outside[0].partition(' ')[0]}", "; ".join(_outside))


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _folder:
        return
    if event == "open":
        path, _, flags = arguments
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        if not writes or not isinstance(path, str | bytes | os.PathLike) or os.fsdecode(path) == os.devnull:
            return
    elif event not in _CHANGES:
        if event in _STARTS:
            _outside.append(f"{event} {str(arguments)[:200]}")
        return
    # Of a link its own place counts, not what it names; what is renamed lies in two.
    both = arguments[:2] if event == "os.rename" else arguments[1:2] if event in _LINKS else arguments[:1]
    paths = [os.path.realpath(os.fsdecode(place)) for place in both]
    _outside.extend(f"{event} {path[:200]}" for path in paths if not f"{path}{os.sep}".startswith(_folder[-1] + os.sep))
