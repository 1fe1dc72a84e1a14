"""What the user names becomes a source: which kind it is, and the description beside its weights.

Kinds of sources: a zoo name (:mod:`.zoo`), a factory ``package.module:function`` or ``file.py:function``
(:mod:`.factory`), a program ``model.pt2`` (:mod:`.program`) and a graph ``model.onnx`` (:mod:`.onnx_file`). Factories
run the user's code and a ``.pt2`` file is a pickle: both are for trusted sources only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from s2mlp_deploy.preprocess import Sidecar
from s2mlp_deploy.sources import factory, onnx_file, program, zoo
from s2mlp_deploy.sources.reference import check_source, find_sidecar
from s2mlp_deploy.sources.source import Source


def load_source(
    reference: str,
    *,
    checkpoint: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    preprocess: Path | None = None,
    described: Sidecar | None = None,
    seed: int = 0,
) -> Source:
    """Loads what the user named.

    ``<checkpoint>.json`` beside the checkpoint gives configuration, preprocessing and class names where it exists;
    ``preprocess`` names another such file. ``overrides`` win over both.

    Args:
        reference: A zoo name, ``package.module:function``, ``file.py:function``, ``model.pt2`` or ``model.onnx``.
        checkpoint: Weights; without it they are what the factory made, or random and seeded.
        overrides: Fields of a zoo model's configuration; keyword arguments of a factory; free sizes of an
            ONNX file, which become fixed.
        preprocess: A description of the preprocessing.
        described: What an artifact says of the same; it wins over the file beside the checkpoint, not over
            ``preprocess``.
        seed: Of random weights.

    Raises:
        SourceError: Unknown model or field; the factory fails or returns no module.
        CheckpointError: The weights cannot be read or do not fit.
        PreprocessingError: The description is wrong.
    """
    check_source(reference)
    sidecar = find_sidecar(checkpoint, preprocess)
    if described is not None and preprocess is None:
        sidecar = described if sidecar is None else _merged(described, sidecar)
    given = dict(overrides or {})
    if reference.endswith(".pt2"):
        source = program.load_program(Path(reference), checkpoint=checkpoint, overrides=given, sidecar=sidecar)
    elif reference.endswith(".onnx"):
        source = onnx_file.load_onnx(Path(reference), checkpoint=checkpoint, overrides=given, sidecar=sidecar)
    elif ":" in reference or reference.endswith(".py"):
        source = factory.load_factory(reference, checkpoint=checkpoint, overrides=given, sidecar=sidecar, seed=seed)
    else:
        source = zoo.load_zoo(reference, checkpoint=checkpoint, overrides=given, sidecar=sidecar, seed=seed)
    # Kept as given, beside the configuration that came of it: whoever loads the source again needs these. JSON has no
    # tuples, and a manifest must equal itself when it is read.
    given = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
    name = None if preprocess is None else preprocess.name
    return replace(source, info=replace(source.info, overrides=given, preprocess=name))


def _merged(first: Sidecar, second: Sidecar) -> Sidecar:
    """What one description says, and of what it does not speak what another says."""
    return Sidecar(
        architecture=first.architecture or second.architecture,
        config=first.config or second.config,
        preprocessing=first.preprocessing or second.preprocessing,
        classes=first.classes or second.classes,
    )
