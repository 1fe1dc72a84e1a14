"""What an export takes from tunings of this machine: the layout and the form of shifts that were the fastest."""

from __future__ import annotations

from s2mlp_deploy.artifact import Manifest
from s2mlp_deploy.bench.remembered import Found, model_key, recall
from s2mlp_deploy.engines.registry import OF_GRAPHS, statuses
from s2mlp_deploy.export.adopt import GraphAnalysis
from s2mlp_deploy.export.analysis import Analysis
from s2mlp_deploy.export.forms import FORMS
from s2mlp_deploy.sources.source import Source

_LAYOUTS = ("channels-last", "channels-first")


def model_of(manifest: Manifest) -> str:
    """What the network of an artifact is remembered by."""
    config = manifest.source.config if "layout" in manifest.source.config else {}
    return model_key(config, [shift.spec.op_args() for shift in manifest.shifts])


def remembered_layout(source: Source) -> str | None:
    """The layout in which a zoo model was the fastest here, where that is another one than its own."""
    config = source.info.config
    if "layout" not in config:
        return None
    found = _recall(model_key(config, ()))
    return found.layout if found is not None and found.layout in _LAYOUTS and found.layout != config["layout"] else None


def remembered_form(source: Source, analysis: Analysis | GraphAnalysis) -> tuple[str | None, str]:
    """The form in which the shifts of a network were the fastest here.

    Returns:
        A name of the forms, None where none is remembered of the network in this layout; and where it comes from, in
        words without a time, which would make files differ.
    """
    if isinstance(analysis, GraphAnalysis) and analysis.shifts_integers:
        return None, ""  # Measured was float32, and a convolution shifts no integers.
    config = source.info.config if "layout" in source.info.config else {}
    found = _recall(model_key(config, [shift.spec.op_args() for shift in analysis.shifts]))
    if found is None or found.form not in FORMS or (config and found.layout != config["layout"]):
        return None, ""
    layout = f" in {found.layout}" if config else ""
    return found.form, f"shifts as {found.form}{layout}: the fastest with {found.engine} when `tune` measured it here"


def _recall(model: str) -> Found | None:
    there = [item.name for item in statuses() if item.available and item.name in OF_GRAPHS]
    return recall(model, "fp32", there)
