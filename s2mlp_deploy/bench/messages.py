"""What a benchmark asks of the process that runs an engine, and what that answers: lines of JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from s2mlp_deploy.bench.timing import Run
from s2mlp_deploy.evidence.bench import RateTrial
from s2mlp_deploy.evidence.tune import EngineSettings


class Open(msgspec.Struct, tag=True, frozen=True):
    """Load a file.

    Attributes:
        path: The file.
        engine: What runs it: ``onnxruntime``, ``onnxruntime:cuda``, ``openvino``, ``tensorrt-rtx``.
        settings: How it is opened.
        profile_to: Folder for the times of every node; None where they are not wanted.
        throughput: Whether many runs at once count, not the time of one.
    """

    path: str
    engine: str
    settings: EngineSettings
    profile_to: str | None = None
    throughput: bool = False


class Opened(msgspec.Struct, tag=True, frozen=True):
    """A file is loaded.

    Attributes:
        runtime: What opened it, with its version.
        seconds: Wall time of loading, imports of the runtime included.
        base_bytes: Resident memory before.
        versions: Of what the process had loaded.
        notes: What the engine says of its speed on this file.
    """

    runtime: str
    seconds: float
    base_bytes: int
    versions: dict[str, str]
    notes: tuple[str, ...] = ()


class Warm(msgspec.Struct, tag=True, frozen=True):
    """Make inputs and run without counting.

    Attributes:
        shapes: By input.
        seed: Of the noise.
        seconds: How long at least.
    """

    shapes: dict[str, tuple[int, ...]]
    seed: int
    seconds: float


class Round(msgspec.Struct, tag=True, frozen=True):
    """Run and time.

    Attributes:
        runs: How often.
        alone: Whether each run is timed by itself, from and to the host; else all as one.
    """

    runs: int
    alone: bool


class Serve(msgspec.Struct, tag=True, frozen=True):
    """Answer queries that arrive at a rate.

    Attributes:
        rate: Queries a second.
        queries: How many.
        bound_ms: What is late.
        seed: Of the arrivals.
    """

    rate: float
    queries: int
    bound_ms: float
    seed: int


class Save(msgspec.Struct, tag=True, frozen=True):
    """Run once and save the outputs.

    Attributes:
        path: An ``.npz`` file.
    """

    path: str


class EndProfile(msgspec.Struct, tag=True, frozen=True):
    """Write the times of every node."""


class Profiled(msgspec.Struct, tag=True, frozen=True):
    """The times of every node are written.

    Attributes:
        path: The file.
    """

    path: str


class Written(msgspec.Struct, tag=True, frozen=True):
    """The outputs are saved."""


class Usage(msgspec.Struct, tag=True, frozen=True):
    """What has the process used?"""


class Ran(msgspec.Struct, tag=True, frozen=True):
    """Runs were timed; of a warm-up too."""

    runs: tuple[Run, ...]


class Served(msgspec.Struct, tag=True, frozen=True):
    """Queries were answered."""

    trial: RateTrial


class Used(msgspec.Struct, tag=True, frozen=True):
    """What the process has used.

    Attributes:
        peak_bytes: Its largest resident memory.
    """

    peak_bytes: int


class Refused(msgspec.Struct, tag=True, frozen=True):
    """An error of the package was raised: its class and what it says."""

    kind: str
    problem: str
    where: str | None
    fix: str | None


Command = Open | Warm | Round | Serve | Save | EndProfile | Usage
Answer = Opened | Ran | Served | Written | Profiled | Used | Refused

_COMMANDS = msgspec.json.Decoder(Command)
_ANSWERS = msgspec.json.Decoder(Answer)


def encode(message: Command | Answer) -> bytes:
    """A message as one line."""
    return msgspec.json.encode(message) + b"\n"


def command_of(line: bytes) -> Any:
    """The command in a line.

    Raises:
        msgspec.DecodeError: It is none.
    """
    return _COMMANDS.decode(line)


def answer_of(line: bytes) -> Any:
    """The answer in a line.

    Raises:
        msgspec.DecodeError: It is none.
    """
    return _ANSWERS.decode(line)
