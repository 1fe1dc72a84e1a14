"""Descriptions and encoded images for tests of preprocessing."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

from s2mlp_deploy.preprocess import Preprocessing

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def plain(size: tuple[int, int], **fields: object) -> Preprocessing:
    """A description that leaves pixel values as they are, so that geometry can be read off the array."""
    channels = 1 if fields.get("color") == "L" else 3
    fields = {"mean": (0,) * channels, "std": (1,) * channels, "scale": 1, **fields}
    return Preprocessing(size, **fields)  # type: ignore[arg-type]


def noise(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def claimed_png(width: int, height: int) -> bytes:
    """A header alone says so large: there are hardly any pixels behind it."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(bytes(1000))) + png_chunk(b"IEND", b"")
