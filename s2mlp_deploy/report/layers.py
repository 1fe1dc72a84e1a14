"""Per-layer parity as a table in the order of the network."""

from __future__ import annotations

import math

from rich.console import Console

from s2mlp_deploy.evidence.layers import Bisection, LayerParity, LayersReport, Mend
from s2mlp_deploy.metrics import TensorMetrics
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.figures import data_in_words, measured, weights_in_words
from s2mlp_deploy.report.tables import print_pairs, print_table, print_words, visible_text

_ROWS = 60
"""Rows up to which every layer is shown; of more, layers within their limits are folded into the module above."""


def print_layers(console: Console, report: LayersReport) -> None:
    """Prints a comparison of layers: verdict, what was compared, the layers, what could not be compared.

    Args:
        console: Where to.
        report: What was measured.
    """
    first = report.first
    line = visible_text(console, f"Layers of {report.file}: ", "bold")
    line.append(*(("all hold", "bold green") if first is None else ("DIFFER", "bold red")))
    print_words(console, line)
    print_pairs(
        console,
        [
            ("reference", report.reference),
            *([("weights", weights_in_words(report.weights))] if report.weights else []),
            ("candidate", report.candidate),
            ("precision", report.precision),
            ("data", data_in_words(report)),
            ("runs", f"{fmt.integer(report.runs)} with taps, in {fmt.count(report.parts, 'part')} of the layers"),
            ("taps", _tapping(report)),
        ],
    )
    shown = folded(report)
    print_table(console, None, COLUMNS, [layer_row(layer, count, mark=layer is first) for layer, count in shown])
    if report.unmatched:
        print_table(console, "Not compared", ("Layer", "Why"), [(item.path, item.reason) for item in report.unmatched])
    if first is not None:
        for failure in first.failures:
            print_words(console, visible_text(console, f"FIRST  {first.path}: {failure}", "red"))
        if first.kind == "output" and (worst := report.least) is not None:
            told = f"No layer departs of its own: what all of them add is too much. {worst.path} adds most"
            print_words(console, visible_text(console, f"{told}, {_snr(worst.own or worst.metrics)}."))
        console.print()
    if report.bisection is not None:
        _print_bisection(console, report.bisection)


def _print_bisection(console: Console, found: Bisection) -> None:
    print_words(console, visible_text(console, f"{found.path} departs first", "bold"))
    pairs = [
        ("enters", ", ".join(found.enters) or "the inputs of the network"),
        ("leaves for", ", ".join(found.leaves) or "the outputs of the network"),
        *([("line", found.line)] * bool(found.line)),
    ]
    for mend in found.mends:
        pairs.append(("tried" if mend.layer is not None else "not tried", mend.what))
        if mend.layer is None:
            pairs.append(("", f"because {mend.problem}"))
            continue
        pairs.append(("", outcome(mend)))
    print_pairs(console, pairs)
    for option in dict.fromkeys(mend.option for mend in found.mends if mend.layer is not None):
        # A command is one line, to be copied.
        console.print(visible_text(console, f"  {option}"), soft_wrap=True)


def outcome(mend: Mend) -> str:
    """What a mend changed, or why it was not tried."""
    if mend.layer is None:
        return f"not tried, because {mend.problem}"
    told = ", ".join(map(_distance, (mend.layer, *mend.outputs)))
    return f"{'helps' if mend.helps else 'does not help'}: {told}"


def _distance(layer: LayerParity) -> str:
    """What a layer is judged by, and its limit."""
    if layer.own is not None and layer.own_tolerances is not None:
        return f"{layer.path} own SNR {_snr(layer.own)}, at least {fmt.decibels(layer.own_tolerances.min_sqnr)}"
    limit = "" if layer.allowed is None else f" of {fmt.figure(layer.allowed)}"
    return f"{layer.path} max abs {measured(layer.metrics.max_abs)}{limit}"


def folded(report: LayersReport) -> list[tuple[LayerParity, int]]:
    """The layers that are shown, each with how many others its row stands for.

    Where there are too many, what lies deep is folded: of layers within their limits under one module the one that is
    nearest to its limit is shown. Layers past their limits, and outputs, always are.
    """
    depth = max((layer.path.count(".") for layer in report.layers), default=0)
    rows = [(layer, 0) for layer in report.layers]
    while len(rows) > _ROWS and depth > 0:
        rows = []
        for layer in report.layers:
            above = ".".join(layer.path.split(".")[:depth])
            last = rows[-1] if rows else None
            if (
                last is None
                or layer.failures
                or last[0].failures
                or layer.kind == "output"
                or ".".join(last[0].path.split(".")[:depth]) != above
            ):
                rows.append((layer, 0))
            else:
                rows[-1] = (max(last[0], layer, key=strain), last[1] + 1)
        depth -= 1
    return rows


def is_judged(layer: LayerParity) -> bool:
    """Whether there is a limit that a layer is judged by."""
    return layer.allowed is not None or (layer.own is not None and layer.own_tolerances is not None)


def strain(layer: LayerParity) -> float:
    """The share of its limit that a layer uses: more than 1 is past it, infinite is no number."""
    own, limits = layer.own, layer.own_tolerances
    if own is not None and limits is not None and limits.min_sqnr is not None:
        if own.equal:
            return 0.0
        return math.inf if own.sqnr is None else 10 ** ((limits.min_sqnr - own.sqnr) / 20)
    if layer.metrics.equal:
        return 0.0
    if layer.metrics.max_abs is None or not layer.allowed:
        return math.inf
    return layer.metrics.max_abs / layer.allowed


COLUMNS = ("Layer", "Own SNR", "Limit", "SNR", "Max abs", "Median", "P99", "Relative", "Cosine", "Line", "")


def layer_row(layer: LayerParity, count: int, *, mark: bool) -> tuple[str, ...]:
    """A layer's cells under :data:`COLUMNS`.

    Args:
        layer: The layer.
        count: How many others its row stands for.
        mark: Whether it is the first past its limit.
    """
    metrics, errors = layer.metrics, layer.errors
    state = "<- FIRST past its limit" if mark else ("past its limit" if layer.failures else "")
    return (
        f"{layer.path} (worst of {count + 1})" if count else layer.path,
        "" if layer.own is None else _snr(layer.own),
        _limit(layer),
        _snr(metrics),
        measured(metrics.max_abs),
        fmt.figure(errors.median),
        fmt.figure(errors.p99),
        measured(metrics.max_rel),
        measured(metrics.cosine, fmt.cosine),
        layer.line,
        state,
    )


def _snr(metrics: TensorMetrics) -> str:
    return fmt.EQUAL if metrics.equal else measured(metrics.sqnr, fmt.decibels)


def _limit(layer: LayerParity) -> str:
    """The limit that a layer is judged by: of its own distance, or of the largest difference."""
    own = layer.own_tolerances
    return fmt.figure(layer.allowed) if own is None else fmt.decibels(own.min_sqnr)


def _tapping(report: LayersReport) -> str:
    changed = {name: worst for name, worst in (report.tapping or {}).items() if worst != 0}
    if not changed:
        return "change no output"
    told = ", ".join(f"{name} by up to {measured(worst)}" for name, worst in changed.items())
    return f"change what is computed: {told}; the outputs below are those of the file without taps"
