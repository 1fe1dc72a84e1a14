"""A mend of a shift: the file made again from the model, with another form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir

from s2mlp_deploy.api.bisecting import MADE_ANEW, Attempt, Maker, Run, feeds_of
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.evidence.layers import LayersReport, Mend
from s2mlp_deploy.export.forms import FORMS
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.parity.exits import Tap
from s2mlp_deploy.precision.derive import derive_on


def other_form_of(canonical: Callable[[], ir.Model]) -> Maker:
    """Makes attempts with another form.

    Args:
        canonical: Gives the model's canonical graph.
    """

    def make(report: LayersReport, path: Path, _: Tap, run: Run) -> Attempt:
        ready = run.ready
        if ready.on_pixels:
            return Attempt(Mend("another form of the shift", problem="the file preprocesses its images"))
        told = ready.descriptions[str(path)].get("shifts") or ()
        forms = {str(item.get("form")) for item in told if isinstance(item, dict)}
        graph = canonical()
        for name, form in FORMS.items():
            if name in forms:
                continue
            try:
                model = lower_shifts(graph, form)[0]
            except InputError:  # Not every shift takes every form.
                continue
            if report.precision != "fp32":
                model = derive_on(model, report.precision, feeds_of(model, run))
            what = f"the shifts as {name}" + MADE_ANEW * (report.precision != "fp32")
            return Attempt(Mend(what, f"export with --shift-form {name}"), model)
        return Attempt(Mend("another form of the shift", problem="no other form takes it"))

    return make
