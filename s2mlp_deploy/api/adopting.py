"""An ONNX file as a source: its graph with a node for every shift, and the proof that it still computes the same."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from s2mlp_deploy.artifact import Hazard
from s2mlp_deploy.choices import OnHazard
from s2mlp_deploy.engines.base import Arrays
from s2mlp_deploy.engines.of_graph import open_graph
from s2mlp_deploy.errors import BuildError, ExportError, InputError
from s2mlp_deploy.export.adopt import GraphAnalysis, adopt
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.sources.onnx_model import EXAMPLE_BATCH, OnnxModel
from s2mlp_deploy.text import first_of, join_names

LOG = logging.getLogger(__name__)

_TOLERANCE = 1e-3
"""Of the peak of an output: folding rounds, movement does not, and a wrong conversion changes more."""


def check_free_sizes(model: OnnxModel, dynamic: Sequence[str]) -> None:
    """Refuses axes that are to be free and that the file fixes.

    Raises:
        InputError: There are some.
    """
    missing = [axis for axis in dynamic if axis != "batch" and axis not in model.sizes]
    if missing:
        raise InputError(
            f"the file fixes its {join_names(missing)}, and a graph's sizes cannot be made free afterwards",
            where=f"{model.path}: --dynamic",
            fix="leave --dynamic away: sizes that are free in the file stay free",
        )


def adopt_model(
    model: OnnxModel, *, opset: int | None = None, repair_smear: bool = False, on_hazard: OnHazard = "warn"
) -> GraphAnalysis:
    """Recognises the shifts of an ONNX file.

    The result is run beside the file on its example: a converter between opsets that is wrong shows there. Where smears
    are repaired that is done before they are: afterwards the graph computes something else, as it is meant to.

    Args:
        model: The file.
        opset: See :func:`~s2mlp_deploy.export.adopt.adopt`.
        repair_smear: See there.
        on_hazard: ``warn`` says what an overlapping copy left of shifts, ``error`` refuses it where it is not repaired.

    Raises:
        ExportError: See there; the result computes something else than the file; the file holds smears and
            ``on_hazard`` is ``error``, or holds none that could be repaired.
    """

    def adopted(*, repair: bool) -> GraphAnalysis:
        return adopt(
            model.model,
            opset=opset,
            sizes=model.sizes,
            runtime=runtime,
            feeds=model.feeds,
            where=str(model.path),
            notes=model.notes,
            repair_smear=repair,
        )

    found = adopted(repair=False)
    if repair_smear and not found.hazards:
        raise ExportError(
            "no smear was found, so that there is nothing to repair",
            where=str(model.path),
            fix="leave --repair-smear out",
        )
    if found.hazards and on_hazard == "error" and not repair_smear:
        raise ExportError(
            f"the file holds {_smears(found.hazards)}, where a shift was meant",
            where=first_of([hazard.where for hazard in found.hazards]),
            fix="--repair-smear to export the shift, or --on-hazard warn to keep what the file computes",
        )
    _check_same(model, found)
    if found.hazards and not repair_smear:
        LOG.warning(
            "the file holds %s, where a shift was meant: %s\n"
            "  What the file computes is kept; export --repair-smear writes the shift, and the numbers change",
            _smears(found.hazards),
            join_names(dict.fromkeys(hazard.where for hazard in found.hazards)),
        )
    return adopted(repair=True) if repair_smear else found


def _smears(found: Sequence[Hazard]) -> str:
    several = "" if len(found) == 1 else "s"
    return f"{len(found)} smear{several} (what an overlapping copy in place left, one row everywhere)"


def runtime(model: ir.Model) -> Callable[[Mapping[str, NDArray[Any]]], Arrays]:
    """ONNX Runtime, which runs every node as it stands."""
    return open_graph(model, threads=1, optimize="off").run


def _check_same(model: OnnxModel, found: GraphAnalysis) -> None:
    try:
        original = runtime(model.model)
        example = original(model.feeds({}))
    except BuildError:
        return  # The file itself cannot be run here, as a note says by now.
    lowered, _ = lower_shifts(found.model, others=True)
    fix = "give --opset the opset of the file, and report the file where that does not help"
    try:
        result = runtime(lowered)
    except BuildError as error:
        raise ExportError(
            f"the graph that was made of the file does not run: {error.problem}", where=str(model.path), fix=fix
        ) from error
    others = [{name: size + 1} for name, size in model.sizes.items() if size == EXAMPLE_BATCH]
    for sizes in ({}, *others):
        feeds = model.feeds(sizes)
        try:
            wanted = original(feeds) if sizes else example
        except BuildError:
            continue  # Sizes that the file does not take.
        if problem := _difference(wanted, result(feeds)):
            raise ExportError(
                f"the graph does not compute what the file computes: {problem}",
                where=str(model.path),
                fix=fix,
            )


def _difference(wanted: Mapping[str, NDArray[Any]], given: Mapping[str, NDArray[Any]]) -> str:
    for (name, array), other in zip(wanted.items(), given.values(), strict=True):
        if other.shape != array.shape or other.dtype != array.dtype:
            return f"{name} is {other.dtype} {list(other.shape)} instead of {array.dtype} {list(array.shape)}"
        if array.dtype.kind != "f":
            continue  # A choice between equals may turn by rounding: parity judges those.
        finite = np.isfinite(array)
        peak = float(np.abs(array[finite]).max(initial=0.0))
        with np.errstate(invalid="ignore"):
            wrong = ~(np.abs(other.astype(np.float64) - array) <= _TOLERANCE * max(peak, 1e-6))
        if (wrong & finite).any():
            return f"{name} differs by more than {_TOLERANCE} of its peak {peak:.3g}"
    return ""
