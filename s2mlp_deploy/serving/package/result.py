"""What is asked of a package, and what was written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from s2mlp_deploy.engines.profiles import MAX_SIZE
from s2mlp_deploy.errors import InputError


@dataclass(frozen=True)
class PackageOptions:
    """How a package serves.

    Attributes:
        version: Of the model, in a Triton repository.
        max_batch: Samples in one run; an engine's profile or the model may allow fewer.
        max_delay: Seconds that a request waits for others.
        instances: How often the model is opened.
        image: Of KServe: the container image that ``docker`` was built to.
        storage_uri: Of KServe: where the Triton repository lies; in place of an image.
        name: Of the InferenceService; None: the served name, spelled as Kubernetes takes it.
        base: Of Docker: the image to begin with; None: Python's own of the version that runs here.
        wheel: Of Docker: this package as a wheel; None: the released one of this version.
    """

    version: int = 1
    max_batch: int = 8
    max_delay: float = 0.002
    instances: int = 1
    image: str | None = None
    storage_uri: str | None = None
    name: str | None = None
    base: str | None = None
    wheel: Path | None = None

    def __post_init__(self) -> None:
        """Refuse numbers and names that mean nothing.

        Raises:
            InputError: One is out of range, or no name.
        """
        counts = (self.version, self.max_batch, self.instances)
        if min(counts) < 1 or max(counts) > MAX_SIZE or not 0 <= self.max_delay < MAX_SIZE:
            raise InputError(
                f"version, max_batch and instances are from 1 to {MAX_SIZE}, and the delay at least 0",
                where=f"{self.version}, {self.max_batch}, {self.instances}, {self.max_delay}",
                fix="give such numbers",
            )
        # They become part of files that other programs run.
        for option, value in (("--image", self.image), ("--storage-uri", self.storage_uri), ("--base", self.base)):
            if value is not None and (not value or not value.isprintable() or " " in value):
                raise InputError(
                    f"{value!r} is no name of an image and no URI",
                    where=option,
                    fix="give one without spaces: registry/name:tag, or s3://bucket/path",
                )


@dataclass(frozen=True)
class Package:
    """What was written.

    Attributes:
        format: ``triton``, ``docker`` or ``kserve``.
        output: The directory.
        files: What lies in it now that was written, relative to it.
        model: The served name.
        file: The artifact's file that runs.
        engine: What runs it.
        why: Why these.
        notes: What this way of serving cannot do of what was asked for or tuned; sentences.
        commands: What to do with it.
    """

    format: str
    output: Path
    files: tuple[str, ...]
    model: str
    file: str
    engine: str
    why: str
    notes: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
