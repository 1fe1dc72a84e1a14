"""Serving artifacts over the network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO

from s2mlp_deploy.serving.service.lifecycle import run
from s2mlp_deploy.serving.service.options import EngineOptions, ServeOptions, ServiceLimits


def serve(
    paths: Sequence[str | Path],
    *,
    options: ServeOptions | None = None,
    engine: EngineOptions | None = None,
    limits: ServiceLimits | None = None,
    log: IO[bytes] | None = None,
) -> None:
    """Serves artifacts until SIGTERM or Ctrl-C; requests that run then are answered first (``docs/how-to/serve.md``).

    Args:
        paths: Artifacts, or folders with one for each version (``digits/1``, ``digits/2``).
        options: Address, token, how often the disk is looked at.
        engine: Which file is opened, with what, in how many processes.
        limits: Bounds of batches, queues, bodies, images and times.
        log: Where the log goes, opened for bytes without a buffer; None for stderr.

    Raises:
        ArtifactError: There is no artifact in one of the paths.
        InputError: The address cannot be listened on.
    """
    run(
        [Path(path) for path in paths],
        options or ServeOptions(),
        engine or EngineOptions(),
        limits or ServiceLimits(),
        log,
    )
