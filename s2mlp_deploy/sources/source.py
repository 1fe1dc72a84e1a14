"""What the user names becomes a module with example inputs.

A source is a zoo name so far; the seam for other kinds is :func:`load_source`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from s2mlp_deploy.artifact import SourceInfo, sha256_of
from s2mlp_deploy.errors import CheckpointError, PreprocessingError
from s2mlp_deploy.models.config import ModelConfig
from s2mlp_deploy.models.registry import build_model, configure, get_model
from s2mlp_deploy.preprocess import Preprocessing, Sidecar, load_sidecar
from s2mlp_deploy.sources.checkpoint import load_weights, read_weights

LOG = logging.getLogger(__name__)

EXAMPLE_BATCH = 2
"""torch.export takes an axis of size 1 for a constant, so the example has two images."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Source:
    """A module ready to be captured.

    Attributes:
        name: The name an artifact of it is served under.
        module: In evaluation mode, weights loaded.
        example_inputs: Float32, one tensor per input.
        input_names: Names of the inputs.
        output_names: Names of the outputs.
        dynamic_axes: Axes whose size may differ from the example's.
        info: Where it comes from, for the manifest.
        preprocessing: How an image becomes the input, where known.
        classes: Names of the classes, where known.
    """

    name: str
    module: nn.Module
    example_inputs: tuple[Tensor, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    dynamic_axes: dict[str, dict[int, str]]
    info: SourceInfo
    preprocessing: Preprocessing | None = None
    classes: tuple[str, ...] | None = field(default=None)


def load_source(
    reference: str,
    *,
    checkpoint: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    preprocess: Path | None = None,
    seed: int = 0,
) -> Source:
    """Loads what the user named.

    ``<checkpoint>.json`` beside the checkpoint gives configuration, preprocessing and class names where it exists;
    ``preprocess`` names another such file. ``overrides`` win over both.

    Args:
        reference: A name of the zoo.
        checkpoint: Weights; without it they are random and seeded.
        overrides: Fields of the configuration.
        preprocess: A description of the preprocessing.
        seed: Of random weights.

    Raises:
        SourceError: Unknown model or field.
        CheckpointError: The weights cannot be read or do not fit.
        PreprocessingError: The description is wrong.
    """
    entry = get_model(reference)
    sidecar = _sidecar(checkpoint, preprocess)
    config = entry.config
    if checkpoint is not None and sidecar is not None and sidecar.config:
        if sidecar.architecture not in (None, entry.name):
            raise CheckpointError(
                f"the checkpoint's description says it is {sidecar.architecture}, not {entry.name}",
                where=str(checkpoint),
                fix=f"use {sidecar.architecture}",
            )
        config = configure(config, sidecar.config)
    config = configure(config, overrides or {})
    module = build_model(config, seed=seed)
    info = SourceInfo(entry.name, config.to_dict(), seed=seed)
    if checkpoint is not None:
        load_weights(module, read_weights(checkpoint), where=str(checkpoint), config=config)
        info = replace(info, checkpoint=checkpoint.name, checkpoint_sha256=sha256_of(checkpoint), seed=None)
    else:
        LOG.warning("no checkpoint given: %s has random weights (seed %d)", entry.name, seed)
    height, width = config.image_size
    generator = torch.Generator().manual_seed(seed)
    example = torch.randn(EXAMPLE_BATCH, config.in_channels, height, width, generator=generator)
    return Source(
        name=checkpoint.stem if checkpoint is not None else entry.name,
        module=module,
        example_inputs=(example,),
        input_names=("input",),
        output_names=("logits",),
        dynamic_axes={"input": {0: "batch"}},
        info=info,
        preprocessing=_preprocessing(config, sidecar),
        classes=_classes(config, sidecar),
    )


def _sidecar(checkpoint: Path | None, preprocess: Path | None) -> Sidecar | None:
    if preprocess is not None:
        return load_sidecar(preprocess)
    if checkpoint is not None:
        # weights.safetensors.json first, then weights.json: both spellings are in use.
        for path in (checkpoint.with_name(checkpoint.name + ".json"), checkpoint.with_suffix(".json")):
            if path.is_file() and path != checkpoint:
                return load_sidecar(path)
    return None


def _preprocessing(config: ModelConfig, sidecar: Sidecar | None) -> Preprocessing | None:
    if sidecar is not None and sidecar.preprocessing is not None:
        described = sidecar.preprocessing
        if described.channels != config.in_channels:
            raise PreprocessingError(
                f"the preprocessing makes {described.channels} channels, the model takes {config.in_channels}",
                fix="correct color, mean and std, or set in_channels",
            )
        # The graph's input size is fixed by the configuration, so the preprocessing follows it.
        return replace(described, size=config.image_size)
    if config.in_channels != 3:
        return None
    LOG.warning("no preprocessing described: ImageNet's mean and std are assumed")
    return Preprocessing(
        size=config.image_size, mean=IMAGENET_MEAN, std=IMAGENET_STD, interpolation="bicubic", crop_pct=0.875
    )


def _classes(config: ModelConfig, sidecar: Sidecar | None) -> tuple[str, ...] | None:
    if sidecar is None or sidecar.classes is None:
        return None
    if len(sidecar.classes) != config.classes:
        LOG.warning("%d class names for %d classes: the names are left out", len(sidecar.classes), config.classes)
        return None
    return sidecar.classes
