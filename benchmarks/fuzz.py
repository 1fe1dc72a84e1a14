"""Networks of movement, arithmetic on sizes, epsilons and free axes, drawn from seeds and compared at other sizes.

    python benchmarks/fuzz.py --seed 7 --count 500
    python benchmarks/fuzz.py --only 7123 --show      one network, with its code and the steps that a failure needs

A network of seed S is the same wherever it is drawn. What it computes is right where it does not race; where it does,
right is the same code with its right-hand sides cloned first. It is exported through the API and run by ONNX Runtime at
the example's sizes and at others, which the module itself accepts. Each network has a process of its own.
"""

from __future__ import annotations

import argparse
import collections
import json
import logging
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz_networks import AXES, Network, draw, other_shapes
from torch import Tensor, nn

from s2mlp_deploy import api
from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine
from s2mlp_deploy.errors import InputError, S2MLPDeployError

WRONG = ("wrong", "parity blind", "traceback", "hung")
_RTOL, _HALF_RTOL = 1e-4, 1e-2
_ROUNDING, _HALF_ROUNDING = 1e-7, 2.0**-11
_SLACK = 10.0
"""How many times the difference may be that which random rounding behind each block makes."""
_TRIES = 3


@dataclass(frozen=True)
class Outcome:
    """What became of a network.

    Attributes:
        seed: Of the network.
        verdict: ``right``; ``refused``, in words; ``parity stricter``, whose limits do not hold for a network that is
            right as far as rounding allows; or one of WRONG.
        detail: In words.
        shapes: How many other shapes were compared.
        refused: What was refused on the way: axes that could not be free, shapes outside of the limits.
        seconds: Taken.
        traits: What there was: ``shift``, ``race``, ``fp16``, ``parity``.
    """

    seed: int
    verdict: str
    detail: str = ""
    shapes: int = 0
    refused: tuple[str, ...] = ()
    seconds: float = 0.0
    traits: tuple[str, ...] = field(default=())

    @property
    def narrowed(self) -> bool:
        """Whether a size is not free that was to be."""
        return any("fixed" in text or "cannot" in text for text in self.refused)


class DiffersError(Exception):
    """The numbers are wrong; the message says where."""


def judge(network: Network, folder: Path, *, parity: bool | None = None) -> Outcome:
    """Exports a network and compares it.

    Args:
        network: The network.
        folder: To write into.
        parity: Whether the product's own parity is asked too; None: of every third, and of each that is wrong.
    """
    refused: list[str] = []
    traits = ["race"] if network.races else []
    module = network.module()
    source = api.from_module(module, (network.input(network.shape),))
    captured = None
    asked = dict.fromkeys([network.dynamic, tuple(name for name in network.dynamic if name == "batch")])
    for dynamic in asked:  # The fix that a refusal names is to ask for less.
        try:
            captured = api.capture(source, dynamic=dynamic)  # type: ignore[arg-type]
            break
        except S2MLPDeployError as error:
            refused.append(error.problem)
    if captured is None:
        return Outcome(network.seed, "refused", refused[0], refused=tuple(refused))
    half = network.seed % 4 == 0
    precision = api.PrecisionOptions(precisions=("fp16",)) if half else None
    try:
        result = api.export(captured, folder / "out", precision=precision)
    except S2MLPDeployError as error:  # Captured, and then no file.
        return Outcome(network.seed, "wrong", f"{type(error).__name__}: {error.problem}", refused=tuple(refused))
    traits += ["shift"] * bool(result.manifest.shifts) + ["fp16"] * half
    refused += [note for note in result.manifest.notes if "is fixed" in note]
    count, problem = 0, ""
    sizes = result.manifest.inputs[0].shape
    lost = [name for name in dynamic if not isinstance(sizes[AXES[name]], str) or str(sizes[AXES[name]]).isdigit()]
    try:
        if lost and not any("is fixed" in note for note in result.manifest.notes):
            raise DiffersError(f"{lost[0]} is not free, and nothing says so")
        count = _compare(network, result.file(), sizes, refused)
        if half:
            _compare_half(network, result.file("fp16"))
    except DiffersError as error:
        problem = str(error)
    if parity is None:
        parity = network.seed % 3 == 0 or bool(problem)
    holds = None
    if parity:
        traits.append("parity")
        names = [result.file(), *([result.file("fp16")] if half else [])]
        reports = api.parity(captured, names, samples=4, batch=network.shape[0])
        holds = all(report.passed for report in reports)
    if problem:
        verdict = "parity blind" if holds else "wrong"
        return Outcome(network.seed, verdict, problem, count, tuple(refused), traits=tuple(traits))
    if holds is False:
        failures = [failure for report in reports for failure in report.failures]
        return Outcome(network.seed, "parity stricter", failures[0], count, tuple(refused), traits=tuple(traits))
    return Outcome(network.seed, "right", "", count, tuple(refused), traits=tuple(traits))


def _run(module: nn.Module, x: Tensor) -> list[Any] | None:
    """The module's outputs in the file's order; None where it does not take the input."""
    try:
        with torch.no_grad():
            found = module(x.clone())
    except Exception:  # Whatever torch says of a size.
        return None
    values = list(found.values()) if isinstance(found, dict) else found if isinstance(found, tuple) else [found]
    return [value.numpy() for value in values]


def _compare(network: Network, file: Path, sizes: Sequence[int | str], refused: list[str]) -> int:
    """Compares a float32 file at every shape.

    Returns:
        At how many other shapes than the example's.

    Raises:
        DiffersError: It is wrong, or runs where it should not.
    """
    engine = OnnxRuntimeEngine(file, threads=1)
    meaning = network.module(meaning=True)
    kinds = ("noise", "zeros", "ones", "numbered")
    cases = [(network.shape, kind) for kind in kinds] + [(shape, "noise") for shape in other_shapes(network)]
    compared = 0
    for shape, kind in cases:
        # An axis that is fixed in the file takes no other size, and ONNX Runtime says so.
        if any(isinstance(size, int) and size != given for size, given in zip(sizes, shape, strict=True)):
            continue
        x = network.input(shape, kind)
        expected = _run(meaning, x)
        if expected is not None and any(value.size == 0 for value in expected):
            continue
        try:
            given = list(engine.run({engine.inputs[0].name: x.numpy()}).values())
        except InputError as error:  # Outside of the limits that the manifest states.
            if shape == network.shape:
                raise DiffersError(f"the example's shape is refused: {error.problem}") from error
            refused.append(error.problem)
            continue
        except S2MLPDeployError as error:
            if expected is not None:
                raise DiffersError(f"fails at {list(shape)}: {error.problem}") from error
            continue
        if expected is None:
            raise DiffersError(f"runs at {list(shape)}, where the module does not")
        spread = [0.0] * len(expected) if network.moves else _spread(network, x, expected, _ROUNDING)
        for one, other, changed in zip(expected, given, spread, strict=True):
            peak = float(np.abs(one[np.isfinite(one)]).max(initial=0))
            allowed = 0.0 if network.moves else 1e-6 + _RTOL * peak + changed
            _check(one, other, allowed, f"on {kind} {list(shape)}")
        compared += shape != network.shape
    return compared


def _spread(network: Network, x: Tensor, expected: Sequence[Any], rounding: float) -> list[float]:
    """How far random rounding moves each output."""
    noisy = network.module(meaning=True, rounding=rounding)
    worst = [0.0] * len(expected)
    for _ in range(_TRIES):
        found = _run(noisy, x)
        assert found is not None
        for index, (one, other) in enumerate(zip(expected, found, strict=True)):
            if not np.array_equal(np.isfinite(one), np.isfinite(other)):
                worst[index] = np.inf  # The network itself is on the edge.
            finite = np.isfinite(one) & np.isfinite(other)
            worst[index] = max(worst[index], float(np.abs(one - other)[finite].max(initial=0)))
    return [_SLACK * value for value in worst]


def _check(expected: Any, given: Any, allowed: float, where: str) -> None:
    if expected.shape != given.shape:
        raise DiffersError(f"{where}: shape {list(given.shape)}, not {list(expected.shape)}")
    if allowed == np.inf:
        return
    finite = np.isfinite(expected)
    if not np.array_equal(finite, np.isfinite(given)):
        raise DiffersError(f"{where}: NaN or infinity in other places")
    worst = float(np.abs(expected[finite].astype(np.float64) - given[finite]).max(initial=0))
    if worst > allowed:
        peak = float(np.abs(expected[finite]).max())
        raise DiffersError(f"{where}: differs by {worst:.3g} of {peak:.3g}, {allowed:.3g} allowed")


def _compare_half(network: Network, file: Path) -> None:
    """Compares a float16 file at the example's shape: rounding costs three digits, a lost epsilon all.

    Raises:
        DiffersError: It is wrong.
    """
    engine = OnnxRuntimeEngine(file, threads=1)
    meaning = network.module(meaning=True)
    for kind in ("noise", "zeros", "ones"):
        x = network.input(network.shape, kind)
        expected = _run(meaning, x)
        assert expected is not None
        spread = _spread(network, x, expected, _HALF_ROUNDING)
        given = list(engine.run({engine.inputs[0].name: x.numpy().astype(engine.inputs[0].dtype)}).values())
        for one, other, changed in zip(expected, given, spread, strict=True):
            peak = float(np.abs(one[np.isfinite(one)]).max(initial=0))
            if peak < 6e4:
                _check(one, other, 1e-3 + _HALF_RTOL * peak + changed, f"fp16 on {kind}")


def isolated(network: Network, limit: float, *, parity: bool | None = None) -> Outcome:
    """Judges a network in a process of its own, which is ended after so many seconds."""
    receiver, sender = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if not child:
        os.close(receiver)
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit) + 1))
        outcome = Outcome(network.seed, "traceback")
        try:
            with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outcome = judge(network, Path(folder), parity=parity)
        except BaseException as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(frame.filename).name}:{frame.lineno}"
            first = next(iter(str(error).strip().splitlines()), "")
            outcome = replace(outcome, detail=f"{type(error).__name__} at {place}: {first}")
            if os.environ.get("FUZZ_TRACES"):
                traceback.print_exc()
        finally:
            os.write(sender, json.dumps(asdict(outcome)).encode())
            os._exit(0)
    os.close(sender)
    with os.fdopen(receiver, "rb") as stream:
        said = stream.read()
    status = os.waitpid(child, 0)[1]
    seconds = time.monotonic() - started
    if not said:
        name = signal.Signals(status & 0x7F).name if status & 0x7F else str(status)
        return Outcome(network.seed, "hung", f"ended by {name} after {seconds:.0f} s", seconds=seconds)
    found = json.loads(said)
    return Outcome(
        **{**found, "refused": tuple(found["refused"]), "traits": tuple(found["traits"]), "seconds": seconds}
    )


def shrunk(network: Network, fails: Callable[[Network], bool]) -> Network:
    """The network without the blocks that its failure does not need."""
    again = True
    while again:
        again = False
        for smaller in _smaller(network):
            if fails(smaller):
                network, again = smaller, True
                break
    return network


def _smaller(network: Network) -> Iterator[Network]:
    for index in range(len(network.blocks)):
        yield network.with_blocks([*network.blocks[:index], *network.blocks[index + 1 :]])
    if network.results != "x":
        yield replace(network, results="x")
    for name in network.dynamic:
        yield replace(network, dynamic=tuple(other for other in network.dynamic if other != name))


def run(seeds: Sequence[int], limit: float, say: Callable[[str], None] = print) -> list[Outcome]:
    """Judges the networks of these seeds, with a line for each that is not right."""
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    _warm_up()
    outcomes = []
    for number, seed in enumerate(seeds, 1):
        outcome = isolated(draw(seed), limit)
        outcomes.append(outcome)
        if outcome.verdict != "right":
            say(f"{seed}: {outcome.verdict}: {outcome.detail}")
        if number % 25 == 0:
            say(f"  {number} of {len(seeds)}: {_counts(outcomes)}")
    return outcomes


def _warm_up() -> None:
    """What is imported when first used is imported once, before processes are forked."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = api.from_module(nn.Conv2d(3, 4, 1), (torch.zeros(1, 3, 4, 4),))
        api.export(source, Path(folder) / "out")


def _counts(outcomes: Sequence[Outcome]) -> str:
    counts = collections.Counter(outcome.verdict for outcome in outcomes)
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())


def summary(outcomes: Sequence[Outcome]) -> str:
    """A table of the verdicts and what the networks had."""
    right = [outcome for outcome in outcomes if outcome.verdict == "right"]
    lines = ["| verdict | networks |", "|---|---|"]
    counts = collections.Counter(outcome.verdict for outcome in outcomes)
    lines += [f"| {verdict} | {counts[verdict]} |" for verdict in ("right", "refused", "parity stricter", *WRONG)]
    traits = collections.Counter(trait for outcome in outcomes for trait in outcome.traits)
    lines += ["", ", ".join(f"{trait} {count}" for trait, count in traits.most_common())]
    lines += [f"other shapes compared: {sum(outcome.shapes for outcome in outcomes)}"]
    lines += [f"right with fewer free sizes than asked for: {sum(outcome.narrowed for outcome in right)}"]
    lines += [f"seconds: {sum(outcome.seconds for outcome in outcomes):.0f}"]
    reasons = collections.Counter(outcome.detail[:60] for outcome in outcomes if outcome.verdict == "refused")
    lines += [f"  {count} {reason}" for reason, count in reasons.most_common(12)]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=7, help="networks have the seeds 1000 x SEED, and so on")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--only", type=int, nargs="+", help="networks of these seeds")
    parser.add_argument("--show", action="store_true", help="print code, shortened where it fails")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds of processor time for a network")
    args = parser.parse_args()
    torch.set_num_threads(1)
    seeds = args.only or [1000 * args.seed + index for index in range(args.count)]
    outcomes = run(seeds, args.limit, lambda text: print(text, flush=True))
    print(summary(outcomes))
    if args.show:
        for outcome in outcomes:
            network = draw(outcome.seed)
            if outcome.verdict in WRONG:
                network = shrunk(
                    network, lambda n, o=outcome: isolated(n, args.limit, parity=False).verdict in _same(o)
                )  # type: ignore[misc]
                print(isolated(network, args.limit).detail)
            print(f"\n# {outcome.verdict}; example {network.shape}, free {', '.join(network.dynamic)}")
            print(network.program())
    return int(any(outcome.verdict in WRONG for outcome in outcomes))


def _same(outcome: Outcome) -> tuple[str, ...]:
    return ("wrong", "parity blind") if outcome.verdict in ("wrong", "parity blind") else (outcome.verdict,)


if __name__ == "__main__":
    sys.exit(main())
