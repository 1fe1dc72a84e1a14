"""Configurations of the papers' networks: frozen dataclasses, no torch.

Papers: S2-MLP is arXiv 2106.07477 ("v1" here), S2-MLPv2 is arXiv 2108.01072 ("v2"). Every ablation the papers
report is a value of a field. Parameters and multiply-accumulates are counted from the fields alone, so that
``s2mlp-deploy models`` needs no torch; the tests hold the counts against the built networks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from s2mlp_deploy.errors import SourceError
from s2mlp_deploy.shift.spec import Border, ShiftSpec

Layout = Literal["channels-last", "channels-first"]
Norm = Literal["layernorm", "affine"]
Fusion = Literal["split-attention", "sum"]
Branch = Literal["shift1", "shift2", "identity"]

MAX_BLOCKS, MAX_CHANNELS, MAX_CLASSES, MAX_EXPANSION = 1_000, 32_768, 1_000_000, 64
"""Several times what any network of these papers has; a description with more would only fill the memory."""

# Content moves by (rows, columns): "down" fills row h from row h - 1.
STEPS: dict[str, tuple[int, int]] = {
    "down": (1, 0),
    "up": (-1, 0),
    "right": (0, 1),
    "left": (0, -1),
    "down-right": (1, 1),
    "down-left": (1, -1),
    "up-right": (-1, 1),
    "up-left": (-1, -1),
}
# The rows of v1's table of shifting directions, in the paper's letters.
DIRECTION_SETS: dict[str, tuple[str, ...]] = {
    "a": ("down", "up", "right", "left"),
    "b": ("down", "up", "right", "left", "down-right", "down-left", "up-right", "up-left"),
    "c": ("up", "right"),
    "d": ("down", "left"),
    "e": ("down", "up"),
    "f": ("right", "left"),
    "g": ("up",),
    "h": ("down",),
    "i": ("left",),
    "j": ("right",),
    "none": (),
}


def parse_directions(text: str) -> tuple[tuple[int, int], ...]:
    """Turns ``"a"`` to ``"j"``, ``"none"`` or ``"down,up,right,left"`` into (rows, columns) steps.

    Raises:
        SourceError: A name is unknown.
    """
    names = DIRECTION_SETS.get(text)
    if names is None:
        names = tuple(part.strip() for part in text.split(","))
    unknown = [name for name in names if name not in STEPS]
    if unknown:
        raise SourceError(
            f"unknown shift direction {', '.join(map(repr, unknown))}",
            where=f"directions {text!r}",
            fix=f"use a letter of the paper's table ({', '.join(DIRECTION_SETS)}) "
            f"or names separated by commas: {', '.join(STEPS)}",
        )
    return tuple(STEPS[name] for name in names)


def image_shift(channels: int, directions: str, border: Border, layout: Layout) -> ShiftSpec | None:
    """The shift of a batch of feature maps, or None where nothing moves.

    Raises:
        SourceError: A direction is unknown.
        ShiftError: The directions do not divide the channels.
    """
    steps = parse_directions(directions)
    if not steps:
        return None
    axes, channel_axis = ((1, 2), 3) if layout == "channels-last" else ((2, 3), 1)
    return ShiftSpec.equal_groups(channels, steps, axes=axes, channel_axis=channel_axis, border=border)


@dataclass(frozen=True)
class StagedConfig:
    """What both networks share: stages of equal blocks, each after a patch embedding.

    Attributes:
        dims: Channels of each stage.
        depths: Blocks of each stage.
        patches: Kernel and stride of each stage's patch embedding. One stage is the plain form, several a pyramid.
        expansion: Hidden channels of a block's MLP over its channels.
        image_size: Height and width the patches must divide.
        in_channels: Channels of the image.
        classes: Outputs of the head.
        border: What the shift leaves in vacated positions; the papers keep them.
        layout: ``channels-last`` computes with MatMul, ``channels-first`` with 1×1 convolutions. Same weights,
            same input (NCHW) and output.
    """

    dims: tuple[int, ...]
    depths: tuple[int, ...]
    patches: tuple[int, ...]
    expansion: int = 4
    image_size: tuple[int, int] = (224, 224)
    in_channels: int = 3
    classes: int = 1000
    border: Border = "keep"
    layout: Layout = "channels-last"

    family: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if not (len(self.dims) == len(self.depths) == len(self.patches) > 0):
            raise SourceError(
                "dims, depths and patches must have one entry per stage",
                where=f"dims={list(self.dims)}, depths={list(self.depths)}, patches={list(self.patches)}",
                fix="give all three the same length; a change of one usually needs the others too",
            )
        positive = {"expansion": self.expansion, "in_channels": self.in_channels, "classes": self.classes}
        for name in ("dims", "depths", "patches", "image_size"):
            positive |= {f"{name}[{i}]": value for i, value in enumerate(getattr(self, name))}
        for name, value in positive.items():
            if value < 1:
                raise SourceError(f"{name} is {value}", fix="give a whole number of at least 1")
        largest = {"the number of blocks": (sum(self.depths), MAX_BLOCKS)}
        largest |= {f"dims[{i}]": (dim, MAX_CHANNELS) for i, dim in enumerate(self.dims)}
        largest |= {"classes": (self.classes, MAX_CLASSES), "in_channels": (self.in_channels, MAX_CHANNELS)}
        largest["expansion"] = (self.expansion, MAX_EXPANSION)
        for name, (value, limit) in largest.items():
            if value > limit:
                raise SourceError(f"{name} is {value:,}", fix=f"give at most {limit:,}")
        stride = self.stride
        if any(side % stride for side in self.image_size):
            height, width = self.image_size
            fits = " or ".join(
                f"{low}x{low}" for low in sorted({max(height // stride, 1) * stride, (height // stride + 1) * stride})
            )
            raise SourceError(
                f"an image of {height}x{width} is not divided by the patches",
                where=f"patches {list(self.patches)} need multiples of {stride}",
                fix=f"set image_size to a multiple of {stride}, for example {fits}",
            )

    @property
    def stride(self) -> int:
        """Input pixels per position of the last stage, along each axis."""
        return math.prod(self.patches)

    def tokens(self) -> list[int]:
        """Positions of each stage's feature map."""
        height, width = self.image_size
        counts = []
        for patch in self.patches:
            height, width = height // patch, width // patch
            counts.append(height * width)
        return counts

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, tuples as lists."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    def block_parameters(self, dim: int) -> int:
        """Learned numbers in one block of ``dim`` channels."""
        raise NotImplementedError

    def block_macs(self, dim: int, tokens: int) -> int:
        """Multiply-accumulates of one block on ``tokens`` positions."""
        raise NotImplementedError

    def norm_parameters(self) -> int:
        """Learned numbers in the norms outside the blocks."""
        raise NotImplementedError

    def parameters(self) -> int:
        """Learned numbers in the whole network, head included."""
        total, previous = 0, self.in_channels
        for dim, depth, patch in zip(self.dims, self.depths, self.patches, strict=True):
            total += (previous * patch**2 + 1) * dim + depth * self.block_parameters(dim)
            previous = dim
        return total + self.norm_parameters() + (previous + 1) * self.classes

    def macs(self) -> int:
        """Multiply-accumulates for one image: convolutions and fully connected layers (the papers' FLOPs)."""
        total, previous = 0, self.in_channels
        for dim, depth, patch, tokens in zip(self.dims, self.depths, self.patches, self.tokens(), strict=True):
            total += tokens * previous * patch**2 * dim + depth * self.block_macs(dim, tokens)
            previous = dim
        return total + previous * self.classes


@dataclass(frozen=True)
class S2MLPConfig(StagedConfig):
    """S2-MLP, v1 (arXiv 2106.07477).

    Attributes:
        norm: The last layer of each residual branch: LayerNorm, or ResMLP's Affine as in the deep model.
        directions: A letter of the paper's table of directions, or names (see :data:`STEPS`).
    """

    norm: Norm = "layernorm"
    directions: str = "a"

    family: ClassVar[str] = "s2mlp"

    def __post_init__(self) -> None:
        super().__post_init__()
        for dim in self.dims:
            image_shift(dim, self.directions, self.border, self.layout)

    def block_parameters(self, dim: int) -> int:
        """Two fully connected layers in the mixer, an MLP, and two norms."""
        return 2 * (dim + 1) * dim + 2 * self.expansion * dim * dim + (self.expansion + 1) * dim + 4 * dim

    def block_macs(self, dim: int, tokens: int) -> int:
        """The shift costs none."""
        return tokens * 2 * dim * dim * (1 + self.expansion)

    def norm_parameters(self) -> int:
        """One norm after each patch embedding; none at the end, where the branches already end in norms."""
        return 2 * sum(self.dims)


@dataclass(frozen=True)
class S2MLPv2Config(StagedConfig):
    """S2-MLPv2 (arXiv 2108.01072).

    Attributes:
        attention_ratio: Split attention's bottleneck is ``dim // attention_ratio``. 4 gives the published
            parameter counts, 1 is what public code uses.
        fusion: How the branches become one: split attention, or the plain sum of the paper's ablation.
        branches: Which of the three branches there are, in order.
        shift1: Directions of the first branch.
        shift2: Directions of the second branch.
        head_norm: Whether a LayerNorm stands before the head. The paper's network has it, most public code has not.
    """

    expansion: int = 3
    attention_ratio: int = 4
    fusion: Fusion = "split-attention"
    branches: tuple[Branch, ...] = ("shift1", "shift2", "identity")
    shift1: str = "down,up,right,left"
    shift2: str = "right,left,down,up"
    head_norm: bool = True

    family: ClassVar[str] = "s2mlpv2"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.branches or len(set(self.branches)) != len(self.branches):
            raise SourceError(
                f"branches {list(self.branches)} are none or not distinct",
                fix="use some of shift1, shift2, identity, each once",
            )
        for dim in self.dims:
            if self.attention_ratio < 1 or dim % self.attention_ratio:
                raise SourceError(
                    f"attention_ratio {self.attention_ratio} does not divide {dim} channels",
                    fix="use a divisor of every entry of dims",
                )
            for branch in self.branches:
                self.shift_spec(branch, dim)

    def shift_spec(self, branch: Branch, dim: int) -> ShiftSpec | None:
        """The shift of a branch, or None for the identity."""
        directions = {"shift1": self.shift1, "shift2": self.shift2, "identity": "none"}[branch]
        return image_shift(dim, directions, self.border, self.layout)

    def attention_weights(self, dim: int) -> int:
        """Numbers in split attention's two matrices, which have no bias."""
        if self.fusion == "sum":
            return 0
        return (len(self.branches) + 1) * dim * (dim // self.attention_ratio)

    def block_parameters(self, dim: int) -> int:
        """Expand, split attention, project, an MLP and two norms."""
        wide = len(self.branches) * dim
        mixer = (dim + 1) * wide + self.attention_weights(dim) + (dim + 1) * dim
        return mixer + 2 * self.expansion * dim * dim + (self.expansion + 1) * dim + 4 * dim

    def block_macs(self, dim: int, tokens: int) -> int:
        """The shifts cost none; split attention's matrices see one vector per image."""
        per_token = len(self.branches) * dim * dim + dim * dim + 2 * self.expansion * dim * dim
        return tokens * per_token + self.attention_weights(dim)

    def norm_parameters(self) -> int:
        """The norm before the head."""
        return 2 * self.dims[-1] if self.head_norm else 0


ModelConfig = S2MLPConfig | S2MLPv2Config
