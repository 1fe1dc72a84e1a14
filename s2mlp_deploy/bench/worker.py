"""The process that loads one file and runs it when it is asked to; in between it does nothing.

A process of its own, so that a crash of an engine ends only this one, memory and processor time are the engine's alone,
and nothing that another engine loaded is in the way.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.artifact import check_sizes
from s2mlp_deploy.bench import messages
from s2mlp_deploy.bench.arrivals import serve_arrivals
from s2mlp_deploy.bench.engines import is_timed_on_gpu, open_engine
from s2mlp_deploy.bench.timing import Calls, Timed, warm_up
from s2mlp_deploy.data.noise import noise
from s2mlp_deploy.errors import S2MLPDeployError
from s2mlp_deploy.evidence.machine import environment_here


def main() -> None:
    """Answers commands on stdin until there are no more."""
    # Ctrl-C reaches every process of a terminal: the parent ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What libraries print must not stand among the answers.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    commands: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, commands), daemon=True).start()
    worker = Worker()
    while True:
        command = messages.command_of(commands.get())
        try:
            answer: messages.Answer = worker.do(command)
        except S2MLPDeployError as error:
            answer = messages.Refused(type(error).__name__, error.problem, error.where, error.fix)
        answers.write(messages.encode(answer))


def _read(stream: IO[bytes], commands: queue.SimpleQueue[bytes]) -> None:
    for line in stream:
        commands.put(line)
    # Nobody waits for an answer any more, also where the engine never returns.
    os._exit(0)


class Worker:
    """One engine and what is asked of it."""

    def __init__(self) -> None:
        self._engine: Any = None
        self._throughput = False
        self._timed: Timed | None = None
        self._feeds: dict[str, NDArray[Any]] = {}

    def do(self, command: messages.Command) -> messages.Answer:
        """Does what a command says.

        Raises:
            S2MLPDeployError: The engine, or the file, refuses it.
        """
        match command:
            case messages.Open():
                return self._open(command)
            case messages.Warm():
                return self._warm(command)
            case messages.Round():
                assert self._timed is not None
                timed = self._timed
                runs = [timed.once() for _ in range(command.runs)] if command.alone else [timed.many(command.runs)]
                return messages.Ran(tuple(runs))
            case messages.Serve():
                trial = serve_arrivals(
                    lambda: self._engine.run(self._feeds),
                    command.rate,
                    command.queries,
                    bound_ms=command.bound_ms,
                    seed=command.seed,
                )
                return messages.Served(trial)
            case messages.Save():
                np.savez(command.path, **self._engine.run(self._feeds))
                return messages.Written()
            case messages.EndProfile():
                return messages.Profiled(str(self._engine.end_profile()))
            case messages.Usage():
                return messages.Used(peak_memory())

    def _open(self, command: messages.Open) -> messages.Opened:
        base, start = peak_memory(), time.perf_counter()
        folder = Path(command.profile_to) if command.profile_to is not None else None
        engine, runtime = open_engine(
            Path(command.path),
            command.engine,
            settings=command.settings,
            throughput=command.throughput,
            profile_to=folder,
        )
        seconds = time.perf_counter() - start
        self._engine, self._throughput = engine, command.throughput
        return messages.Opened(
            runtime=runtime,
            seconds=seconds,
            base_bytes=base,
            versions=environment_here().versions,
            notes=getattr(engine, "notes", ()),
        )

    def _warm(self, command: messages.Warm) -> messages.Ran:
        check_sizes(self._engine.limits, command.shapes)
        generator = np.random.default_rng(command.seed)
        self._feeds = {
            info.name: noise(command.shapes[info.name], info.dtype, generator) for info in self._engine.inputs
        }
        if is_timed_on_gpu(self._engine):
            # It imports the GPU's part, which other engines do not need.
            from s2mlp_deploy.bench.gpu import Launches

            self._timed = Launches(self._engine, self._feeds)
        else:
            many = getattr(self._engine, "run_many", None) if self._throughput else None
            self._timed = Calls(
                lambda: self._engine.run(self._feeds), None if many is None else lambda count: many(self._feeds, count)
            )
        return messages.Ran(tuple(warm_up(self._timed, command.seconds)))


def peak_memory() -> int:
    """Bytes of resident memory that this process had at most; 0 where the system does not tell."""
    # Not getrusage first: a process that was made by fork starts there with its parent's peak.
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows has none.
        return 0
    # In kB, on macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
