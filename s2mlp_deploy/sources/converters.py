"""Weights saved under the names that most public code gives them become weights of the zoo.

Two layouts. A whole S2-MLPv2 written as nested Sequentials of pre-norm residuals (``stages.0.1.model.0.0.fn.mlp1``),
and a single S2Attention block with ``mlp1``, ``mlp2`` and ``split_attention.mlp1/mlp2``, as people paste it into
networks of their own.

Names and shapes show a lot, but not what a forward does with them. What they show to be another function than the
zoo's is refused or, for the norm before the head, followed; what they cannot show is listed in :data:`ASSUMED`, and
``s2mlp-deploy parity`` of the network's own code with the exported file finds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from s2mlp_deploy.errors import CheckpointError
from s2mlp_deploy.sources.checkpoint import strip_prefixes
from s2mlp_deploy.text import whole_number

ASSUMED = (
    "each norm stands before its branch and has an eps of 1e-5",
    "GELU is the exact one",
    "the first third of mlp1 moves down, up, right, left, the second right, left, down, up, and vacated positions keep "
    "their values",
    "split attention sums over positions and branches, and mlp2 gives its logits branch by branch",
    "the stride of a patch convolution is its kernel",
    "the head is linear and averages over the positions",
)
"""What a state dict cannot show, as the zoo computes it."""

LAYOUT = "nested Sequentials"

Logits = Literal["branch-major", "channel-major"]

_MARK = "split_attention.mlp1.weight"
_FIX = "export the network from its own code, which needs no conversion: file.py:factory --checkpoint FILE"
_BLOCK = {
    "mlp1.weight": "expand.weight",
    "mlp1.bias": "expand.bias",
    "mlp2.weight": "project.weight",
    "mlp2.bias": "project.bias",
    "split_attention.mlp1.weight": "attention.reduce.weight",
    "split_attention.mlp2.weight": "attention.expand.weight",
}


@dataclass(frozen=True)
class Converted:
    """A checkpoint under the zoo's names.

    Attributes:
        weights: The zoo's state dict.
        settings: Fields of the zoo's configuration that names and shapes tell.
        remarks: How the network differs from the paper's, in words.
    """

    weights: dict[str, Tensor]
    settings: dict[str, Any]
    remarks: tuple[str, ...]


def convert_s2attention(
    state: Mapping[str, Tensor], prefix: str = "", *, logits: Logits = "branch-major"
) -> dict[str, Tensor]:
    """The weights of a public S2Attention block under the names of the zoo's ``mixer``.

    Args:
        state: Holds ``mlp1``, ``mlp2`` and ``split_attention.mlp1/mlp2`` behind the prefix; other keys are left out
            where they do not begin with it. Weights may be those of 1×1 convolutions.
        prefix: Of the block's keys, for example ``neck.attention.``.
        logits: How the block reads the ``3 c`` outputs of ``split_attention.mlp2``: ``reshape(b, 3, c)`` is
            branch-major, ``reshape(b, c, 3)`` channel-major. The paper's is the first.

    Returns:
        ``expand``, ``project``, ``attention.reduce`` and ``attention.expand``, fully connected.

    Raises:
        CheckpointError: A key is missing or unknown, or the shapes are not those of the block.
    """
    if logits not in ("branch-major", "channel-major"):
        raise CheckpointError(f"logits cannot be {logits!r}", fix="choose branch-major or channel-major")
    names = {key.removeprefix(prefix) for key in state if key.startswith(prefix)}
    missing, unknown = sorted(_BLOCK.keys() - names), sorted(names - _BLOCK.keys())
    if missing or unknown:
        parts = [f"{kind} {', '.join(keys)}" for kind, keys in (("lacks", missing), ("has", unknown)) if keys]
        raise CheckpointError(
            f"this is no S2Attention block: it {' and '.join(parts)}",
            where=f"keys that begin with {prefix!r}" if prefix else None,
            fix="give the prefix of the block's keys, up to and with the dot before mlp1",
        )
    given = {name: _matrix(state[prefix + name]) for name in _BLOCK}
    channels = given["mlp2.weight"].shape[0]
    # c-bar of the paper is whatever the two matrices of the attention share.
    bottleneck = given["split_attention.mlp1.weight"].shape[0]
    expected = {
        "mlp1.weight": (3 * channels, channels),
        "mlp1.bias": (3 * channels,),
        "mlp2.weight": (channels, channels),
        "mlp2.bias": (channels,),
        "split_attention.mlp1.weight": (bottleneck, channels),
        "split_attention.mlp2.weight": (3 * channels, bottleneck),
    }
    for name, shape in expected.items():
        if tuple(given[name].shape) != shape:
            raise CheckpointError(
                f"{name} has the shape {tuple(given[name].shape)}; three branches of {channels} channels need {shape}",
                where=prefix + name,
                fix=_FIX,
            )
    if logits == "channel-major":
        by_channel = given["split_attention.mlp2.weight"].reshape(channels, 3, bottleneck)
        given["split_attention.mlp2.weight"] = by_channel.transpose(0, 1).flatten(0, 1).contiguous()
    return {_BLOCK[name]: tensor for name, tensor in given.items()}


def convert_sequential(state: Mapping[str, Tensor]) -> Converted | None:
    """The weights of an S2-MLPv2 written as nested Sequentials under the zoo's names.

    Every tensor finds its place by its path, its order and its shape, or the conversion is refused.

    Args:
        state: A checkpoint; prefixes that all keys share (``module.``) are taken off.

    Returns:
        None where there is no S2Attention in it: it has another layout.

    Raises:
        CheckpointError: It is this layout, but of a network that the zoo cannot express; names the key.
    """
    weights = strip_prefixes(state, ())
    mixers = sorted((key.removesuffix(_MARK) for key in weights if key.endswith(_MARK)), key=_natural)
    return _Reader(weights, mixers).read() if mixers else None


class _Reader:
    """Takes tensors out of a state dict until nothing is left."""

    def __init__(self, weights: Mapping[str, Tensor], mixers: list[str]) -> None:
        self._left = dict(weights)
        self._mixers = mixers
        self._result: dict[str, Tensor] = {}
        self._ratios: dict[float, str] = {}
        self._expansions: dict[float, str] = {}

    def read(self) -> Converted:
        if self._mixers[0].count(".") < 3:
            raise CheckpointError(
                "this is no network but a single S2Attention block",
                where=self._mixers[0] + _MARK,
                fix="s2mlp_deploy.api.convert_s2attention converts it",
            )
        blocks = self._blocks()
        convolutions = sorted(
            (_parent(key) for key, value in self._left.items() if value.dim() == 4 and not _under(key, blocks)),
            key=_natural,
        )
        stages = self._stages(convolutions, blocks)
        dims, depths, patches = [], [], []
        for index, (convolution, members) in enumerate(stages):
            dim, patch = self._patch(index, convolution)
            for position, (mixer, mlp) in enumerate(members):
                self._block(f"stages.{index}.blocks.{position}.", mixer, mlp, dim)
            dims.append(dim)
            depths.append(len(members))
            patches.append(patch)
        classes, head_norm = self._head([_parent(convolution) for convolution in convolutions], dims[-1])
        if self._left:
            raise self._refuse(
                f"{len(self._left)} tensors have no place in an S2-MLPv2: {', '.join(sorted(self._left)[:6])}"
            )
        settings = {
            "dims": dims,
            "depths": depths,
            "patches": patches,
            "in_channels": self._result["stages.0.patch_embed.proj.weight"].shape[1],
            "classes": classes,
            "expansion": self._only("the expansion of the MLPs", self._expansions),
            "attention_ratio": self._only("channels over the bottleneck of split attention", self._ratios),
            "head_norm": head_norm,
        }
        remarks = []
        if not head_norm:
            remarks.append("there is no norm before the head (the paper has one)")
        if settings["attention_ratio"] != 4:
            ratio = settings["attention_ratio"]
            remarks.append(
                f"split attention's bottleneck is channels / {ratio} (the paper's parameter counts fit channels / 4)"
            )
        return Converted(self._result, settings, tuple(remarks))

    def _blocks(self) -> list[tuple[str, str]]:
        """Paths of the two branches of each block, in order."""
        mixers = [_parent(prefix[:-1]) for prefix in self._mixers]
        blocks = []
        for mixer in mixers:
            parent = _parent(mixer)
            siblings = sorted({_child(key, parent) for key in self._left if key.startswith(parent + ".")}, key=_natural)
            following = siblings[siblings.index(mixer) + 1 :]
            if not following or following[0] in mixers:
                raise self._refuse("an S2Attention is not followed by its MLP", mixer)
            blocks.append((mixer, following[0]))
        return blocks

    def _stages(
        self, convolutions: list[str], blocks: list[tuple[str, str]]
    ) -> list[tuple[str, list[tuple[str, str]]]]:
        """Each patch convolution with the blocks that share its container."""
        if not convolutions:
            raise self._refuse("there is no patch convolution")
        if len(convolutions) == 1:
            return [(convolutions[0], blocks)]
        stages = [
            (convolution, [block for block in blocks if block[0].startswith(_parent(convolution) + ".")])
            for convolution in convolutions
        ]
        if [block for _, members in stages for block in members] != blocks or not all(m for _, m in stages):
            raise self._refuse(
                f"the blocks cannot be told apart by stages: patch convolutions at {', '.join(convolutions)}"
            )
        return stages

    def _patch(self, index: int, convolution: str) -> tuple[int, int]:
        weight = self._take(f"{convolution}.weight")
        if weight.shape[2] != weight.shape[3]:
            raise self._refuse(f"a patch is {weight.shape[2]}x{weight.shape[3]}, not square", f"{convolution}.weight")
        self._result[f"stages.{index}.patch_embed.proj.weight"] = weight
        self._result[f"stages.{index}.patch_embed.proj.bias"] = self._take(f"{convolution}.bias")
        return weight.shape[0], weight.shape[2]

    def _block(self, target: str, mixer: str, mlp: str, dim: int) -> None:
        self._norm(target + "norm1", mixer, dim)
        inside = {key: self._left.pop(key) for key in _within(self._left, mixer)}
        prefix = next(prefix for prefix in self._mixers if prefix.startswith(mixer + "."))
        try:
            converted = convert_s2attention(
                {key: value for key, value in inside.items() if key.startswith(prefix)}, prefix
            )
        except CheckpointError as error:
            raise self._refuse(error.problem, error.where) from error
        if extra := [key for key in inside if not key.startswith(prefix)]:
            raise self._refuse("a branch holds more than a norm and an S2Attention", extra[0])
        if (channels := converted["project.weight"].shape[0]) != dim:
            raise self._refuse(f"{channels} channels in a stage of {dim}", prefix + "mlp2.weight")
        self._result |= {f"{target}mixer.{name}": value for name, value in converted.items()}
        self._ratios.setdefault(dim / converted["attention.reduce.weight"].shape[0], prefix + _MARK)
        self._norm(target + "norm2", mlp, dim)
        layers = sorted(
            (_parent(key) for key in _within(self._left, mlp) if _matrix(self._left[key]).dim() == 2), key=_natural
        )
        if len(layers) != 2:
            raise self._refuse(f"an MLP has {len(layers)} fully connected layers, not 2", mlp)
        for name, layer in zip(("fc1", "fc2"), layers, strict=True):
            for kind in ("weight", "bias"):
                self._result[f"{target}mlp.{name}.{kind}"] = _matrix(self._take(f"{layer}.{kind}"))
        first, second = (self._result[f"{target}mlp.{name}.weight"] for name in ("fc1", "fc2"))
        if first.shape[1] != dim or tuple(second.shape) != (dim, first.shape[0]):
            raise self._refuse(
                f"an MLP of the shapes {tuple(first.shape)} and {tuple(second.shape)} in a stage of {dim} channels", mlp
            )
        self._expansions.setdefault(first.shape[0] / dim, f"{layers[0]}.weight")

    def _norm(self, target: str, branch: str, dim: int) -> None:
        """The one norm of a branch, a direct child of it: anything else would be another network."""
        vectors = [key for key in _within(self._left, branch) if self._is_norm(key)]
        if len(vectors) != 1 or _parent(_parent(vectors[0])) != branch:
            raise self._refuse(f"a branch needs one norm directly in it, this has {len(vectors)} norms in all", branch)
        self._take_norm(target, _parent(vectors[0]), dim)

    def _take_norm(self, target: str, norm: str, dim: int) -> None:
        for kind in ("weight", "bias"):
            value = self._take(f"{norm}.{kind}")
            if tuple(value.shape) != (dim,):
                raise self._refuse(f"a norm of the shape {tuple(value.shape)} for {dim} channels", f"{norm}.{kind}")
            self._result[f"{target}.{kind}"] = value
        if f"{norm}.running_mean" in self._left:
            raise self._refuse("a norm is a BatchNorm; the zoo's are LayerNorms", norm)

    def _is_norm(self, key: str) -> bool:
        return key.endswith(".weight") and self._left[key].dim() == 1

    def _head(self, stages: list[str], dim: int) -> tuple[int, bool]:
        norms = [_parent(key) for key in self._left if self._is_norm(key)]
        for norm in norms:
            if any(norm.startswith(stage + ".") for stage in stages):
                raise self._refuse("a norm follows a patch convolution, which no S2-MLPv2 of the paper has", norm)
        linear = [_parent(key) for key, value in self._left.items() if value.dim() == 2]
        if len(linear) != 1 or len(norms) > 1:
            raise self._refuse(
                f"a head is one fully connected layer and at most one norm, here are {len(linear)} and {len(norms)}",
                ", ".join([*linear, *norms]) or "the keys outside the stages",
            )
        head = linear[0]
        if norms:
            norm = norms[0]
            place = norm.rpartition(".")[2]
            # What stands before it without weights can only be the pooling.
            if _parent(norm) == _parent(head) and whole_number(place):
                raise self._refuse("the norm of the head follows the pooling; the paper's stands before it", norm)
            self._take_norm("norm", norm, dim)
        weight = self._take(f"{head}.weight")
        if weight.shape[1] != dim:
            raise self._refuse(f"the head reads {weight.shape[1]} channels, the last stage has {dim}", f"{head}.weight")
        self._result["head.weight"], self._result["head.bias"] = weight, self._take(f"{head}.bias")
        return weight.shape[0], bool(norms)

    def _only(self, what: str, values: Mapping[float, str]) -> int:
        if len(values) > 1:
            told = ", ".join(f"{value:g} at {key}" for value, key in values.items())
            raise self._refuse(f"{what} is not the same everywhere, and the zoo has one value: {told}")
        value, key = next(iter(values.items()))
        if value != int(value):
            raise self._refuse(f"{what} is {value:g}, no whole number", key)
        return int(value)

    def _take(self, key: str) -> Tensor:
        if key not in self._left:
            raise self._refuse(f"{key} is missing")
        return self._left.pop(key)

    def _refuse(self, problem: str, where: str | None = None) -> CheckpointError:
        return CheckpointError(f"the checkpoint is an S2-MLPv2 that the zoo has not: {problem}", where=where, fix=_FIX)


def _matrix(tensor: Tensor) -> Tensor:
    """A fully connected layer's weight where a 1×1 convolution's was given."""
    return tensor.flatten(1) if tensor.dim() == 4 and tensor.shape[2:] == torch.Size((1, 1)) else tensor


def _natural(path: str) -> list[tuple[int, int, str]]:
    """Sorts ``10`` behind ``9``."""
    return [(1, 0, part) if (number := whole_number(part)) is None else (0, number, "") for part in path.split(".")]


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _child(key: str, parent: str) -> str:
    """The direct child of ``parent`` that a key lies in."""
    return f"{parent}.{key.removeprefix(parent + '.').partition('.')[0]}"


def _within(keys: Mapping[str, Tensor], path: str) -> list[str]:
    return [key for key in keys if key.startswith(path + ".")]


def _under(key: str, blocks: list[tuple[str, str]]) -> bool:
    return any(key.startswith(branch + ".") for block in blocks for branch in block)
