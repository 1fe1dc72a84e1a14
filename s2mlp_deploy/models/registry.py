"""The model registry: names, configurations and the papers' figures. No torch until a model is created.

A new model of a known family is one line in :data:`MODELS`.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, get_type_hints

import msgspec

from s2mlp_deploy.errors import SourceError
from s2mlp_deploy.models.config import ModelConfig, S2MLPConfig, S2MLPv2Config
from s2mlp_deploy.text import first_line_of

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class PaperFigures:
    """What a paper's table says of a model.

    Attributes:
        source: Where the table is.
        parameters: Millions of parameters.
        flops: Billions of multiply-accumulates at 224².
        top1: ImageNet-1k top-1 in percent.
        remark: Where the configuration cannot meet a figure, which and why.
    """

    source: str
    parameters: float
    flops: float
    top1: float
    remark: str = ""


@dataclass(frozen=True)
class ModelEntry:
    """One named model."""

    name: str
    config: ModelConfig
    description: str
    paper: PaperFigures | None = field(default=None)


_V1, _V2 = "arXiv 2106.07477", "arXiv 2108.01072"

MODELS: dict[str, ModelEntry] = {
    entry.name: entry
    for entry in (
        ModelEntry(
            "s2mlp_wide",
            S2MLPConfig(dims=(768,), depths=(12,), patches=(16,)),
            "S2-MLP-wide: 12 blocks of 768 channels",
            PaperFigures(_V1, 71, 14.0, 80.0, "71 M is the count without the head"),
        ),
        ModelEntry(
            "s2mlp_deep",
            S2MLPConfig(dims=(384,), depths=(36,), patches=(16,), norm="affine"),
            "S2-MLP-deep: 36 blocks of 384 channels, Affine instead of LayerNorm",
            PaperFigures(
                _V1, 51, 10.5, 80.7, "the configuration counts 53.5 M without the head: 51 fits units of 2**20"
            ),
        ),
        ModelEntry(
            "s2mlpv2_small_7",
            S2MLPv2Config(dims=(192, 384), depths=(4, 14), patches=(7, 2)),
            "S2-MLPv2-Small/7: a pyramid of patches 7 and 2",
            PaperFigures(_V2, 25, 6.9, 82.0),
        ),
        ModelEntry(
            "s2mlpv2_medium_7",
            S2MLPv2Config(dims=(256, 512), depths=(7, 17), patches=(7, 2)),
            "S2-MLPv2-Medium/7: a pyramid of patches 7 and 2",
            PaperFigures(_V2, 55, 16.3, 83.6),
        ),
        ModelEntry(
            "s2mlpv2_small_14",
            S2MLPv2Config(dims=(384,), depths=(18,), patches=(14,)),
            "S2-MLPv2-Small/14: no pyramid",
            PaperFigures(_V2, 30, 5.7, 80.9, "18 blocks of 384 channels on 16x16 positions are 6.9 G, not 5.7 G"),
        ),
        ModelEntry(
            "s2mlpv2_nano",
            S2MLPv2Config(dims=(64, 128), depths=(2, 6), patches=(2, 2), image_size=(32, 32), classes=10),
            "S2-MLPv2 for 32x32 images, 1.2 M parameters",
        ),
    )
}

# One line per family: where the network of a configuration lives.
_NETWORKS = {
    "s2mlp": ("s2mlp_deploy.models.s2mlp", "S2MLP"),
    "s2mlpv2": ("s2mlp_deploy.models.s2mlpv2", "S2MLPv2"),
}

# Other names for fields, and facts that older descriptions state although no other value exists.
_ALIASES = {"num_classes": "classes"}
_FIXED = {"split_attention_pool": "sum", "gelu": "erf", "head": "norm, mean over tokens, linear"}


def list_models() -> tuple[ModelEntry, ...]:
    """All registered models, in the registry's order."""
    return tuple(MODELS.values())


def get_model(name: str) -> ModelEntry:
    """Looks a model up.

    Raises:
        SourceError: No such model; the nearest names are suggested.
    """
    try:
        return MODELS[name]
    except KeyError:
        raise SourceError(
            f"unknown model {name!r}",
            fix=suggestion(name, MODELS) + "; `s2mlp-deploy models` lists them all",
        ) from None


def suggestion(name: str, known: Mapping[str, object]) -> str:
    """A sentence that names what the user may have meant."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(known)}"


def configure(config: ModelConfig, overrides: Mapping[str, Any]) -> ModelConfig:
    """A copy of ``config`` with fields replaced.

    Values may be the field's type or its text form (``"37"``, ``"[64, 128]"``, ``"320"`` for an image size).

    Raises:
        SourceError: A field does not exist, or a value has the wrong type or contradicts the others.
    """
    hints = get_type_hints(type(config))
    names = {f.name for f in fields(config)}
    values: dict[str, Any] = {}
    for given, value in overrides.items():
        name = _ALIASES.get(given, given)
        if name in _FIXED:
            if value != _FIXED[name]:
                raise SourceError(
                    f"{name} is always {_FIXED[name]!r}",
                    where=f"{name}={value!r}",
                    fix="leave the field out; no network of the zoo has it otherwise",
                )
            continue
        if name not in names:
            raise SourceError(
                f"{type(config).__name__} has no field {given!r}",
                fix=suggestion(given, dict.fromkeys(sorted(names))),
            )
        values[name] = _convert(name, value, hints[name])
    return replace(config, **values)


def _convert(name: str, value: Any, kind: Any) -> Any:
    """The value as the field's type; text is read as JSON first where the field is not text itself."""
    if isinstance(value, str) and kind is not str:
        try:
            value = msgspec.json.decode(value.encode())
        except (msgspec.DecodeError, RecursionError):  # Nested too deeply.
            if "," in value:
                value = [part.strip() for part in value.split(",")]
    if name == "image_size" and isinstance(value, int):
        value = (value, value)
    if str(kind).startswith("tuple[") and isinstance(value, (int, str)):
        value = (value,)
    try:
        # Names separated by commas arrive as text, so a tuple of numbers may still hold digits.
        return msgspec.convert(value, kind, strict=not isinstance(value, list))
    except msgspec.ValidationError as error:
        raise SourceError(
            f"{name} cannot be {value!r}: {error}", fix=f"the field is of type {_type_name(kind)}"
        ) from None


def _type_name(kind: Any) -> str:
    return (
        kind.__name__
        if isinstance(kind, type) and not str(kind).startswith("tuple[")
        else (str(kind).replace("typing.", ""))
    )


def build_model(config: ModelConfig, *, seed: int = 0) -> nn.Module:
    """Builds the network of a configuration with seeded random weights, in evaluation mode.

    The global random state of torch is left as it was.

    Raises:
        SourceError: The configuration asks for more than this machine can hold.
    """
    import torch

    module, name = _NETWORKS[config.family]
    network = getattr(importlib.import_module(module), name)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: nn.Module = network(config)
    except (RuntimeError, TypeError, OverflowError, MemoryError) as error:
        raise SourceError(
            f"the network cannot be built: {first_line_of(error)}",
            where=f"{config.parameters():,} parameters",
            fix="choose smaller dims, depths, expansion or classes",
        ) from error
    return model.eval()


def create_model(name: str, *, seed: int = 0, **overrides: Any) -> nn.Module:
    """Creates a named model with seeded random weights; keyword arguments override fields of its configuration.

    Raises:
        SourceError: The model or a field does not exist, or a value does not fit.
    """
    return build_model(configure(get_model(name).config, overrides), seed=seed)
