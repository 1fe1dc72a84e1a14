"""From a picture to the model's input: the only image-to-tensor code of the package.

Calibration, parity, prediction and serving all come through here, so they cannot disagree about a resize or a
mean. The geometry is that of timm's evaluation transform, computed with Pillow's antialiased resize, and the
normalisation is the same chain of float32 operations, so the numbers are those a model was evaluated with.

Three decisions that change pixels:

* EXIF orientation is applied. timm leaves it alone, but a phone's picture would reach the model on its side.
* An alpha channel is dropped, as ``convert("RGB")`` does and timm with it: the colour that is stored under a
  transparent pixel counts. Nothing is composited over a background, because no one background is right.
* 16-bit greyscale keeps its high byte, which is what Pillow does to 16-bit colour. (Pillow's own conversion
  clips at 255 and returns a white picture.)
"""

from __future__ import annotations

import difflib
import io
import math
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from s2mlp_deploy.errors import ImageError, PreprocessingError

Source: TypeAlias = Path | bytes | Image.Image
FloatArray: TypeAlias = npt.NDArray[np.float32]

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""Raster formats that may be decoded; Pillow's other plugins are never tried on input."""

MAX_PIXELS = 178_956_970
"""Most pixels a picture may have. From this count on Pillow too refuses, with its default settings."""

CROP_MODES = ("center", "squash", "border")
COLORS = ("RGB", "BGR", "L")
RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
INTERPOLATIONS = (*RESAMPLING, "none")

_SIZE_KEYS = ("size", "image_size", "input_size")
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
# What a file that is no picture begins with, to say what it is instead.
_OTHER_CONTENT = (
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"%PDF", "a PDF document"),
    (b"<svg", "an SVG drawing"),
    (b"<", "an HTML or XML page"),
    (b"\x93NUMPY", "a NumPy array"),
)
_PICTURE_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the model's input.

    Attributes:
        size: Height and width of the input.
        mean: Subtracted per channel after ``scale``, in the order of the model's channels (of ``color``).
        std: Divided by per channel, in the same order.
        interpolation: One of ``INTERPOLATIONS``; "none" means that pictures already have the size.
        crop_pct: The part of the resized picture that the crop keeps, above 0 and at most 1.
        crop_mode: "center" resizes the shorter side and crops, "squash" resizes both sides to the target
            whatever the aspect ratio, "border" fits the longer side and pads with the mean colour.
        color: Channel order of the input; "L" is one channel of luma.
        scale: Multiplies the 8-bit pixel values.

    Raises:
        PreprocessingError: A field has a value that cannot be used; the message names it.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    crop_mode: str = "center"
    color: str = "RGB"
    scale: float = 1 / 255

    def __post_init__(self) -> None:
        """Check every field and bring lists and whole numbers into the declared types."""

        def put(field: str, value: object) -> None:
            object.__setattr__(self, field, value)

        put("size", _read_size("size", self.size))
        put("interpolation", _choice("interpolation", _first_word(self.interpolation), INTERPOLATIONS))
        put("crop_mode", _choice("crop_mode", self.crop_mode, CROP_MODES))
        put("color", _choice("color", self.color, COLORS))
        for field in ("crop_pct", "scale"):
            put(field, _number(field, getattr(self, field)))
        for field in ("mean", "std"):
            put(field, _per_channel(field, getattr(self, field), self.channels, self.color))
        if not 0 < self.crop_pct <= 1:
            raise _invalid("crop_pct", f"is {self.crop_pct}", "give a number above 0 and at most 1")
        if self.scale <= 0:
            raise _invalid("scale", f"is {self.scale}", "give 1/255 (0.00392...) or 1")
        if any(value <= 0 for value in self.std):
            raise _invalid("std", f"is {list(self.std)}", "every channel is divided by it: give numbers above 0")
        if max(self.mean) > 255 * self.scale:
            raise _invalid(
                "mean",
                f"is {list(self.mean)}, but a scaled pixel is at most {255 * self.scale:g}",
                "give mean and std for pixels in 0..1, or set scale to 1 if they are for pixels in 0..255",
            )
        if self.interpolation == "none" and (self.crop_pct != 1 or self.crop_mode != "center"):
            raise _invalid("interpolation", "is none, but crop_pct or crop_mode asks for a resize", "drop one")

    @property
    def channels(self) -> int:
        """Number of channels of the input."""
        return 1 if self.color == "L" else 3

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> Preprocessing:
        """Read a description spelled our way, as a timm ``pretrained_cfg`` or as a checkpoint's sidecar.

        Args:
            mapping: The field names of this class; ``input_size`` ([channels, height, width]) and
                ``image_size`` ([height, width], or one number) stand for ``size``. Facts that are not
                preprocessing are ignored, but a key that is nearly one of ours is taken for a slip.

        Returns:
            The checked description. Fields that are not given have this class's defaults.

        Raises:
            PreprocessingError: size, mean or std is missing, or a value cannot be used.
        """
        known = [field.name for field in fields(cls)] + list(_SIZE_KEYS[1:])
        for key in mapping:
            close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.85)
            if close and key not in known:
                raise _invalid(str(key), "is not a field of the preprocessing", f"did you mean '{close[0]}'?")
        given = {name: mapping[name] for name in known if mapping.get(name) is not None}
        sizes = {key: _read_size(key, given.pop(key)) for key in _SIZE_KEYS if key in given}
        for field, present in (("size", sizes), ("mean", "mean" in given), ("std", "std" in given)):
            if not present:
                raise _invalid(field, "is missing", "add it: size, mean and std have no safe default")
        if len(set(sizes.values())) > 1:
            raise _invalid(" and ".join(sizes), "do not agree", "keep one of them")
        if "input_size" in sizes and mapping["input_size"][0] == 1:
            given.setdefault("color", "L")
        description = cls(size=next(iter(sizes.values())), **given)
        if "input_size" in sizes and mapping["input_size"][0] != description.channels:
            found = f"has {mapping['input_size'][0]} channels, but color is {description.color}"
            raise _invalid("input_size", found, f"give {description.channels} channels, or another color")
        return description

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values; ``from_dict`` reads them back to an equal description."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


@dataclass(frozen=True)
class Sidecar:
    """What the JSON file beside a checkpoint says about the model.

    Attributes:
        architecture: The zoo name, if given.
        config: The model's config fields; empty if not given.
        preprocessing: How pictures become its input; None if the file says nothing about that.
        classes: Class names in the order of the outputs, if given.
    """

    architecture: str | None
    config: dict[str, Any]
    preprocessing: Preprocessing | None
    classes: tuple[str, ...] | None


def load_sidecar(path: Path) -> Sidecar:
    """Read the JSON file beside a checkpoint, or one named with ``--preprocess``.

    The preprocessing is read from the top level, or from an object "preprocessing" or "pretrained_cfg"
    (timm's config.json). Other facts in the file are ignored.

    Raises:
        PreprocessingError: The file cannot be read, is not a JSON object, or has a value of a wrong type.
    """
    try:
        data = msgspec.json.decode(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except OSError as error:
        raise PreprocessingError(
            f"The file cannot be read: {error.strerror}", where=str(path), fix="check the path"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        fix = "write it as one JSON object, like the example in the documentation"
        raise PreprocessingError(f"The file is not JSON: {error}", where=str(path), fix=fix) from error
    try:
        return _read_sidecar(data)
    except PreprocessingError as error:
        where = f"{path}: {error.where}" if error.where else str(path)
        raise PreprocessingError(error.problem, where=where, fix=error.fix) from error


def _read_sidecar(data: object) -> Sidecar:
    if not isinstance(data, dict):
        raise PreprocessingError("The file holds no JSON object", fix='begin it with {"mean": ...')
    architecture, config, classes = data.get("architecture"), data.get("config"), data.get("classes")
    if not isinstance(architecture, str | None):
        raise _invalid("architecture", f"is {architecture!r}", "give a name")
    if not isinstance(config, dict | None):
        raise _invalid("config", f"is {config!r}", "give an object of field names and values")
    if classes is not None and not (
        isinstance(classes, list) and classes and all(isinstance(name, str) for name in classes)
    ):
        raise _invalid("classes", "is not a list of names", 'give ["first class", "second class", ...]')
    nested = [data[key] for key in ("preprocessing", "pretrained_cfg") if data.get(key) is not None]
    described = nested[0] if nested else data
    if not isinstance(described, dict):
        raise _invalid("preprocessing", f"is {described!r}", "give an object with size, mean and std")
    speaks = bool(nested) or any(key in described for key in (*_SIZE_KEYS, "mean", "std"))
    return Sidecar(
        architecture=architecture,
        config=config or {},
        preprocessing=Preprocessing.from_dict(described) if speaks else None,
        classes=tuple(classes) if classes else None,
    )


def open_image(source: Path | bytes, *, where: str | None = None) -> Image.Image:
    """Decode one picture to 8-bit RGB, upright.

    The size is checked in the header, before anything is decoded. Of an animation the first frame is taken.
    Pillow's settings are not changed; it still warns about pictures above half of ``MAX_PIXELS``.

    Args:
        source: A file, or the bytes of one.
        where: What error messages call the picture; its path if not given.

    Returns:
        A picture of mode "RGB", loaded and independent of the file.

    Raises:
        ImageError: The file is missing, empty, no picture, damaged, too large, or of a kind of pixel that
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
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise _too_large(where, error) from error
        except UnidentifiedImageError as error:
            raise _not_a_picture(where, head) from error
        except Exception as error:
            raise _damaged(where, error) from error
        try:
            image.load()
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise _too_large(where, error) from error
        except Exception as error:
            raise _damaged(where, error) from error
        method = _TRANSPOSITIONS.get(_orientation(image))
        image = _to_rgb(image, where)
    return image if method is None else image.transpose(method)


def to_array(image: Image.Image, preprocessing: Preprocessing, *, where: str | None = None) -> FloatArray:
    """Resize, crop and normalise one picture.

    One departure from timm: for a target that is not square timm's "center" resizes bilinearly whatever the
    interpolation; here the declared interpolation holds.

    Args:
        image: A picture of any mode (8-bit RGB from ``open_image``).
        preprocessing: What to do.
        where: What error messages call the picture.

    Returns:
        float32, shape (channels, height, width), channels in the order of ``preprocessing.color``.

    Raises:
        ImageError: The picture does not have the size and interpolation is "none", or its sides are so
            unequal that the resized picture would not fit into memory.
    """
    image = _to_rgb(image, where)
    if preprocessing.color == "L":
        image = image.convert("L")
    if preprocessing.interpolation != "none":
        image = _fit(image, preprocessing, where)
    elif (image.height, image.width) != preprocessing.size:
        height, width = preprocessing.size
        raise ImageError(
            f"The picture is {image.height}x{image.width} (height x width), the model takes {height}x{width}",
            where=where,
            fix="resize the picture, or give the preprocessing an interpolation such as bicubic",
        )
    pixels = np.asarray(image).reshape(*preprocessing.size, preprocessing.channels)
    if preprocessing.color == "BGR":
        pixels = pixels[:, :, ::-1]
    # Division by 255, not multiplication by 1/255: with it every float32 equals what torch computes.
    array = pixels.astype(np.float32) / np.float32(1 / preprocessing.scale)
    array -= np.asarray(preprocessing.mean, np.float32)
    array /= np.asarray(preprocessing.std, np.float32)
    return np.ascontiguousarray(array.transpose(2, 0, 1))


def preprocess(sources: Sequence[Source], preprocessing: Preprocessing) -> FloatArray:
    """Turn pictures into one batch.

    Args:
        sources: Files, the bytes of files, or Pillow pictures.
        preprocessing: What to do with each.

    Returns:
        float32, shape (len(sources), channels, height, width).

    Raises:
        ImageError: One of the pictures cannot be used; the message says which.
    """
    batch = np.empty((len(sources), preprocessing.channels, *preprocessing.size), np.float32)
    for index, source in enumerate(sources):
        where = str(source) if isinstance(source, Path) else f"picture {index}"
        image = source if isinstance(source, Image.Image) else open_image(source, where=where)
        batch[index] = to_array(image, preprocessing, where=where)
    return batch


def _fit(image: Image.Image, preprocessing: Preprocessing, where: str | None) -> Image.Image:
    """Resize, then crop or pad to the target, with the roundings of timm and torchvision."""
    target = preprocessing.size
    scaled = (math.floor(target[0] / preprocessing.crop_pct), math.floor(target[1] / preprocessing.crop_pct))
    sides = (image.height, image.width)
    if preprocessing.crop_mode == "squash":
        height, width = scaled
    elif preprocessing.crop_mode == "center" and scaled[0] == scaled[1]:
        # torchvision's Resize with one number: the longer side is truncated ...
        height, width = (scaled[0] * side // min(sides) for side in sides)
    else:
        # ... and timm's ResizeKeepRatio rounds, halves to even.
        ratios = (sides[0] / scaled[0], sides[1] / scaled[1])
        ratio = max(ratios) if preprocessing.crop_mode == "border" else min(ratios)
        height, width = (max(1, round(side / ratio)) for side in sides)
    if height * width > MAX_PIXELS:
        raise ImageError(
            f"The picture's sides are too unequal: {sides[0]}x{sides[1]} would become {height}x{width}",
            where=where,
            fix="crop the picture, or use the crop mode squash or border",
        )
    image = image.resize((width, height), RESAMPLING[preprocessing.interpolation])
    top, left = (max(0, round((side - wanted) / 2)) for side, wanted in zip((height, width), target, strict=True))
    image = image.crop((left, top, min(width, left + target[1]), min(height, top + target[0])))
    if (image.height, image.width) == target:
        return image
    fill = [min(255, max(0, round(value * (1 / preprocessing.scale)))) for value in preprocessing.mean]
    if preprocessing.color == "BGR":
        fill.reverse()  # the picture is still RGB
    padded = Image.new(image.mode, (target[1], target[0]), fill[0] if image.mode == "L" else tuple(fill))
    padded.paste(image, ((target[1] - image.width) // 2, (target[0] - image.height) // 2))
    return padded


def _to_rgb(image: Image.Image, where: str | None) -> Image.Image:
    if image.mode == "RGB" and type(image) is Image.Image:
        return image  # anything else, a file plugin's picture too, is copied by convert
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _to_8_bit_grey(image, where)
    elif image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if "transparency" in image.info:
        image = image.copy()
        del image.info["transparency"]  # else Pillow warns that it drops the alpha, which is the intent
    try:
        return image.convert("RGB")
    except (ValueError, OSError) as error:
        raise ImageError(
            f"Pixels of the mode {image.mode} cannot be read as RGB",
            where=where,
            fix="save the picture as RGB",
        ) from error


def _to_8_bit_grey(image: Image.Image, where: str | None) -> Image.Image:
    levels = np.asarray(image)
    low, high = (levels.min(), levels.max()) if levels.size else (0, 0)
    if image.mode == "F" or low < 0 or high > 65535:
        raise ImageError(
            f"Grey values from {low:g} to {high:g} are neither 8 nor 16 bit, so what is white is unknown",
            where=where,
            fix="save the picture with 8 or 16 bits per channel",
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
        raise ImageError(f"This is {found}, where one picture is wanted", where=where, fix="name a picture file")
    with stream:
        yield stream


def _too_large(where: str, error: BaseException) -> ImageError:
    problem = f"The picture is too large to decode safely (more than {MAX_PIXELS:,} pixels): {error}"
    return ImageError(problem, where=where, fix="make it smaller; if it was not meant to be large, distrust it")


def _damaged(where: str, error: BaseException) -> ImageError:
    reason = str(error) or type(error).__name__
    return ImageError(f"The picture is damaged: {reason}", where=where, fix="copy or download it again")


def _not_a_picture(where: str, head: bytes) -> ImageError:
    if head.startswith(_PICTURE_SIGNATURES):
        return _damaged(where, ValueError("its header cannot be read"))
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    other = next((name for start, name in _OTHER_CONTENT if text.startswith(start)), None)
    if head[4:8] == b"ftyp":
        other = "a HEIC, AVIF or video file"
    problem = f"The file is {other}, not a picture" if other else "The file is not a picture"
    return ImageError(problem, where=where, fix=f"use one of {', '.join(FORMATS)}")


def _invalid(field: str, found: str, fix: str) -> PreprocessingError:
    return PreprocessingError(f"The preprocessing is not valid: {field} {found}", where=field, fix=fix)


def _read_size(field: str, value: object) -> tuple[int, int]:
    """Read a size: an int, [height, width] or, as ``input_size``, [channels, height, width]."""
    sides = list(value) if isinstance(value, list | tuple) else [value, value]
    if field == "input_size":
        sides = sides[1:] if len(sides) == 3 else []
    whole = [side for side in sides if isinstance(side, int) and not isinstance(side, bool) and side > 0]
    if len(sides) != 2 or len(whole) != 2 or whole[0] * whole[1] > MAX_PIXELS:
        wanted = "[channels, height, width]" if field == "input_size" else "[height, width]"
        raise _invalid(field, f"is {value!r}", f"give {wanted}, whole numbers of pixels above 0")
    return whole[0], whole[1]


def _first_word(value: object) -> object:
    """Return "none" for "none (already 32x32)": sidecars explain themselves in brackets."""
    return value.split("(")[0].strip().lower() if isinstance(value, str) else value


def _choice(field: str, value: object, choices: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise _invalid(field, f"is {value!r}", f"use one of {', '.join(choices)}")
    return value


def _number(field: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _invalid(field, f"is {value!r}", "give a finite number")
    return float(value)


def _per_channel(field: str, value: object, channels: int, color: str) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or len(value) != channels:
        raise _invalid(field, f"is {value!r}", f"give a list of {channels}, one for each channel of {color}")
    return tuple(_number(field, item) for item in value)
