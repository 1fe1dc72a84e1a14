"""Models of the papers by name."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s2mlp_deploy.artifact import SourceInfo
from s2mlp_deploy.errors import CheckpointError, PreprocessingError
from s2mlp_deploy.files import sha256_of
from s2mlp_deploy.models.config import ModelConfig
from s2mlp_deploy.models.registry import ModelEntry, build_model, configure, get_model
from s2mlp_deploy.preprocess import Preprocessing, Sidecar
from s2mlp_deploy.sources.checkpoint import load_weights, read_weights
from s2mlp_deploy.sources.converters import ASSUMED, LAYOUT, Converted, convert_sequential
from s2mlp_deploy.sources.source import EXAMPLE_BATCH, Source

LOG = logging.getLogger(__name__)

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_zoo(
    name: str,
    *,
    checkpoint: Path | None,
    overrides: Mapping[str, Any],
    sidecar: Sidecar | None,
    seed: int,
) -> Source:
    """Builds a zoo model; see :func:`s2mlp_deploy.sources.load.load_source`."""
    entry = get_model(name)
    config = entry.config
    weights = read_weights(checkpoint) if checkpoint is not None else None
    converted = _convert(weights, str(checkpoint), entry) if weights is not None else None
    described: dict[str, Any] = {}
    if checkpoint is not None and sidecar is not None:
        if sidecar.architecture not in (None, entry.name):
            raise CheckpointError(
                f"the checkpoint's description says it is {sidecar.architecture}, not {entry.name}",
                where=str(checkpoint),
                fix=f"use {sidecar.architecture}",
            )
        described = sidecar.config
    # All at once: each alone may contradict the model's own fields. What the user sets wins over what shapes tell.
    config = configure(config, described | (converted.settings if converted else {}) | dict(overrides))
    module = build_model(config, seed=seed)
    info = SourceInfo(entry.name, config.to_dict(), seed=seed)
    if converted is not None:
        info = replace(info, config=info.config | {"checkpoint_layout": LAYOUT})
    if checkpoint is not None and weights is not None:
        load_weights(module, converted.weights if converted else weights, where=str(checkpoint), config=config)
        info = replace(info, checkpoint=checkpoint.name, checkpoint_sha256=sha256_of(checkpoint), seed=None)
    else:
        LOG.warning("no checkpoint given: %s has random weights (seed %d)", entry.name, seed)
    height, width = config.image_size
    generator = torch.Generator().manual_seed(seed)
    return Source(
        name=checkpoint.stem if checkpoint is not None else entry.name,
        module=module,
        example_inputs=(torch.randn(EXAMPLE_BATCH, config.in_channels, height, width, generator=generator),),
        info=info,
        input_names=("input",),
        output_names=("logits",),
        preprocessing=_preprocessing(config, sidecar),
        classes=_classes(config, sidecar),
    )


def _convert(weights: Mapping[str, Tensor], where: str, entry: ModelEntry) -> Converted | None:
    """Reads the layout of most public code, and says what it saw; None for the zoo's own layout."""
    try:
        converted = convert_sequential(weights)
    except CheckpointError as error:
        raise CheckpointError(
            error.problem, where=f"{where}: {error.where}" if error.where else where, fix=error.fix
        ) from error
    if converted is None:
        return None
    if entry.config.family != "s2mlpv2":
        raise CheckpointError(
            f"this is a checkpoint of an S2-MLPv2, and {entry.name} is none",
            where=where,
            fix="name s2mlpv2_small_7 or another S2-MLPv2; its sizes are read from the checkpoint",
        )
    own = entry.config.to_dict()
    differing = [
        f"{name}={value} instead of {own[name]}" for name, value in converted.settings.items() if own[name] != value
    ]
    LOG.warning(
        "%s: an S2-MLPv2 of %s; its %d tensors are converted to %s%s",
        where,
        LAYOUT,
        len(converted.weights),
        entry.name,
        f" with {', '.join(differing)}" if differing else "",
    )
    for remark in converted.remarks:
        LOG.warning("%s: %s", where, remark)
    LOG.warning(
        "weights cannot show what code does with them. Assumed: %s. `parity` of the exported files with a factory of "
        "the network's own code, and these weights, shows whether that is so",
        "; ".join(ASSUMED),
    )
    return converted


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
