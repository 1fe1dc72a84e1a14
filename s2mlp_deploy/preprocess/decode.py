"""From a file or its bytes to pixels: 8-bit RGB, upright."""

from __future__ import annotations

import io
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from s2mlp_deploy.errors import ImageError
from s2mlp_deploy.preprocess.description import MAX_PIXELS

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""Raster formats that may be decoded; Pillow's other plugins are never tried on input."""

MAX_SIDE = 65_535
"""Most pixels along one side, as in a JPEG: resizing a thinner image makes tables of gigabytes."""

_ORIENTATION_TAG, _BITS_PER_SAMPLE_TAG = 0x0112, 258
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What a file that is no image begins with, to say what it is instead.
_OTHER_CONTENT = (
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"%PDF", "a PDF document"),
    (b"<svg", "an SVG drawing"),
    (b"<", "an HTML or XML page"),
    (b"\x93NUMPY", "a NumPy array"),
)
_IMAGE_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")


def open_image(source: Path | bytes, *, where: str | None = None) -> Image.Image:
    """Decode one image to 8-bit RGB, upright.

    The size is checked in the header, before anything is decoded. Of an animation the first frame is taken.
    Pillow's settings are not changed; it still warns about images above half of ``MAX_PIXELS``.

    Args:
        source: A file, or the bytes of one.
        where: What error messages call the image; its path if not given.

    Returns:
        An image of mode "RGB", loaded and independent of the file.

    Raises:
        ImageError: The file is missing, empty, no image, damaged, too large, or of a kind of pixel that
            has no 8-bit meaning.
    """
    where = where or (f"{len(source)} bytes in memory" if isinstance(source, bytes) else str(source))
    with _open_stream(source, where) as stream:
        head = stream.read(512)
        if not head:
            raise ImageError("The file is empty", where=where, fix="copy or download it again")
        # A decoder fed damaged or hostile bytes raises whatever it stumbles on, hence Exception.
        try:
            image: Image.Image = Image.open(stream, formats=FORMATS)
            if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise _too_large(where, error) from error
        except UnidentifiedImageError as error:
            raise _not_an_image(where, head) from error
        except Exception as error:
            raise _damaged(where, error) from error
        try:
            image.load()
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise _too_large(where, error) from error
        except Exception as error:
            raise _damaged(where, error) from error
        method = _TRANSPOSITIONS.get(_orientation(image))
        image = to_rgb(image, where)
    return image if method is None else image.transpose(method)


def to_rgb(image: Image.Image, where: str | None) -> Image.Image:
    """Bring an image of any mode to 8-bit RGB: alpha dropped, 16-bit grey cut to its high byte.

    Args:
        image: The image; returned as it is if nothing is to be done.
        where: What error messages call it.

    Returns:
        An image of mode "RGB".

    Raises:
        ImageError: Its pixels have no 8-bit meaning.
    """
    if image.mode == "RGB" and type(image) is Image.Image:
        return image  # anything else, a file plugin's image too, is copied by convert
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _to_8_bit_grey(image, where)
    elif image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if "transparency" in image.info:
        image = image.copy()
        del image.info["transparency"]  # else Pillow warns that it drops the alpha, which is the intent
    try:
        return image.convert("RGB")
    except MemoryError as error:
        raise _damaged(where or "image", error) from error
    except (ValueError, OSError) as error:
        raise ImageError(
            f"Pixels of the mode {image.mode} cannot be read as RGB",
            where=where,
            fix="save the image as RGB",
        ) from error


def _to_8_bit_grey(image: Image.Image, where: str | None) -> Image.Image:
    levels = np.asarray(image)
    low, high = (levels.min(), levels.max()) if levels.size else (0, 0)
    if image.mode == "F" or low < 0 or high > 65535:
        raise ImageError(
            f"Grey values from {low:g} to {high:g} are neither 8 nor 16 bit, so what is white is unknown",
            where=where,
            fix="save the image with 8 or 16 bits per channel",
        )
    # Pillow reads a TIFF of 12 bits without spreading its values over 16.
    twelve_bit = tuple(getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE_TAG, ())) == (12,)
    return Image.fromarray((levels >> (4 if twelve_bit else 8)).astype(np.uint8))


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; a damaged EXIF block counts as none, the pixels are still good."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) else 1


@contextmanager
def _open_stream(source: Path | bytes, where: str) -> Iterator[IO[bytes]]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    try:
        # Checked first: opening a named pipe would wait for ever.
        mode = source.stat().st_mode
        stream = source.open("rb") if stat.S_ISREG(mode) else None
    except FileNotFoundError as error:
        raise ImageError("The file does not exist", where=where, fix="check the path") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"The file cannot be opened: {error}", where=where, fix="check the path") from error
    if stream is None:
        found = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise ImageError(f"This is {found}, where one image is wanted", where=where, fix="name an image file")
    with stream:
        yield stream


def _too_large(where: str, error: BaseException) -> ImageError:
    problem = (
        f"The image is too large to decode safely (more than {MAX_PIXELS:,} pixels, or {MAX_SIDE:,} a side): {error}"
    )
    return ImageError(problem, where=where, fix="make it smaller; if it was not meant to be large, distrust it")


def _damaged(where: str, error: BaseException) -> ImageError:
    if isinstance(error, MemoryError):
        return ImageError("There is not enough memory to decode it", where=where, fix="make the image smaller")
    reason = str(error) or type(error).__name__
    return ImageError(f"The image is damaged: {reason}", where=where, fix="copy or download it again")


def _not_an_image(where: str, head: bytes) -> ImageError:
    if head.startswith(_IMAGE_SIGNATURES):
        return _damaged(where, ValueError("its header cannot be read"))
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    other = next((name for start, name in _OTHER_CONTENT if text.startswith(start)), None)
    if head[4:8] == b"ftyp":
        other = "a HEIC, AVIF or video file"
    problem = f"The file is {other}, not an image" if other else "The file is not an image"
    return ImageError(problem, where=where, fix=f"use one of {', '.join(FORMATS)}")
