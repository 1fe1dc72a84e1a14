"""What a tuning has done so far, on disk: a killed one goes on where it was."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s2mlp_deploy.api.tune_gates import Verdict
from s2mlp_deploy.api.variants import Variant
from s2mlp_deploy.errors import OutputError
from s2mlp_deploy.evidence.tune import EngineSettings, Trial
from s2mlp_deploy.files import (
    from_json,
    read_file,
    scratch_directory,
    sha256_of,
    to_json,
    user_cache,
    write_file,
)
from s2mlp_deploy.locks import locked
from s2mlp_deploy.text import first_line_of

LOG = logging.getLogger(__name__)

_STATE, _VERSION = "state.json", 3
_WAIT = 600.0
"""Seconds to wait for another tuning of the same."""
_OLD = 30 * 24 * 3600.0
"""Seconds after which what nobody went on with is removed."""


@dataclass(frozen=True)
class Entrant:
    """A file on an engine, opened in one way."""

    variant: Variant
    engine: str
    settings: EngineSettings

    @property
    def trial(self) -> Trial:
        """What is kept of it before it is measured."""
        of = self.variant
        return Trial(
            of.file,
            of.sha256,
            of.precision,
            of.layout,
            of.form,
            self.engine,
            self.settings,
            "untried",
            passes=of.passes,
        )

    @property
    def name(self) -> str:
        """What it is, in words."""
        return self.trial.name


@dataclass
class TuneState:
    """What is known so far.

    Attributes:
        key: Of the files, the machine and the options that it is of.
        seconds: That it took.
        trials: Everything that was measured, by :attr:`Trial.name <s2mlp_deploy.evidence.tune.Trial.name>`.
        entrants: Those that were measured, by the trial's name.
        leaders: By number type, the name of the trial that is the fastest so far.
        variants: Files that were made, by what they are.
        verdicts: What those computed that may win, by the trial's name.
        noise: What the artifact's own quantized files are compared by, by precision.
        shapes: Of the inputs.
        notes: What was left out.
    """

    key: str
    seconds: float = 0.0
    trials: dict[str, Trial] = field(default_factory=dict)
    entrants: dict[str, Entrant] = field(default_factory=dict)
    leaders: dict[str, str] = field(default_factory=dict)
    variants: dict[str, Variant] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    noise: dict[str, float] = field(default_factory=dict)
    shapes: tuple[tuple[int, ...], ...] = ()
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Document:
    schema_version: int
    state: TuneState


class Workplace:
    """A folder with the files and the state of one tuning.

    Attributes:
        folder: Where files go.
        state: What was done.
        resumed: Whether an earlier go had begun.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.state: TuneState = _read(folder, key)
        self.resumed: bool = bool(self.state.trials)
        self._since = time.monotonic() - self.state.seconds

    @property
    def seconds(self) -> float:
        """That it took so far, of all goes together."""
        return time.monotonic() - self._since

    def save(self) -> None:
        """Keeps the state."""
        self.state.seconds = self.seconds
        write_file(self.folder / _STATE, to_json(_Document(_VERSION, self.state)))

    def keep(self, *variants: Variant) -> None:
        """Keeps files that were made, and the state."""
        self.state.variants |= {variant.name: variant for variant in variants}
        self.save()

    def note(self, text: str) -> None:
        """Keeps in words what was left out, once."""
        if text not in self.state.notes:
            self.state.notes.append(text)

    def clear(self) -> None:
        """Removes everything: it is done."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name == _STATE:
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def workplace(asked: Any) -> Iterator[Workplace]:
    """The folder of a tuning, which others wait for.

    Args:
        asked: Everything that decides what a tuning finds, as JSON holds it: the same gives the same folder.

    Raises:
        OutputError: Another tuning of the same had it for ten minutes.
    """
    key = hashlib.sha256(to_json(asked)).hexdigest()[:24]
    with contextlib.ExitStack() as stack:
        try:
            place = user_cache() / "tune"
            folder = place / key
            folder.mkdir(parents=True, exist_ok=True)
            for path in (place, folder):
                if not os.access(path, os.W_OK | os.X_OK):
                    raise PermissionError(errno.EACCES, "it is not yours to write", str(path))
        except (OutputError, OSError) as error:
            told = first_line_of(error)
            LOG.warning("the cache cannot be written: a tuning that is interrupted begins anew (%s)", told)
            folder = stack.enter_context(scratch_directory())
        else:
            # Two that measure at once disturb each other, so that whoever waits in vain does not go on.
            stack.enter_context(locked(place / f".{key}.lock", wait=_WAIT))
            folder.mkdir(parents=True, exist_ok=True)  # Whoever had the lock removed it.
            _remove_old(place, folder)
        try:
            yield Workplace(folder, key)
        finally:
            # What stays is only what an interrupted one goes on with.
            with contextlib.suppress(OSError):
                folder.rmdir()


def _read(folder: Path, key: str) -> TuneState:
    try:
        document: _Document = from_json(read_file(folder / _STATE, "evidence"), _Document)
    except FileNotFoundError:
        return TuneState(key)
    except (OSError, ValueError) as error:
        LOG.warning("what was tuned so far cannot be read and is done again: %s", error)
        return TuneState(key)
    state = document.state
    if document.schema_version != _VERSION or state.key != key:
        return TuneState(key)
    try:
        whole = all(item.path.is_file() and sha256_of(item.path) == item.sha256 for item in state.variants.values())
    except OSError:  # A name that no file can have, or a file that is not this user's to read.
        whole = False
    return state if whole else TuneState(key)


def _remove_old(place: Path, folder: Path) -> None:
    for other in place.iterdir():
        with contextlib.suppress(OSError):
            if other != folder and other.is_dir() and time.time() - other.stat().st_mtime > _OLD:
                shutil.rmtree(other, ignore_errors=True)
