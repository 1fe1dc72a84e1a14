"""Reading weights, and nothing but weights, from a file."""

from __future__ import annotations

import argparse
import logging
import pathlib
import pickle
import re
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from s2mlp_deploy.errors import CheckpointError
from s2mlp_deploy.models.config import ModelConfig
from s2mlp_deploy.models.registry import build_model, list_models
from s2mlp_deploy.sources.bounds import check_bounds
from s2mlp_deploy.sources.isolation import USER_CODE
from s2mlp_deploy.text import first_line_of, join_names

LOG = logging.getLogger(__name__)

_HARMLESS = (argparse.Namespace, pathlib.PosixPath)
"""What timm's and DeiT's training scripts save beside the weights: their options. Making one runs nothing."""

_LISTED = 12
"""Keys shown of each kind before the rest is only counted."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads a state dict from safetensors or from a file written by ``torch.save``.

    ``torch.load`` runs with ``weights_only=True``: a pickle that holds anything but tensors is refused, not run.

    Raises:
        CheckpointError: The file is missing, truncated, holds something else, or claims more than it can hold.
    """
    if not path.is_file():
        raise CheckpointError("no such checkpoint file", where=str(path), fix="check the path")
    try:
        check_bounds(path)
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with USER_CODE, torch.serialization.safe_globals(list(_HARMLESS)):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        if not _looks_like_pickle(path):
            raise _unreadable(path, "it is neither safetensors nor written by torch.save") from error
        raise CheckpointError(
            f"the file is a pickle that holds more than weights{_foreign_globals(error)}, and loading it would run "
            "its code",
            where=str(path),
            fix="save the weights alone: torch.save(model.state_dict(), ...), or better safetensors",
        ) from error
    except Exception as error:  # safetensors and torch raise types of their own for damaged files.
        # Anything but these tells of pickle's own bookkeeping: a KeyError of 101 helps nobody.
        told = isinstance(error, (OSError, RuntimeError, EOFError)) or path.suffix == ".safetensors"
        text = first_line_of(error) if told and str(error) else "it is damaged"
        raise _unreadable(path, text if path.stat().st_size else "it is empty") from error
    state = _unwrap(state)
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise CheckpointError(
            "the file is no state dict (a mapping of names to tensors)",
            where=str(path),
            fix="save the weights alone: torch.save(model.state_dict(), ...)",
        )
    for key, tensor in state.items():
        if kind := _unusual(tensor):
            raise CheckpointError(
                f"the tensor {key} is {kind}",
                where=str(path),
                fix="save the weights as ordinary tensors (to_dense, dequantize), on a device that holds them",
            )
    return dict(state)


def _unusual(tensor: Tensor) -> str:
    """What kind of tensor that is of which no weights can be made; empty for an ordinary one."""
    if tensor.is_nested:
        return "nested: it holds tensors of several sizes"
    if tensor.layout != torch.strided:
        return f"sparse ({str(tensor.layout).removeprefix('torch.')})"
    if tensor.is_quantized:
        return f"quantized ({str(tensor.dtype).removeprefix('torch.')})"
    return "on the meta device: it has no values" if tensor.is_meta else ""


def _foreign_globals(error: Exception) -> str:
    """The name of what may not be loaded, as torch tells it; empty where it tells none."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f" ({found.group(1)})" if found else ""


def _looks_like_pickle(path: Path) -> bool:
    """Whether a file begins as torch.save and pickle write: a zip archive, or a pickle of protocol 2 or later."""
    with path.open("rb") as stream:
        start = stream.read(4)
    return start == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05")


def _unreadable(path: Path, problem: str) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint cannot be read: {problem}",
        where=f"{path} ({path.stat().st_size:,} bytes)",
        fix="the file is truncated or not a checkpoint: copy it again",
    )


# What training scripts call the weights inside what they save; averaged weights first, as timm takes them.
_NESTED = ("state_dict_ema", "model_ema", "ema", "state_dict", "model_state_dict", "model", "module", "net", "weights")
_AVERAGED = "n_averaged"
_DEEPEST = 5
"""Mappings in one another that are looked into. Training scripts nest two."""

_PREFIXES = ("module.", "model.", "_orig_mod.", "net.", "backbone.")


def _unwrap(state: object) -> object:
    """The state dict inside a training script's checkpoint."""
    # A state dict itself is flat, so a mapping inside it is what counts, whatever tensors (a step, a decay) lie beside.
    for _ in range(_DEEPEST):  # A mapping may hold itself.
        if not isinstance(state, Mapping):
            break
        there = [name for name in _NESTED if _holds_tensors(state.get(name))]
        if not there:
            break
        if len(there) > 1:
            LOG.warning("the checkpoint holds %s: %s is used", ", ".join(there), there[0])
        state = state[there[0]]
    return state


def _holds_tensors(value: object, depth: int = _DEEPEST) -> bool:
    """Whether a mapping holds weights, itself or in what a training script nests: settings of averaging are none."""
    if not isinstance(value, Mapping) or not depth:
        return False
    # A lone tensor beside numbers is a setting too: the number of steps, the decay.
    if any(isinstance(item, Tensor) and item.dim() for item in value.values()):
        return True
    if any(_holds_tensors(value.get(name), depth - 1) for name in _NESTED if name in value):
        return True
    return bool(value) and all(isinstance(item, Tensor) for item in value.values())


def strip_prefixes(weights: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """Removes prefixes that wrappers add (``module.`` of DataParallel, ``_orig_mod.`` of compile) from every key.

    Only a prefix that all keys share and the model's own keys do not.
    """
    result = dict(weights)
    # torch's AveragedModel counts beside the weights that it wraps.
    if _AVERAGED in result and _AVERAGED not in own and any(key.startswith("module.") for key in result):
        del result[_AVERAGED]
    stripped = True
    while stripped and result and not any(key in own for key in result):
        stripped = False
        for prefix in _PREFIXES:
            if all(key.startswith(prefix) for key in result):
                result = {key.removeprefix(prefix): value for key, value in result.items()}
                stripped = True
                break  # The next prefix may be the model's own.
    return result if any(key in own for key in result) else _with_other_prefix(result, own)


def _with_other_prefix(weights: dict[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """Weights whose names are all the model's but for one prefix, on either side: ``encoder.``, by the model's names.

    Where anything else differs they stay as they are, to be told.
    """
    if not weights or len(weights) != len(own):
        return weights
    name = min(own, key=len)
    for key in weights:
        if key.endswith(f".{name}"):
            prefix = key[: -len(name)]
            if weights.keys() == {prefix + item for item in own}:
                return {item.removeprefix(prefix): value for item, value in weights.items()}
    first = min(weights, key=len)
    for item in own:
        if item.endswith(f".{first}"):
            prefix = item[: -len(first)]
            if {prefix + key for key in weights} == set(own):
                return {prefix + key: value for key, value in weights.items()}
    return weights


def load_weights(
    module: nn.Module, weights: Mapping[str, Tensor], *, where: str, config: ModelConfig | None = None
) -> None:
    """Loads a state dict that must fit exactly, but for prefixes that wrappers add.

    Args:
        module: Gets the weights.
        weights: The checkpoint.
        where: Its file, for messages.
        config: What a zoo model was built from; the message then names a model that fits better.

    Raises:
        CheckpointError: Lists missing and unexpected keys, and those of another shape or type than the model expects.
    """
    own = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    given = weights
    weights = strip_prefixes(given, own)
    if weights.keys() != given.keys():
        LOG.info("%s: %s", where, _renamed(next(iter(given)), next(iter(weights), "")))
    missing = [f"{name} {tuple(tensor.shape)}" for name, tensor in own.items() if name not in weights]
    extra = [f"{name} {tuple(tensor.shape)}" for name, tensor in weights.items() if name not in own]
    shaped = [
        f"{name} {tuple(weights[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in weights and not _same_shape(tensor, weights[name], zoo=config is not None)
    ]
    typed = [
        f"{name} {str(weights[name].dtype).removeprefix('torch.')}, expected {str(tensor.dtype).removeprefix('torch.')}"
        for name, tensor in own.items()
        if name in weights and not _same_kind(tensor, weights[name])
    ]
    if missing or extra or shaped or typed:
        lists = [
            f"{len(items)} {kind}: {join_names(items, limit=_LISTED, separator='; ')}"
            for kind, items in (
                ("missing", missing),
                ("unexpected", extra),
                ("of another shape", shaped),
                ("of another type", typed),
            )
            if items
        ]
        raise CheckpointError(
            "the checkpoint does not fit the model\n    " + "\n    ".join(lists),
            where=where,
            fix="dequantize the weights and save them as floating point"
            if not (missing or extra or shaped)
            else _better_model(weights, config)
            if config
            else "build the model that the checkpoint was saved from",
        )
    # A layer that is a plain Linear here may have been a 1x1 convolution where the checkpoint was saved.
    fitting = {name: tensor.reshape(own[name].shape) for name, tensor in weights.items()}
    if any(tensor.is_meta for tensor in own.values()):
        # Nothing can be copied into a tensor without memory: the module takes the checkpoint's tensors as its own.
        fitting = {name: tensor.to(own[name].dtype) for name, tensor in fitting.items()}
        module.load_state_dict(fitting, strict=False, assign=True)
    else:
        # Not strict: names agree by now, and what a module saves besides tensors is in no checkpoint of weights.
        module.load_state_dict(fitting, strict=False)


def _renamed(given: str, name: str) -> str:
    """What was done to a checkpoint's names, by the first of them."""
    if name and given.endswith(name):
        return f"its names are the model's behind {given.removesuffix(name)!r}, which is left out"
    if name.endswith(given):
        return f"its names are the model's without {name.removesuffix(given)!r}, which is put in front"
    return "what a wrapper added to its names is left out"


def _same_kind(own: Tensor, given: Tensor) -> bool:
    """Whether the numbers of a checkpoint mean what the module's do.

    Casting int8, bool or float8 to float32 gives numbers too, but without their scale, wrong ones; casting complex ones
    drops a part.
    """
    if own.is_floating_point():
        return given.is_floating_point() and (given.element_size() > 1 or given.dtype == own.dtype)
    return own.is_complex() or not given.is_complex()


def _same_shape(own: Tensor, given: Tensor, *, zoo: bool) -> bool:
    """The zoo's pointwise layers take the weights of either layout, [out, in] or [out, in, 1, 1]."""
    if not zoo:
        return own.shape == given.shape
    wide, narrow = sorted((tuple(own.shape), tuple(given.shape)), key=len, reverse=True)
    return wide == narrow or (len(narrow) == 2 and wide == (*narrow, 1, 1))


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
            changed = (
                ""
                if any(config == other.config for other in list_models())
                else (
                    ", without the settings (--set, or config in the JSON beside the checkpoint) that change its shapes"
                )
            )
            return f"this is a checkpoint of {entry.name}: name that model{changed}"
        if differing <= {"head.weight", "head.bias"}:
            classes = shapes["head.bias"][0]
            return (
                f"this is a checkpoint of {entry.name} with {classes} classes: use {entry.name} --set classes={classes}"
            )
    return (
        f"no model of the zoo has these names and shapes; the {type(config).__name__} can be adapted "
        "with --set (dims, depths, patches, classes, attention_ratio, ...)"
    )
