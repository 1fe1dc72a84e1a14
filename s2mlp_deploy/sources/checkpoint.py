"""Reading weights, and nothing but weights, from a file."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from s2mlp_deploy.errors import CheckpointError
from s2mlp_deploy.models.config import ModelConfig
from s2mlp_deploy.models.registry import build_model, list_models

_LISTED = 12
"""Keys shown of each kind before the rest is only counted."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads a state dict from safetensors or from a file written by ``torch.save``.

    ``torch.load`` runs with ``weights_only=True``: a pickle that holds anything but tensors is refused, not run.

    Raises:
        CheckpointError: The file is missing, truncated, or holds something else.
    """
    if not path.is_file():
        raise CheckpointError("no such checkpoint file", where=str(path), fix="check the path")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            "the file is a pickle that holds more than weights, and loading it would run its code",
            where=str(path),
            fix="save the weights alone: torch.save(model.state_dict(), ...), or better safetensors",
        ) from error
    except Exception as error:  # safetensors and torch raise types of their own for damaged files.
        raise CheckpointError(
            f"the checkpoint cannot be read: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            where=f"{path} ({path.stat().st_size:,} bytes)",
            fix="the file is truncated or not a checkpoint: copy it again",
        ) from error
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise CheckpointError(
            "the file is no state dict (a mapping of names to tensors)",
            where=str(path),
            fix="save the weights alone: torch.save(model.state_dict(), ...)",
        )
    return dict(state)


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], *, where: str, config: ModelConfig) -> None:
    """Loads a state dict that must fit exactly.

    Args:
        module: Gets the weights.
        weights: The checkpoint.
        where: Its file, for messages.
        config: What the module was built from; names a model that fits better.

    Raises:
        CheckpointError: Lists missing, unexpected and wrongly shaped keys with the shapes the model expects.
    """
    own = module.state_dict()
    missing = [f"{name} {tuple(tensor.shape)}" for name, tensor in own.items() if name not in weights]
    extra = [f"{name} {tuple(tensor.shape)}" for name, tensor in weights.items() if name not in own]
    shaped = [
        f"{name} {tuple(weights[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in weights and not _same_shape(tensor, weights[name])
    ]
    if missing or extra or shaped:
        lists = [
            f"{len(items)} {kind}: {_some(items)}"
            for kind, items in (("missing", missing), ("unexpected", extra), ("of another shape", shaped))
            if items
        ]
        raise CheckpointError(
            "the checkpoint does not fit the model\n    " + "\n    ".join(lists),
            where=where,
            fix=_better_model(weights, config),
        )
    module.load_state_dict(weights)


def _same_shape(own: Tensor, given: Tensor) -> bool:
    """Pointwise layers take the weights of either layout, [out, in] or [out, in, 1, 1]."""
    wide, narrow = sorted((tuple(own.shape), tuple(given.shape)), key=len, reverse=True)
    return wide == narrow or (len(narrow) == 2 and wide == (*narrow, 1, 1))


def _some(items: list[str]) -> str:
    rest = len(items) - _LISTED
    return "; ".join(items[:_LISTED]) + (f"; and {rest} more" if rest > 0 else "")


def _better_model(weights: Mapping[str, Tensor], config: ModelConfig) -> str:
    """A sentence that names the zoo model whose names and shapes are the checkpoint's."""
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for entry in list_models():
        with torch.device("meta"):
            candidate = {n: tuple(t.shape) for n, t in build_model(entry.config).state_dict().items()}
        if candidate.keys() != shapes.keys():
            continue
        differing = {name for name in candidate if candidate[name] != shapes[name]}
        if not differing:
            return f"this is a checkpoint of {entry.name}: name that model"
        if differing <= {"head.weight", "head.bias"}:
            classes = shapes["head.bias"][0]
            return (
                f"this is a checkpoint of {entry.name} with {classes} classes: use {entry.name} --set classes={classes}"
            )
    return (
        f"no model of the zoo has these names and shapes; the {type(config).__name__} can be adapted "
        "with --set (dims, depths, patches, classes, attention_ratio, ...)"
    )
