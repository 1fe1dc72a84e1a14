"""What changes on disk: an artifact, and what runs of it."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

from s2mlp_deploy.artifact import EVIDENCE, MANIFEST
from s2mlp_deploy.errors import S2MLPDeployError
from s2mlp_deploy.serving.plan import plan_run
from s2mlp_deploy.serving.service.messages import Setup

Stamp = Hashable


def stamp_of(directory: Path) -> Stamp:
    """What changes whenever an artifact does, or what may run of it.

    The manifest is replaced last. Evidence comes later: a new file may run once ``parity`` has measured it, another one
    is the fastest since ``tune``. Each of its documents is renamed into its folder, which changes that folder's time.
    """
    try:
        found = (directory / MANIFEST).stat()
    except OSError:
        return None
    try:
        measured = (directory / EVIDENCE).stat().st_mtime_ns
    except OSError:
        measured = 0
    return found.st_mtime_ns, found.st_size, found.st_ino, measured


def choice_of(setup: Setup) -> Hashable:
    """What a worker with this setup would open, and how: most of what is measured changes nothing of that.

    Returns:
        Something that is equal as long as that is the same; None where it cannot be told.
    """
    try:
        plan = plan_run(
            setup.directory,
            precision=setup.precision,
            engine=setup.engine,
            threads=setup.threads,
            spin=setup.spin,
            flush_denormals=setup.flush_denormals or None,
            allow_unproven=setup.allow_unproven,
        )
        file = plan.path.stat()
    except (S2MLPDeployError, OSError):
        return None
    which = setup.manifest, plan.file, file.st_mtime_ns, file.st_size, file.st_ino
    return which, plan.engine, plan.settings, plan.basis, plan.parity
