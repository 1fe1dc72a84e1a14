"""What the package does not do yet, by case and by what ``test_gallery`` asks of it."""

from __future__ import annotations

_SAME_TWICE = "one shift is put in several times, for results on the way that are the same tensor"
_DEFORM = "deform_conv2d with constant integer offsets is not read as a shift and a convolution"
_STRANGE = "told, rightly but needlessly, as a circular shift whose channels are the columns"

KNOWN: dict[str, dict[str, str]] = {
    "shift-then-one-border-zeroed": {"found": _SAME_TWICE, "left": _SAME_TWICE},
    "halves-that-change-places": {"found": "told as a zero shift along the channels, twice, and one of a half"},
    "unshifted-tensor-still-used": {"found": "a slice of a shifted tensor becomes a second shift, of a slice"},
    "channels-rolled": {"found": _STRANGE},
}
MAYBE: dict[str, dict[str, str]] = {
    "cycle-fully-connected": dict.fromkeys(("found", "left", "onnx"), _DEFORM),
    "cycle-fully-connected-tall": dict.fromkeys(("found", "left", "onnx"), _DEFORM),
}
"""May pass or not."""
