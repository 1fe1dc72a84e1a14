"""From an image to the model's input: the only image-to-tensor code of the package.

Calibration, parity, prediction and serving all come through here, so they cannot disagree about a resize or a
mean. The geometry is that of timm's evaluation transform, computed with Pillow's antialiased resize, and the
normalisation is the same chain of float32 operations, so the numbers are those a model was evaluated with.

Three decisions that change pixels:

* EXIF orientation is applied. timm leaves it alone, but a phone's image would reach the model on its side.
* An alpha channel is dropped, as ``convert("RGB")`` does and timm with it: the colour that is stored under a
  transparent pixel counts. Nothing is composited over a background, because no one background is right.
* 16-bit greyscale keeps its high byte, which is what Pillow does to 16-bit colour. (Pillow's own conversion
  clips at 255 and returns a white image.)
"""

from __future__ import annotations

from s2mlp_deploy.preprocess.decode import FORMATS, open_image
from s2mlp_deploy.preprocess.description import (
    COLORS,
    CROP_MODES,
    INTERPOLATIONS,
    MAX_PIXELS,
    Preprocessing,
    Sidecar,
    load_sidecar,
    mean_colour,
)
from s2mlp_deploy.preprocess.transform import MAX_SIDE, FloatArray, Source, preprocess, raw_pixels, to_array

__all__ = [
    "COLORS",
    "CROP_MODES",
    "FORMATS",
    "INTERPOLATIONS",
    "MAX_PIXELS",
    "MAX_SIDE",
    "FloatArray",
    "Preprocessing",
    "Sidecar",
    "Source",
    "load_sidecar",
    "mean_colour",
    "open_image",
    "preprocess",
    "raw_pixels",
    "to_array",
]
