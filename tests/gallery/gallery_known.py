"""What the package does not do yet, by case and by what ``test_gallery`` asks of it."""

from __future__ import annotations

_DEFORM = "deform_conv2d with constant integer offsets is not read as a shift and a convolution"

KNOWN: dict[str, dict[str, str]] = {}
MAYBE: dict[str, dict[str, str]] = {
    "cycle-fully-connected": dict.fromkeys(("found", "left", "onnx"), _DEFORM),
    "cycle-fully-connected-tall": dict.fromkeys(("found", "left", "onnx"), _DEFORM),
}
"""May pass or not."""
