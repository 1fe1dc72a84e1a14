"""What `tune` found on this machine, kept for the next export of a network of the same shape.

A small file among the user's caches. It holds no path and no weights, and losing it costs a tuning. Where it cannot be
written or read, nothing is remembered: that is told, and ends nothing.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s2mlp_deploy.engines.registry import kind_of
from s2mlp_deploy.errors import OutputError
from s2mlp_deploy.evidence.machine import Machine, this_machine
from s2mlp_deploy.files import from_json, read_file, to_json, user_cache, write_file
from s2mlp_deploy.locks import locked

LOG = logging.getLogger(__name__)

_VERSION = 1
_MOST = 500
"""Networks that are remembered: the oldest go first."""

_NOT_OF_SHAPE = frozenset({"layout", "checkpoint_layout", "classes"})
"""Of a zoo model's configuration, what a tuning chooses itself, and what hardly costs time."""


@dataclass(frozen=True)
class Found:
    """The fastest file of a number type.

    Attributes:
        number_type: ``fp32``, ``int8``.
        engine: On which it was the fastest.
        layout: Inner layout of the network.
        form: How its shifts are written.
        ratio: Its time over that of what ran before.
    """

    number_type: str
    engine: str
    layout: str
    form: str
    ratio: float


@dataclass(frozen=True)
class _Entry:
    machine: str
    model: str
    time: str
    found: tuple[Found, ...]


@dataclass(frozen=True)
class _Memory:
    schema_version: int = _VERSION
    entries: tuple[_Entry, ...] = field(default_factory=tuple)


def memory_file() -> Path:
    """Where it is kept.

    Raises:
        OutputError: There is no such place.
    """
    return user_cache() / "tuned.json"


def machine_key(machine: Machine) -> str:
    """The same for machines on which the same file is the fastest: processor, processors usable, GPUs."""
    told = (machine.processor, machine.usable_cores, [gpu.name for gpu in machine.gpus])
    return _digest(told)


def model_key(config: Mapping[str, Any], shifts: Sequence[Sequence[Any]]) -> str:
    """The same for networks of the same shape, whatever their weights.

    Args:
        config: Of a zoo model; empty for others.
        shifts: Arguments of every shift, in the graph's order, which tell other networks apart.
    """
    if config:
        return _digest({name: value for name, value in sorted(config.items()) if name not in _NOT_OF_SHAPE})
    return _digest(list(map(list, shifts)))


def remember(model: str, found: Iterable[Found], *, time: str, machine: Machine | None = None) -> None:
    """Keeps what was found, in place of what an earlier tuning of the same found.

    Args:
        model: What :func:`model_key` gives.
        found: The winners.
        time: When, in UTC.
        machine: Where; default this one.
    """
    here = machine_key(machine or this_machine())
    entry = _Entry(here, model, time, tuple(found))
    try:
        path = memory_file()
        with locked(path.with_name(".tuned.lock"), wait=10):
            others = [item for item in _read(path).entries if (item.machine, item.model) != (here, model)]
            kept = sorted([*others, entry], key=lambda item: item.time)[-_MOST:]
            write_file(path, to_json(_Memory(entries=tuple(kept))))
    except OutputError as error:
        LOG.warning("what was found is not remembered for later exports: %s (%s)", error.problem, error.where)


def recall(model: str, number_type: str, engines: Collection[str], *, machine: Machine | None = None) -> Found | None:
    """The fastest that was found on a machine like this one; None where nothing was, or not on these engines.

    Args:
        model: What :func:`model_key` gives.
        number_type: ``fp32``, ``int8``.
        engines: Those that can run here, by their own names; what was found on a part of a machine counts too.
        machine: Where; default this one.
    """
    try:
        path = memory_file()
    except OutputError:
        return None
    if not os.path.lexists(path):  # Not Path.exists, which raises where a folder above may not be looked into.
        return None
    here = machine_key(machine or this_machine())
    entry = next((item for item in _read(path).entries if (item.machine, item.model) == (here, model)), None)
    fitting = [
        item
        for item in (entry.found if entry is not None else ())
        if item.number_type == number_type and kind_of(item.engine) in engines
    ]
    return min(fitting, key=lambda item: item.ratio, default=None)


def _read(path: Path) -> _Memory:
    try:
        memory: _Memory = from_json(read_file(path, "evidence"), _Memory)
    except FileNotFoundError:
        return _Memory()
    except (OSError, ValueError) as error:
        LOG.warning("what was tuned before cannot be read and counts as nothing: %s (%s)", error, path)
        return _Memory()
    return memory if memory.schema_version == _VERSION else _Memory()


def _digest(value: Any) -> str:
    return hashlib.sha256(to_json(value)).hexdigest()[:32]
