"""Weights from an ONNX file into an engine that is being loaded. Has never run on a GPU."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from s2mlp_deploy.engines.record import build_again
from s2mlp_deploy.errors import ArtifactError, BuildError, InputError
from s2mlp_deploy.evidence.build import BuildRecord
from s2mlp_deploy.files import sha256_of

_LOG = logging.getLogger(__name__)


def weights_for(engine_file: Path, record: BuildRecord, given: Path | None) -> Path | None:
    """The ONNX file whose weights an engine needs before it can run; None where it has its own.

    Warns where they are others than the engine was built from, which only a file that was named may have.

    Args:
        engine_file: The engine.
        record: Its sidecar.
        given: What the user named.

    Raises:
        ArtifactError: The engine was built without weights, and the file is not there or not the one it was built from.
        InputError: A file was named, and the engine takes no weights.
    """
    stripped, refittable = bool(record.flags.get("strip_plan")), bool(record.flags.get("refit"))
    if not stripped and given is None:
        return None
    if not stripped and not refittable:
        raise InputError(
            "the engine takes no other weights",
            where=str(engine_file),
            fix=f"{build_again(engine_file, record)} --refit",
        )
    source = given or engine_file.parent / record.onnx
    if not source.is_file():
        if given is not None:
            raise InputError("no such file", where=str(given), fix="name the ONNX file with the weights")
        raise ArtifactError(
            "the engine was built without weights (--strip-plan), and the graph that has them is not there",
            where=str(engine_file),
            fix=f"put {record.onnx} beside the engine",
        )
    actual = sha256_of(source)
    if actual == record.onnx_sha256:
        return source
    # Without --refit the builder has assumed these weights and no others; with it others are taken where named.
    if given is None or not refittable:
        raise ArtifactError(
            f"the engine needs the weights that it was built with: the sha256 of the graph begins with {actual[:12]}, "
            f"that of the one it was built from with {record.onnx_sha256[:12]}",
            where=str(source),
            fix=build_again(engine_file, record),
        )
    _LOG.warning(
        "%s runs with the weights of %s, which are not those that it was built from: parity and scores of the engine "
        "say nothing of them",
        engine_file.name,
        source.name,
    )
    return source


def refit(trt: Any, engine: Any, logger: Any, source: Path, *, engine_file: Path) -> None:
    """Puts the weights of an ONNX file into an engine, before anything runs.

    Args:
        trt: The library.
        engine: The library's engine.
        logger: The library's logger.
        source: The ONNX file.
        engine_file: The engine's file, for the message.

    Raises:
        BuildError: The file does not have all of the engine's weights, or they do not fit.
    """
    refitter = trt.Refitter(engine, logger)
    parser_refitter = trt.OnnxParserRefitter(refitter, logger)
    taken = parser_refitter.refit_from_file(str(source))
    if taken and refitter.refit_cuda_engine():
        return
    missing = list(refitter.get_missing_weights())
    raise BuildError(
        f"the weights of {source.name} do not fit the engine: {logger.reason()}"
        + (f"; {len(missing)} are missing, {', '.join(missing[:3])} among them" if missing else ""),
        where=str(engine_file),
        fix="name the graph that the engine was built from, or one of the same network",
    )
