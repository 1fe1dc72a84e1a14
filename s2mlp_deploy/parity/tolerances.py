"""What a file may differ by, and whether it does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from s2mlp_deploy.errors import InputError
from s2mlp_deploy.evidence.parity import ParityReport, Tolerances, unmet_limits

Limit = float | Mapping[str, float] | None
"""A limit for all outputs, or by the output's name; the name ``""`` stands for all others."""

# fp32: two correct runtimes add in different orders. Split attention sums over all tokens before a softmax, which
# amplifies that: s2mlpv2_medium_7 with random weights on photographs differs by 3.5e-4 of the peak between torch and
# ONNX Runtime, and torch's own fp32 by 5e-4 from its float64 (benchmarks/README.md); the other zoo models stay below
# 1e-5. A wrong shift differs by more than 1e-1.
# fp16 has 11 bits: the trained nano network is 60 dB from float32, random s2mlpv2_small_7 57 dB.
# int8 and fp8: 30 and 20 dB on random s2mlpv2_small_7, 42 and 32 dB on random nano, whose logits are noise and whose
# ranking therefore says little (benchmarks/accuracy.md). What a user should judge by is the accuracy of `quantize`;
# these limits catch a wrong scale or a wrong shift, which cost 10 dB and more.
TOLERANCES = {
    "fp32": Tolerances(atol=1e-5, rtol=1e-3, min_cosine=0.99999, min_top1_agreement=0.999),
    "fp16": Tolerances(atol=1e-3, rtol=2e-2, min_cosine=0.9999, min_top1_agreement=0.98),
    "int8": Tolerances(atol=1e-2, rtol=0.25, min_cosine=0.99, min_top1_agreement=0.9),
    "fp8": Tolerances(atol=1e-2, rtol=0.4, min_cosine=0.98, min_top1_agreement=0.85),
}
"""By precision, without the target that Q/DQ was placed for: ``int8`` also for ``int8-trt``."""

# What a layer adds of its own to what entered it: no error of other layers is in it, so that it hardly depends on data,
# weights or depth. The least of all layers of the nano network, trained on digits and random on photographs, on data
# and on noise, is 129 dB in fp32, 66 dB in fp16 and 31 dB in int8, while the distance from the float32 value sinks to
# 28 dB in the same files on data and to -1 dB on noise (benchmarks/README.md). A weight scale that is 1.2 times too
# large costs all but 14 dB, a wrong shift all but 3. Of a reference's peak those layers differ by 1e-6, 1e-3 and 0.16.
_OWN = {"fp32": (1e-4, 80.0), "fp16": (2e-2, 45.0), "int8": (0.5, 16.0), "fp8": (0.5, 12.0)}

PIXEL_RTOL = 5e-3
"""Of files with preprocessing, whose pixels are now and then one step of 255 off (docs/reference/preprocessing.md)."""
_PIXEL_SQNR = 40.0
"""Of a layer of such a file: what one step of 255 in some pixels is."""


def default_tolerances(precision: str, *, on_pixels: bool = False, images: int | None = None) -> Tolerances:
    """The limits of a precision; a precision without limits of its own is judged by float32's.

    Args:
        precision: ``int8-trt``, for example.
        on_pixels: Whether the file preprocesses images itself.
        images: On how many it is judged, where that is known: on few one near tie decides, which rounding may turn.
    """
    limits = TOLERANCES.get(precision.partition("-")[0], TOLERANCES["fp32"])
    if images and limits is not TOLERANCES["fp32"]:
        limits = replace(limits, min_top1_agreement=min(limits.min_top1_agreement, (images - 1) / images))
    return replace(limits, rtol=max(limits.rtol, PIXEL_RTOL)) if on_pixels else limits


def own_distance(precision: str, *, on_pixels: bool = False) -> Tolerances:
    """The limits of a layer's own distance, by precision as in :func:`default_tolerances`."""
    rtol, least = _OWN.get(precision.partition("-")[0], _OWN["fp32"])
    if on_pixels:
        rtol, least = max(rtol, PIXEL_RTOL), min(least, _PIXEL_SQNR)
    return Tolerances(atol=1e-6, rtol=rtol, min_cosine=-1, min_top1_agreement=0, min_sqnr=least)


def tolerances_by_output(
    outputs: Sequence[str], base: Tolerances, *, atol: Limit = None, rtol: Limit = None
) -> dict[str, Tolerances]:
    """The limits of every output.

    Args:
        outputs: Their names.
        base: Limits where nothing else is given.
        atol: Allowed absolute difference in place of the base's.
        rtol: Allowed relative difference in place of the base's.

    Raises:
        InputError: A limit is given for an output that does not exist, or is no number of at least 0.
    """
    limits = {}
    for name, limit in (("atol", atol), ("rtol", rtol)):
        if isinstance(limit, Mapping) and (unknown := sorted(set(limit) - {"", *outputs})):
            raise InputError(
                f"{name} is given for {', '.join(unknown)}, which is no output", fix=f"choose from {', '.join(outputs)}"
            )
        limits[name] = limit
    return {
        output: replace(
            base, **{name: value for name in limits if (value := limit_of(limits[name], output)) is not None}
        )
        for output in outputs
    }


def limit_of(limit: Limit, output: str) -> float | None:
    """What a limit is for an output; None where it says nothing of it."""
    return limit.get(output, limit.get("")) if isinstance(limit, Mapping) else limit


def parse_limits(texts: Sequence[str], option: str) -> dict[str, float] | None:
    """Limits as the command line gives them: ``1e-4`` for all outputs, ``logits=1e-4`` for one.

    Args:
        texts: One for each repetition of the option.
        option: Its name, for the message.

    Returns:
        By the output's name; None where nothing is given.

    Raises:
        InputError: A text has another form, or a limit is given twice.
    """
    limits: dict[str, float] = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and number >= 0):
            raise InputError(
                f"{option} {text!r} is no limit",
                fix=f"{option} 1e-4 for all outputs, {option} NAME=1e-4 for one; at least 0",
            )
        if name in limits:
            of = f"the output {name}" if name else "all outputs"
            raise InputError(f"{option} is given twice for {of}", fix="give it once")
        limits[name] = number
    return limits or None


def apply_tolerances(report: ParityReport, tolerances: Tolerances | Mapping[str, Tolerances]) -> ParityReport:
    """The report judged by these limits: every output with its own, and all that do not hold as failures.

    Args:
        report: With the figures; limits and failures it has already are replaced.
        tolerances: For all outputs, or by the output's name.
    """
    outputs = tuple(
        replace(output, tolerances=tolerances if isinstance(tolerances, Tolerances) else tolerances[output.name])
        for output in report.outputs
    )
    unmet = (f"output {output.name!r}: {failure}" for output in outputs for failure in unmet_limits(output))
    proven = report.proof.failures if report.proof is not None else ()
    return replace(report, outputs=outputs, failures=(*proven, *unmet))
