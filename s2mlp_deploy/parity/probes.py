"""Inputs that data and noise hardly ever are, and sizes that the example does not have.

A file may agree on every photograph and divide by zero on a black one, or at a batch that nobody tried.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.artifact import SizeLimit, TensorInfo, fitting_batch
from s2mlp_deploy.engines.base import Arrays, Engine
from s2mlp_deploy.errors import InputError, S2MLPDeployError
from s2mlp_deploy.evidence.parity import Tolerances
from s2mlp_deploy.parity.matching import Matched
from s2mlp_deploy.text import first_line_of

_LARGE = 100.0
"""How many times larger than noise large values are."""
_SHAKE, _SHAKE_HALF = 2e-5, 1e-3
"""What inputs are moved by where a file differs: a thousandth of a step of 8-bit pixels that were normalised, and what
float16 rounds a value of 1 by."""
_FINER = 8
"""How many times less they are moved, to tell a slope, along which rounding is amplified, from a step."""
_MOST_ELEMENTS = 1 << 26
_SECONDS = 60.0
"""After this time no further probe is tried."""


@dataclass(frozen=True)
class Probe:
    """Inputs of one kind.

    Attributes:
        name: What they are, in words.
        feeds: By input name.
        large: Whether they may pass the range of float16.
    """

    name: str
    feeds: dict[str, NDArray[Any]]
    large: bool = False


@dataclass(frozen=True)
class Tried:
    """What the probes of one file showed.

    Attributes:
        names: What was tried; where the source itself moves by more than a file differs once its inputs move by what
            rounding does, with that: the probe tells nothing of the file then.
        failures: Where the file does not follow the reference, in words.
    """

    names: tuple[str, ...]
    failures: tuple[str, ...]


def probes(
    inputs: Sequence[TensorInfo], examples: Sequence[NDArray[Any]], limits: Sequence[SizeLimit], seed: int
) -> Iterator[Probe]:
    """Inputs of special values at the example's size, then noise at other sizes of each free axis.

    Args:
        inputs: Names, dtypes and shapes.
        examples: One of each.
        limits: Of their free sizes.
        seed: Of the noise.
    """
    sizes = {
        name: example.shape[axis]
        for info, example in zip(inputs, examples, strict=True)
        for axis, name in enumerate(info.shape)
        if isinstance(name, str) and name.isidentifier()
    }
    if "batch" in sizes:
        sizes["batch"] = fitting_batch(limits, 2)[0]
    makers: dict[str, Callable[[tuple[int, ...]], NDArray[Any]]] = {
        "zeros": np.zeros,
        "ones": np.ones,
        "one hot pixel": _hot,
        "large values": lambda shape: np.random.default_rng(seed).standard_normal(shape, np.float32) * _LARGE,
    }
    for name, make in makers.items():
        yield Probe(name, _feeds(inputs, examples, sizes, make), large=name == "large values")
    for axis, size in sizes.items():
        for other in dict.fromkeys(_others(axis, size, limits)):
            if other != size:
                chosen = {**sizes, axis: other}
                noise = np.random.default_rng(seed)
                feeds = _feeds(inputs, examples, chosen, lambda s, g=noise: g.standard_normal(s, np.float32))  # type: ignore[misc]
                yield Probe(f"{axis} {other}", feeds)


def _others(axis: str, size: int, limits: Sequence[SizeLimit]) -> list[int]:
    rules = [limit for limit in limits if limit.name == axis]

    def fit(wanted: int) -> int:
        return max((rule.at_least(wanted) for rule in rules), default=wanted)

    return [fit(1), fit(size + 1)] if axis == "batch" else [fit(size // 2 + 1), fit(size + 1)]


def _hot(shape: tuple[int, ...]) -> NDArray[Any]:
    array = np.zeros(shape, np.float32)
    middle: Any = (..., *(size // 2 for size in shape[-2:]))
    array[middle] = 1
    return array


def _feeds(
    inputs: Sequence[TensorInfo],
    examples: Sequence[NDArray[Any]],
    sizes: Mapping[str, int],
    make: Callable[[tuple[int, ...]], NDArray[Any]],
) -> dict[str, NDArray[Any]]:
    feeds = {}
    for info, example in zip(inputs, examples, strict=True):
        shape = tuple(
            sizes.get(str(name), example.shape[axis]) if isinstance(name, str) else example.shape[axis]
            for axis, name in enumerate(info.shape)
        )
        floats = np.issubdtype(example.dtype, np.floating)
        # Numbers that a network looks up must be some that it knows.
        feeds[info.name] = make(shape).astype(info.dtype) if floats else np.resize(example, shape)
    return feeds


def try_probes(
    reference: Engine,
    candidates: Mapping[str, Engine],
    tolerances: Mapping[str, Mapping[str, Tolerances]],
    tried: Iterator[Probe],
    *,
    float32: Collection[str] = (),
) -> dict[str, Tried]:
    """Runs the reference and every candidate on probes, within a time.

    A probe that the reference does not take is not tried. Everywhere a candidate must run, have the reference's shapes
    and be finite where the reference is. Its numbers need not follow where rounding alone moves the reference as far: a
    deep network of random weights amplifies that ten thousand times on a black image.

    Args:
        reference: What is right.
        candidates: What is compared, by name.
        tolerances: By candidate and output. Those without, quantized ones, need not follow the reference in numbers
            far from their calibration.
        tried: The probes.
        float32: The candidates that large values are tried with.
    """
    matched = {key: Matched(key, engine, reference) for key, engine in candidates.items()}
    names: dict[str, list[str]] = {key: [] for key in candidates}
    failures: dict[str, list[str]] = {key: [] for key in candidates}
    started = time.monotonic()
    for probe in tried:
        if time.monotonic() - started > _SECONDS:
            break
        if sum(array.size for array in probe.feeds.values()) > _MOST_ELEMENTS:
            continue
        try:
            expected = reference.run(probe.feeds)
        except Exception:  # A network of the user's own may raise anything at inputs that it is not made for.
            continue
        rounding = {step: _Rounding(reference, probe, expected, step) for step in (_SHAKE, _SHAKE_HALF)}
        for key, candidate in matched.items():
            if probe.large and key not in float32:
                continue
            moves = rounding[_SHAKE if key in float32 else _SHAKE_HALF]
            problem = _problem(candidate, probe, expected, tolerances.get(key), moves)
            told = f" (rounding moves the source by {moves.used:.2g} there)" if moves.used and problem is None else ""
            names[key].append(probe.name + told)
            moves.used = 0.0
            if problem is not None:
                failures[key].append(f"on {probe.name}: {problem}")
    return {key: Tried(tuple(names[key]), tuple(failures[key])) for key in candidates}


class _Rounding:
    """How far the reference moves where its inputs move by what rounding does; measured where it is asked for.

    Attributes:
        used: The largest movement that excused a difference.
    """

    def __init__(self, reference: Engine, probe: Probe, expected: Arrays, step: float) -> None:
        self._reference, self._probe, self._expected, self._step = reference, probe, expected, step
        self._moved: dict[str, float] | None = None
        self.used = 0.0

    def excuses(self, name: str, worst: float) -> bool:
        """Whether an output may differ by so much: the reference moves by that itself, and it moves less by less."""
        if self._moved is None:
            whole, finer = self._by(self._step), self._by(self._step / _FINER)
            # A step at the input itself is as high by less, and one beside it is not there at all.
            self._moved = {
                key: min(value, _FINER * finer[key])
                for key, value in whole.items()
                if finer.get(key, value) < value / 2
            }
        moved = self._moved.get(name, 0.0)
        if worst > moved:
            return False
        self.used = max(self.used, moved)
        return True

    def _by(self, step: float) -> dict[str, float]:
        noise = np.random.default_rng(0)
        feeds = {
            name: array
            if not np.issubdtype(array.dtype, np.floating)
            else (array + noise.uniform(-step, step, array.shape) * np.maximum(1.0, np.abs(array))).astype(array.dtype)
            for name, array in self._probe.feeds.items()
        }
        try:
            outputs = self._reference.run(feeds)
        except Exception:  # As above.
            return {}
        found = {}
        for name, wanted in self._expected.items():
            given = outputs[name]
            if np.issubdtype(wanted.dtype, np.floating) and given.shape == wanted.shape:
                difference = np.abs(given.astype(np.float64) - wanted)
                found[name] = float(difference[np.isfinite(difference)].max(initial=0.0))
        return found


def _problem(
    candidate: Matched, probe: Probe, expected: Arrays, tolerances: Mapping[str, Tolerances] | None, moves: _Rounding
) -> str | None:
    try:
        actual = candidate.run(probe.feeds)
    except InputError as error:
        return f"the file refuses what the source takes: {error.problem}"
    except S2MLPDeployError as error:
        return f"the file fails: {first_line_of(error)}"
    for name, wanted in expected.items():
        given = actual[name]
        if given.shape != wanted.shape:
            return f"output {name!r} has the shape {given.shape}, not {wanted.shape}"
        if not np.issubdtype(wanted.dtype, np.floating):
            continue
        finite = np.isfinite(wanted)
        if bad := int((finite & ~np.isfinite(given)).sum()):
            return f"output {name!r} has {bad} values that are NaN or infinite, where the source's are finite"
        if tolerances is not None and finite.any():
            limit = tolerances[name]
            peak = float(np.abs(wanted[finite]).max())
            worst = float(np.abs(given[finite].astype(np.float64) - wanted[finite]).max())
            if not worst <= limit.atol + limit.rtol * peak and not moves.excuses(name, worst):
                return (
                    f"output {name!r} differs by {worst:.3g} > {limit.atol + limit.rtol * peak:.3g} "
                    f"(atol {limit.atol:g} + rtol {limit.rtol:g} x peak {peak:.3g})"
                )
    return None
