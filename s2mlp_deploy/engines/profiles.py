"""Optimization profiles: the shapes an engine is built for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from s2mlp_deploy.artifact import SizeLimit, TensorInfo, check_sizes, fitting_batch
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.evidence.build import InputProfile, Profile, Shape

Shapes = Mapping[str, Shape]
DEFAULT_BATCHES = (1, 8, 32)
MAX_SIZE = 2**31 - 1
"""Builders take sizes as 32-bit or 64-bit integers; the smaller limit holds for all of them."""

_OUTSIDE_BRACKETS = re.compile(r",(?![^\[]*\])")


def parse_shapes(text: str) -> dict[str, Shape]:
    """Reads the shapes of one profile: ``NAME:1x3x224x224`` (trtexec) or ``NAME:[1,3,224,224]`` (Polygraphy).

    Several inputs are joined by commas.

    Raises:
        InputError: The text has another form, or names an input twice.
    """
    shapes: dict[str, Shape] = {}
    for part in _OUTSIDE_BRACKETS.split(text):
        name, colon, sizes = part.strip().rpartition(":")
        inner = sizes.strip()
        separator = "," if inner.startswith("[") and inner.endswith("]") else "x"
        try:
            shape = tuple(int(size) for size in inner.strip("[]").split(separator))
        except ValueError:
            shape = ()
        if not colon or not name or not shape or not 1 <= min(shape) <= max(shape) <= MAX_SIZE:
            raise InputError(f"{part!r} is not a shape", fix="write NAME:1x3x224x224")
        if name in shapes:
            raise InputError(
                f"{text!r} names the input {name} twice", fix="repeat the option: each repetition is a profile"
            )
        shapes[name] = shape
    return shapes


def make_profiles(
    inputs: Sequence[TensorInfo],
    min_shapes: Sequence[Shapes],
    opt_shapes: Sequence[Shapes],
    max_shapes: Sequence[Shapes],
    *,
    default_batches: tuple[int, int, int] | None = DEFAULT_BATCHES,
    limits: Sequence[SizeLimit] = (),
) -> tuple[Profile, ...]:
    """The profiles of a network: one for each repetition of the options, one where none is given.

    An option that is not given at all is filled from the others. Without shapes a dynamic first axis is a batch of
    ``default_batches``.

    Args:
        inputs: Of the network.
        min_shapes: Smallest shapes, for each profile.
        opt_shapes: Shapes to tune for, for each profile.
        max_shapes: Largest shapes, for each profile.
        default_batches: The min, opt and max of a dynamic first axis; None where nothing may be assumed.
        limits: What free sizes may be; default batches follow them.

    Raises:
        InputError: A name is no input, a shape does not fit, the options are repeated differently often, or an axis is
            dynamic and no shape was given.
    """
    given = [list(shapes) for shapes in (min_shapes, opt_shapes, max_shapes)]
    count = max(map(len, given)) or 1
    if any(len(shapes) not in (0, count) for shapes in given):
        times = ", ".join(
            f"{option} {len(shapes)}"
            for option, shapes in zip(("--min-shapes", "--opt-shapes", "--max-shapes"), given, strict=True)
        )
        raise InputError(
            f"the shape options are repeated differently often: {times} times",
            fix="each repetition is one profile: give every option as often, or leave it out",
        )
    filled = [shapes or [{}] * count for shapes in given]
    if default_batches is not None:
        small, middle, large = (fitting_batch(limits, batch)[0] for batch in default_batches)
        default_batches = (small, middle, large)
    profiles = [_profile(inputs, low, mid, high, default_batches) for low, mid, high in zip(*filled, strict=True)]
    for profile in profiles:
        for name, shapes in profile.items():
            for shape in (shapes.min, shapes.opt, shapes.max):
                check_sizes(limits, {name: shape})
    return tuple(profiles) if any(profiles) else ()


def check_shapes(profiles: Sequence[Profile], shapes: Mapping[str, Sequence[int]]) -> int:
    """The first profile that takes these shapes.

    Raises:
        InputError: None does; says which input, and what is allowed.
    """
    for index, profile in enumerate(profiles):
        if all(profile[name].takes(shape) for name, shape in shapes.items() if name in profile):
            return index
    if not profiles:
        return 0
    name = next(
        (name for name, shape in shapes.items() if not any(p[name].takes(shape) for p in profiles if name in p)),
        next(iter(shapes)),
    )
    allowed = " or ".join(f"{text_of(p[name].min)} to {text_of(p[name].max)}" for p in profiles if name in p)
    raise InputError(
        f"the shape {text_of(tuple(shapes[name]))} of {name} is outside the engine's profiles",
        fix=f"stay within {allowed}, or build again with wider --min-shapes and --max-shapes",
    )


def _profile(
    inputs: Sequence[TensorInfo],
    low: Shapes,
    mid: Shapes,
    high: Shapes,
    default_batches: tuple[int, int, int] | None,
) -> Profile:
    known = {info.name for info in inputs}
    if strange := sorted({*low, *mid, *high} - known):
        raise InputError(
            f"shapes for {', '.join(map(repr, strange))}, which is no input",
            fix=f"the inputs are {', '.join(sorted(known))}",
        )
    profile = {}
    for info in inputs:
        given = [shapes.get(info.name) for shapes in (low, mid, high)]
        dynamic = [axis for axis, size in enumerate(info.shape) if not isinstance(size, int)]
        if not dynamic and not any(given):
            continue
        shapes = _fill(info, given, dynamic, default_batches)
        for shape in shapes:
            _check(info, shape)
        if any(not small <= middle <= large for small, middle, large in zip(*shapes, strict=True)):
            raise InputError(
                f"the shapes of {info.name} are not in order: {' <= '.join(map(text_of, shapes))} does not hold",
                fix="give --min-shapes, --opt-shapes and --max-shapes with growing sizes",
            )
        profile[info.name] = InputProfile(*shapes)
    return profile


def _fill(
    info: TensorInfo, given: list[Shape | None], dynamic: list[int], default: tuple[int, int, int] | None
) -> list[Shape]:
    low, mid, high = given
    if any(given):
        mid = mid or high or low
        return [shape or mid for shape in (low, mid, high)]  # type: ignore[misc]
    if dynamic != [0] or default is None:
        axes = ", ".join(f"{axis} ({info.shape[axis]})" for axis in dynamic)
        are = "axis" if len(dynamic) == 1 else "axes"
        raise InputError(
            f"the {are} {axes} of the input {info.name} {'is' if len(dynamic) == 1 else 'are'} dynamic, so the engine "
            "needs a range of shapes",
            fix=f"give --min-shapes, --opt-shapes and --max-shapes {info.name}:"
            + "x".join(str(size) if isinstance(size, int) else "N" for size in info.shape),
        )
    rest = [size for size in info.shape[1:] if isinstance(size, int)]
    return [(batch, *rest) for batch in default]


def _check(info: TensorInfo, shape: Shape) -> None:
    if max(shape) > MAX_SIZE:
        raise InputError(f"the shape {text_of(shape)} of {info.name} is too large", fix=f"no axis may pass {MAX_SIZE}")
    fits = len(shape) == len(info.shape) and all(
        not isinstance(size, int) or size == given for size, given in zip(info.shape, shape, strict=True)
    )
    if not fits:
        raise InputError(
            f"the shape {text_of(shape)} does not fit the input {info.name}",
            fix=f"it is {'x'.join(map(str, info.shape))}; only named axes are free",
        )


def text_of(shape: Shape) -> str:
    """``1x3x224x224``."""
    return "x".join(map(str, shape))
