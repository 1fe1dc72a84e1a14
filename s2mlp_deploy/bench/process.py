"""A worker process as the benchmark sees it: it answers, refuses, dies or says nothing for too long."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from types import TracebackType
from typing import IO, Any, Self, TypeVar

import msgspec

from s2mlp_deploy import errors
from s2mlp_deploy.bench import messages
from s2mlp_deploy.errors import BuildError, InputError, MissingDependencyError, S2MLPDeployError
from s2mlp_deploy.files import import_path

PROGRAM = "from s2mlp_deploy.bench.worker import main; main()"
"""What the process runs."""

_TAIL = 4096
"""Bytes of the end of stderr that are looked at for a reason."""

A = TypeVar("A")


class WorkerFailedError(Exception):
    """The engine crashed, hung, or was refused by its runtime: a candidate that failed, and no reason to end a run."""


class WorkerProcess:
    """One engine in a process of its own.

    Not ``multiprocessing``, whose children import the user's script again.

    Args:
        limit: Seconds that it may take for one answer.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process.
        # The same package as this one's, wherever that was found; -P: nothing from the current folder.
        program = f"import sys; sys.path[:] = {import_path()!r}; {PROGRAM}"
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, command: messages.Command, kind: type[A], *, longer: float = 0.0) -> A:
        """Sends a command and waits for the answer.

        Args:
            command: What to do.
            kind: The answer's type.
            longer: Seconds beyond the limit that the command itself takes.

        Raises:
            WorkerFailedError: It crashed, answered too late, or its runtime cannot run the graph.
            S2MLPDeployError: What it refused: the user's input is wrong.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(messages.encode(command))
            self._process.stdin.flush()
            line = self._answers.get(timeout=self._limit + longer)
        except queue.Empty:
            self.close()
            raise WorkerFailedError(f"it did not answer within {self._limit + longer:.3g} s and was ended") from None
        except OSError:  # It is gone.
            line = b""
        if not line:
            raise WorkerFailedError(self._last_words())
        try:
            answer: Any = messages.answer_of(line)
        except msgspec.DecodeError:
            self.close()
            raise WorkerFailedError("it did not answer in its own words") from None
        if isinstance(answer, messages.Refused):
            if answer.kind == BuildError.__name__:
                raise WorkerFailedError(answer.problem)
            raise _error_of(answer)
        assert isinstance(answer, kind)
        return answer

    def close(self) -> None:
        """Ends it; a second call does nothing."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # What was not yet written to somebody who is gone.
                    stream.close()
        self._errors.close()

    def _read(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._answers.put(line)
        self._answers.put(b"")

    def _last_words(self) -> str:
        """How it ended, and the last line that it wrote."""
        with contextlib.suppress(subprocess.TimeoutExpired):  # It closed its answers and lives: it is ended below.
            self._process.wait(self._limit)
        code = self._process.returncode or 0
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - _TAIL))
        lines = [line for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        self.close()
        try:
            how = f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"it ended with status {code}"
        except ValueError:
            how = f"it was ended by signal {-code}"
        return f"{how}: {lines[-1].strip()[:300]}" if lines else how


def _error_of(answer: messages.Refused) -> S2MLPDeployError:
    """The error that a worker raised, of its class where that is made of words alone."""
    kind = getattr(errors, answer.kind, InputError)
    return (InputError if kind is MissingDependencyError else kind)(answer.problem, where=answer.where, fix=answer.fix)
