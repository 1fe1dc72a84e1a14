"""The models that are served: names, versions, what is loaded, and new files on disk taken without a pause."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from s2mlp_deploy.artifact import MANIFEST, Manifest, read_manifest
from s2mlp_deploy.errors import ArtifactError, InputError, S2MLPDeployError
from s2mlp_deploy.serving.service.batcher import Batcher, Runners
from s2mlp_deploy.serving.service.failures import RequestError, in_one_line
from s2mlp_deploy.serving.service.messages import Opened, Setup, digest_of
from s2mlp_deploy.serving.service.options import EngineOptions, ServiceLimits
from s2mlp_deploy.serving.service.watching import Stamp, choice_of, stamp_of
from s2mlp_deploy.text import harmless

LOG = logging.getLogger(__name__)


class Workers(Runners, Protocol):
    """What runs a model; :class:`~s2mlp_deploy.serving.service.pool.Pool`."""

    reason: str
    refused: bool
    """Whether what runs it ended and cannot be started again."""

    async def start(self) -> Opened:
        """Until it is warm."""
        ...

    @property
    def alive(self) -> int:
        """How many processes can be asked."""
        ...

    async def close(self) -> None:
        """Ends them."""
        ...


Starter = Callable[[Setup, int], Workers]


@dataclass(frozen=True)
class Place:
    """Where a version of a model lies.

    Attributes:
        directory: The artifact.
        version: Its number, where its folder's name says it; None: by the order in which they were named.
    """

    directory: Path
    version: str | None = None


@dataclass(eq=False)
class Served:
    """A version that answers."""

    manifest: Manifest
    version: str
    opened: Opened
    workers: Workers
    batcher: Batcher

    @property
    def name(self) -> str:
        """The served name."""
        return self.manifest.name

    @property
    def ready(self) -> bool:
        """Whether a process can be asked."""
        return self.workers.alive > 0

    async def retire(self) -> None:
        """Answers what it has, then ends."""
        await self.batcher.drain()
        await self.close()

    async def close(self) -> None:
        """Ends now."""
        await self.batcher.close()
        await self.workers.close()


@dataclass
class Slot:
    """An artifact that was found: what answers for it, and what its newest files are.

    Attributes:
        place: Where it is.
        name: The served name; that of the folder while its manifest cannot be read.
        version: Its number.
        served: What answers; None before the first success.
        stamp: Of the files that were tried last.
        choice: What was to be opened of those that answer.
        problem: Why they could not be loaded; empty where they could, or are being loaded.
        loading: Whether they are being loaded.
    """

    place: Place
    name: str
    version: str
    served: Served | None = None
    stamp: Stamp = ()
    choice: Hashable = None
    problem: str = ""
    loading: bool = field(default=False)

    @property
    def state(self) -> Literal["ready", "loading", "failed", "restarting"]:
        """In a word."""
        if self.served is not None:
            return "ready" if self.served.ready else "restarting"
        return "failed" if self.problem else "loading"

    @property
    def reason(self) -> str:
        """What is wrong, also where an older one answers in its place."""
        return self.problem or (self.served.workers.reason if self.served is not None else "")


def find_places(paths: Sequence[Path]) -> list[Place]:
    """The artifacts in what was named: artifacts, and folders with an artifact for each version: ``resnet/1``.

    Raises:
        ArtifactError: One of them is neither, or cannot be read.
    """
    places: list[Place] = []
    for path in paths:
        try:
            found = [Place(path)] if (path / MANIFEST).is_file() else list(_versions_below(path))
        except OSError as error:
            raise ArtifactError(
                f"it cannot be read: {error.strerror or error}",
                where=str(path),
                fix="check its permissions, and the disk that it lies on",
            ) from error
        if not found:
            if path.is_file():
                read_manifest(path)  # It says whose file this is.
            raise ArtifactError(
                "there is no artifact here",
                where=str(path),
                fix="name a directory with a manifest.json, or one whose folders 1, 2, ... are such",
            )
        places += found
    return places


def _versions_below(path: Path) -> Iterator[Place]:
    try:
        names = sorted((item.name for item in path.iterdir() if _is_version(item.name)), key=int)
    except (FileNotFoundError, NotADirectoryError):
        return
    yield from (Place(path / name, name) for name in names if _may_hold_one(path / name))


def _may_hold_one(directory: Path) -> bool:
    """Whether a version is there; one that cannot be read is, and loading it tells why it fails."""
    try:
        return (directory / MANIFEST).is_file()
    except OSError:
        return True


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdigit() and not name.startswith("0") and len(name) < 19


class Repository:
    """All models.

    Args:
        paths: What was named: artifacts, or folders of versions.
        options: How they are opened.
        limits: Bounds of batches and queues.
        starter: Makes the workers of a model.

    Raises:
        ArtifactError: There is no artifact in one of the paths.
    """

    def __init__(self, paths: Sequence[Path], options: EngineOptions, limits: ServiceLimits, starter: Starter) -> None:
        self._paths, self._options, self._limits, self._starter = list(paths), options, limits, starter
        self._slots: dict[Path, Slot] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._busy = asyncio.Lock()
        self.failures = 0
        self._look(find_places(self._paths))

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Every artifact, in the order in which they were named."""
        return tuple(self._slots.values())

    @property
    def ready(self) -> bool:
        """Whether each of them answers."""
        return bool(self._slots) and all(slot.state == "ready" for slot in self.slots)

    def versions(self, name: str) -> list[str]:
        """Of a model, ascending."""
        return sorted((slot.version for slot in self.slots if slot.name == name), key=int)

    def slot(self, name: str, version: str | None) -> Slot:
        """A version of a model; by default the highest that answers.

        Raises:
            RequestError: There is none.
        """
        # Names are looked up among those that are served, and never become a path.
        found = [slot for slot in self.slots if slot.name == name and version in (None, "", slot.version)]
        if not found:
            known = self.versions(name)
            what = f"version {version!r:.100} of the model {name!r}" if known else f"model {name!r:.100}"
            names = sorted({slot.name for slot in self.slots})
            raise RequestError(
                "unknown",
                f"there is no {harmless(what)}",
                fix=f"ask for {'version ' + ', '.join(known) if known else ', '.join(names)}",
            )
        return max(found, key=lambda slot: (slot.served is not None, int(slot.version)))

    def served(self, name: str, version: str | None) -> Served:
        """What answers for a version of a model.

        Raises:
            RequestError: There is no such model, or it is not ready.
        """
        slot = self.slot(name, version)
        if slot.served is None or (slot.served.workers.refused and not slot.served.ready):
            raise RequestError(
                "unavailable",
                f"the model {slot.name} version {slot.version} is not ready: {slot.reason or 'it is being loaded'}",
                fix="try again later",
                retry_after=5,
            )
        return slot.served

    def _look(self, places: Sequence[Place]) -> None:
        """Makes a slot for each artifact that is new, and drops those that are gone."""
        for gone in set(self._slots) - {place.directory for place in places}:
            slot = self._slots.pop(gone)
            LOG.info("%s version %s is gone from the disk and no longer served", slot.name, slot.version)
            self._retire(slot.served)
        for place in places:
            if place.directory not in self._slots:
                name = _name_of(place.directory)
                taken = {slot.version for slot in self.slots if slot.name == name}
                version = place.version or next(str(n) for n in range(1, len(taken) + 2) if str(n) not in taken)
                if version in taken:
                    raise InputError(
                        f"the model {name} has version {version} twice",
                        where=str(place.directory),
                        fix="give each version a folder with a number of its own",
                    )
                self._slots[place.directory] = Slot(place, name, version)

    async def refresh(self) -> None:
        """Looks at the disk, and loads what is new there; what answered before does so until then, or on failure."""
        async with self._busy:
            try:
                # A path that was there and is not for a moment, while somebody replaces it, is no reason to drop it.
                self._look(await asyncio.to_thread(find_places, self._paths))
            except InputError as error:
                LOG.warning("%s", error)
            for slot in self.slots:
                stamp = await asyncio.to_thread(stamp_of, slot.place.directory)
                # Evidence alone may have changed which file is taken.
                refused = slot.served is not None and slot.served.workers.refused and not slot.problem
                if stamp != slot.stamp or refused:
                    slot.stamp = stamp
                    try:
                        if refused or not await self._is_loaded(slot):
                            await self._load(slot)
                    except BaseException:
                        slot.stamp = ()  # The next look tries it again.
                        raise

    async def _is_loaded(self, slot: Slot) -> bool:
        """Whether what answers is what would be opened now."""
        if slot.served is None or slot.problem or slot.choice is None:
            return False
        try:
            manifest = await asyncio.to_thread(read_manifest, slot.place.directory)
        except ArtifactError:
            return False
        return await asyncio.to_thread(choice_of, self._setup(slot.place.directory, manifest)) == slot.choice

    async def _load(self, slot: Slot) -> None:
        slot.loading, slot.problem = True, ""
        directory = slot.place.directory
        workers: Workers | None = None
        try:
            manifest = await asyncio.to_thread(read_manifest, directory)
            if slot.served is not None and manifest.name != slot.name:
                raise ArtifactError(f"it is another model now, {manifest.name!r}", fix="start the service again")
            setup = self._setup(directory, manifest)
            # Before they choose: what is measured meanwhile is looked at again.
            choice = await asyncio.to_thread(choice_of, setup)
            workers = self._starter(setup, self._options.instances)
            opened = await workers.start()
        except S2MLPDeployError as error:
            slot.problem = in_one_line(error)
            self.failures += 1
            kept = "; the one before it goes on" if slot.served is not None else ""
            LOG.error("%s version %s cannot be loaded%s: %s", slot.name, slot.version, kept, slot.problem)
            return
        finally:
            slot.loading = False
        limits = self._limits
        batcher = Batcher(workers, max_rows=opened.max_rows, max_delay=limits.max_delay, bound=limits.queue)
        before, slot.name = slot.served, manifest.name
        slot.served, slot.choice = Served(manifest, slot.version, opened, workers, batcher), choice
        LOG.info(
            "ready: %s version %s",
            slot.name,
            slot.version,
            extra={
                "file": opened.file,
                "engine": opened.engine,
                "seconds": round(opened.seconds, 1),
                "reason": opened.reason,
            },
        )
        for note in opened.notes:
            LOG.warning("%s version %s: %s", slot.name, slot.version, note)
        self._retire(before)

    def _setup(self, directory: Path, manifest: Manifest) -> Setup:
        options = self._options
        return Setup(
            str(directory.resolve()),
            options.precision,
            options.engine,
            options.threads,
            options.spin,
            options.flush_denormals,
            options.allow_unproven,
            self._limits.max_pixels,
            self._limits.max_batch,
            options.instances,
            digest_of(manifest),
        )

    def _retire(self, served: Served | None) -> None:
        if served is not None:
            task = asyncio.create_task(served.retire())
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def close(self) -> None:
        """Ends everything."""
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*(slot.served.close() for slot in self.slots if slot.served is not None))


def _name_of(directory: Path) -> str:
    try:
        return read_manifest(directory).name
    except ArtifactError:
        return directory.resolve().name


def card(slot: Slot) -> dict[str, Any]:
    """What a person wants to know of a model, for the page."""
    about: dict[str, Any] = {
        "name": slot.name,
        "version": slot.version,
        "state": slot.state,
        "reason": slot.reason,
    }
    if (served := slot.served) is not None:
        manifest, opened = served.manifest, served.opened
        record = next((file for file in manifest.files if file.path == opened.file), None)
        about |= {
            "file": opened.file,
            "precision": opened.precision,
            "engine": opened.engine,
            "chosen": opened.reason,
            "megabytes": None if record is None else round(record.bytes / 1e6, 1),
            "sha256": None if record is None else record.sha256,
            "source": manifest.source.reference,
            "checkpoint": manifest.source.checkpoint,
            "preprocessing": manifest.preprocessing,
            "classes": None if manifest.classes is None else len(manifest.classes),
            "inputs": [f"{info.name} {info.dtype} {list(info.shape)}" for info in opened.inputs],
            "outputs": [f"{info.name} {info.dtype} {list(info.shape)}" for info in opened.outputs],
            "shifts": len(manifest.shifts),
            "hazards": [f"{hazard.kind}: {hazard.where}" for hazard in manifest.hazards],
            "notes": [*manifest.notes, *opened.notes],
            "classifies": opened.classifies,
        }
    return about
