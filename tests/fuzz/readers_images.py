"""Images, through every format that may be decoded."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

from fuzzing import Reader
from PIL import Image

from s2mlp_deploy.preprocess import Preprocessing, open_image, raw_pixels, to_array

_INTO = Preprocessing((8, 8), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), interpolation="bilinear")
_FORMATS = ("jpeg", "png", "bmp", "gif", "webp", "tiff", "ppm")


def _image(suffix: str, data: bytes, folder: Path) -> None:
    path = folder / f"image.{suffix}"
    path.write_bytes(data)
    to_array(open_image(path), _INTO, where="image")
    raw_pixels(data, where="bytes")


READERS = tuple(
    # Twice what the largest image takes that is allowed: as it is decoded, and as RGB.
    Reader(f"images/{name}", partial(_image, name), memory=2 * 2**30, largest=8192)
    for name in _FORMATS
)


def seeds() -> dict[str, dict[str, bytes]]:
    """By reader and name the files to begin with."""
    picture = Image.radial_gradient("L").resize((17, 12))
    colour = Image.merge("RGB", (picture, picture.rotate(90), picture.rotate(180)))
    turned = Image.Exif()
    turned[0x0112] = 6
    wanted = {
        "jpeg": {"rgb": (colour, {"exif": turned}), "grey": (picture, {}), "cmyk": (colour.convert("CMYK"), {})},
        "png": {
            "rgb": (colour, {}),
            "alpha": (colour.convert("RGBA"), {}),
            "palette": (colour.convert("P"), {"transparency": 3}),
            "deep": (picture.convert("I;16"), {}),
            "bits": (picture.convert("1"), {}),
        },
        "bmp": {"rgb": (colour, {}), "palette": (colour.convert("P"), {})},
        "gif": {"moving": (colour, {"save_all": True, "append_images": [colour.rotate(90)]})},
        "webp": {"lossy": (colour, {}), "lossless": (colour, {"lossless": True})},
        "tiff": {
            "rgb": (colour, {}),
            "packed": (colour, {"compression": "tiff_lzw"}),
            "deflated": (colour, {"compression": "tiff_adobe_deflate"}),
            "deep": (picture.convert("I;16"), {}),
            "float": (picture.convert("F"), {}),
        },
        "ppm": {"rgb": (colour, {}), "bits": (picture.convert("1"), {})},
    }
    made: dict[str, dict[str, bytes]] = {}
    for name, images in wanted.items():
        for label, (image, options) in images.items():
            stream = io.BytesIO()
            image.save(stream, name, **options)
            made.setdefault(f"images/{name}", {})[label] = stream.getvalue()
    made["images/ppm"]["text"] = b"P3\n# words\n2 2\n255\n" + b"1 2 3 4 5 6 " * 2
    return made
