"""The versions of the ONNX operator set that are written."""

from __future__ import annotations

from s2mlp_deploy.errors import ExportError

MIN_OPSET, MAX_OPSET, DEFAULT_OPSET = 18, 25, 20
"""torch 2.13 writes 18 when asked for less, and an invalid graph when asked for 26."""
DEFORM_CONV_OPSET = 19
"""ONNX has DeformConv from there on."""


def check_opset(opset: int) -> None:
    """Refuses an opset that would not be written.

    Raises:
        ExportError: Outside the range that the exporter writes truthfully.
    """
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise ExportError(
            f"opset {opset} cannot be written",
            fix=f"choose {MIN_OPSET} to {MAX_OPSET}; the default is {DEFAULT_OPSET}",
        )
