"""Optimization profiles: the shapes an engine is built for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.errors import InputError

Shape = tuple[int, ...]
DEFAULT_BATCHES = (1, 8, 32)
MAX_SIZE = 2**31 - 1
"""Builders take sizes as 32-bit or 64-bit integers; nobody means more than the smaller."""


@dataclass(frozen=True)
class InputProfile:
    """The range of one input's shape.

    Attributes:
        minimum: Smallest size along each axis.
        optimum: The shape to tune for.
        maximum: Largest size along each axis.
    """

    minimum: Shape
    optimum: Shape
    maximum: Shape


def parse_shapes(texts: Sequence[str]) -> dict[str, Shape]:
    """Reads ``NAME:1x3x224x224`` as trtexec and Polygraphy users write it; several may be joined by commas.

    Raises:
        InputError: A text has another form.
    """
    shapes = {}
    for text in (part for joined in texts for part in joined.split(",")):
        name, colon, sizes = text.strip().rpartition(":")
        try:
            shape = tuple(int(size) for size in sizes.split("x"))
        except ValueError:
            shape = ()
        if not colon or not name or not shape or min(shape) < 1:
            raise InputError(f"{text!r} is not a shape", fix="write NAME:1x3x224x224")
        shapes[name] = shape
    return shapes


def make_profiles(
    inputs: Sequence[TensorInfo],
    minimum: Mapping[str, Shape],
    optimum: Mapping[str, Shape],
    maximum: Mapping[str, Shape],
) -> dict[str, InputProfile]:
    """A profile for every input with a dynamic axis.

    Without shapes a dynamic first axis is a batch of 1, 8 and 32. One given shape stands for those left out.

    Raises:
        InputError: A name is no input, a shape does not fit, or an axis other than the first is dynamic and no shape
            was given.
    """
    known = {info.name for info in inputs}
    if strange := sorted({*minimum, *optimum, *maximum} - known):
        raise InputError(
            f"shapes for {', '.join(map(repr, strange))}, which is no input",
            fix=f"the inputs are {', '.join(sorted(known))}",
        )
    profiles = {}
    for info in inputs:
        given = [shapes.get(info.name) for shapes in (minimum, optimum, maximum)]
        dynamic = [axis for axis, size in enumerate(info.shape) if not isinstance(size, int)]
        if not dynamic and not any(given):
            continue
        shapes = _fill(info, given, dynamic)
        for shape in shapes:
            _check(info, shape)
        if any(not low <= mid <= high for low, mid, high in zip(*shapes, strict=True)):
            raise InputError(
                f"the shapes of {info.name} are not in order: {' <= '.join(map(_text, shapes))} does not hold",
                fix="give --min-shapes, --opt-shapes and --max-shapes with growing sizes",
            )
        profiles[info.name] = InputProfile(*shapes)
    return profiles


def _fill(info: TensorInfo, given: list[Shape | None], dynamic: list[int]) -> list[Shape]:
    low, mid, high = given
    if any(given):
        mid = mid or high or low
        return [shape or mid for shape in (low, mid, high)]  # type: ignore[misc]
    if dynamic != [0]:
        axes = ", ".join(f"{axis} ({info.shape[axis]})" for axis in dynamic)
        raise InputError(
            f"axes {axes} of {info.name} are dynamic, so the engine needs their range",
            fix=f"--min-shapes, --opt-shapes and --max-shapes {info.name}:"
            + "x".join(str(size) if isinstance(size, int) else "N" for size in info.shape),
        )
    rest = [size for size in info.shape[1:] if isinstance(size, int)]
    return [(batch, *rest) for batch in DEFAULT_BATCHES]


def _check(info: TensorInfo, shape: Shape) -> None:
    if max(shape) > MAX_SIZE:
        raise InputError(f"the shape {_text(shape)} of {info.name} is too large", fix=f"no axis may pass {MAX_SIZE}")
    fits = len(shape) == len(info.shape) and all(
        not isinstance(size, int) or size == given for size, given in zip(info.shape, shape, strict=True)
    )
    if not fits:
        raise InputError(
            f"the shape {_text(shape)} does not fit the input {info.name}",
            fix=f"it is {'x'.join(map(str, info.shape))}; only named axes are free",
        )


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape))
