"""The description of a preprocessing, and the JSON it is read from."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from s2mlp_deploy.errors import PreprocessingError
from s2mlp_deploy.files import from_json, read_file
from s2mlp_deploy.text import join_names

MAX_PIXELS = 178_956_970
"""Most pixels an image may have. From this count on Pillow too refuses, with its default settings."""

_MOST_KEYS = 1_000
"""Of an object; timm's have some dozens. Each is compared with every known one."""

_LARGEST = 1e300
"""Of a number; what is not below it is infinite, or no number, or soon would be."""

CROP_MODES = ("center", "squash", "border")
COLORS = ("RGB", "BGR", "L")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming", "none")

_SIZE_KEYS = ("size", "image_size", "input_size")
_SIDECAR_KEYS = ("architecture", "config", "classes", "label_names", "preprocessing", "pretrained_cfg")

_CLOSE = 0.75
"""difflib's likeness from which a key is taken for a slip of a known one: ``class_names`` and ``classes`` have 0.78."""

_SYNONYMS = {
    "arch": "architecture",
    "image_mean": "mean",
    "image_std": "std",
    "id2label": "classes",
    "labels": "classes",
}
"""Other tools' words for ours, which are too far from ours for difflib."""

_OTHER_FACTS = frozenset(
    {
        "num_classes",
        "pool_size",
        "fixed_input_size",
        "min_input_size",
        "test_input_size",
        "test_crop_pct",
        "crop_border_pixels",
    }
)
"""Keys of timm that are like ours and mean something else."""


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the model's input.

    Attributes:
        size: Height and width of the input.
        mean: Subtracted per channel after ``scale``, in the order of the model's channels (of ``color``).
        std: Divided by per channel, in the same order.
        interpolation: One of ``INTERPOLATIONS``; "none" means that images already have the size.
        crop_pct: The part of the resized image that the crop keeps, above 0 and at most 1.
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
        known = _preprocessing_keys()
        _refuse_slips(mapping, known)
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


def mean_colour(description: Preprocessing) -> tuple[int, ...]:
    """The mean as pixels have it, in 8 bits: what stands where an image has no pixels."""
    return tuple(min(255, max(0, round(value * (1 / description.scale)))) for value in description.mean)


@dataclass(frozen=True)
class Sidecar:
    """What the JSON file beside a checkpoint says about the model.

    Attributes:
        architecture: The zoo name, if given.
        config: The model's config fields; empty if not given.
        preprocessing: How images become its input; None if the file says nothing about that.
        classes: Class names in the order of the outputs, if given.
    """

    architecture: str | None
    config: dict[str, Any]
    preprocessing: Preprocessing | None
    classes: tuple[str, ...] | None


def load_sidecar(path: Path) -> Sidecar:
    """Read the JSON file beside a checkpoint, or one named with ``--preprocess``.

    The preprocessing is read from the top level, or from an object "preprocessing" or "pretrained_cfg"
    (timm's config.json). Other facts in the file are ignored, but a key that is nearly one of ours is refused.

    Raises:
        PreprocessingError: The file cannot be read, is not a JSON object, or has a value of a wrong type.
    """
    try:
        data = from_json(read_file(path, "description").removeprefix(b"\xef\xbb\xbf"))
    except OSError as error:
        raise PreprocessingError(
            f"The file cannot be read: {error.strerror or error}", where=str(path), fix="check the path"
        ) from error
    except ValueError as error:
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
    architecture, config = data.get("architecture"), data.get("config")
    # timm's config.json calls them label_names.
    classes = data.get("classes", data.get("label_names"))
    if not isinstance(architecture, str | None):
        raise _invalid("architecture", f"is {architecture!r}", "give a name")
    if not isinstance(config, dict | None):
        raise _invalid("config", f"is {config!r}", "give an object of field names and values")
    if classes is not None and not (
        isinstance(classes, list) and classes and all(isinstance(name, str) for name in classes)
    ):
        raise _invalid("classes", "is not a list of names", 'give ["first class", "second class", ...]')
    _refuse_slips(data, (*_SIDECAR_KEYS, *_preprocessing_keys()))
    nested = [data[key] for key in ("preprocessing", "pretrained_cfg") if data.get(key) is not None]
    described = nested[0] if nested else data
    if not isinstance(described, dict):
        raise _invalid("preprocessing", f"is {described!r}", "give an object with size, mean and std")
    if data.get("preprocessing") is not None:
        # Nothing else belongs into an object of this name; a checkpoint's description and timm's hold other facts too.
        _refuse_slips(described, _preprocessing_keys(), only_known=True)
    speaks = bool(nested) or any(key in described for key in (*_SIZE_KEYS, "mean", "std"))
    return Sidecar(
        architecture=architecture,
        config=config or {},
        preprocessing=Preprocessing.from_dict(described) if speaks else None,
        classes=tuple(classes) if classes else None,
    )


def _preprocessing_keys() -> list[str]:
    return [field.name for field in fields(Preprocessing)] + list(_SIZE_KEYS[1:])


def _refuse_slips(mapping: Mapping[str, Any], known: Sequence[str], *, only_known: bool = False) -> None:
    """Refuses keys that are meant to be known ones: read over, they would silently change what the model sees.

    Args:
        mapping: What was written.
        known: The keys that are read.
        only_known: Whether a key that is near none is refused too.

    Raises:
        PreprocessingError: Names the key and the nearest known one.
    """
    if len(mapping) > _MOST_KEYS:
        raise _invalid("it", f"has {len(mapping):,} keys", "describe one model")
    for key in map(str, mapping):
        if key in known or key in _OTHER_FACTS:
            continue
        synonym = [_SYNONYMS[key]] if _SYNONYMS.get(key) in known else []
        close = synonym or difflib.get_close_matches(key.lower(), known, n=1, cutoff=_CLOSE)
        if close or only_known:
            fix = f"did you mean '{close[0]}'?" if close else f"known are {join_names(known, limit=None)}"
            raise _invalid(key, "is no key that is read here", fix)


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
    # Compared before it is made a float: JSON has whole numbers that are too large for one.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
        raise _invalid(field, f"is {value!r}", "give a finite number")
    return float(value)


def _per_channel(field: str, value: object, channels: int, color: str) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or len(value) != channels:
        raise _invalid(field, f"is {value!r}", f"give a list of {channels}, one for each channel of {color}")
    return tuple(_number(field, item) for item in value)
