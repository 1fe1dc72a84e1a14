"""What the service and its worker processes say to each other: msgpack behind its length, tensors as raw bytes."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.artifact import Manifest, SizeLimit, TensorInfo
from s2mlp_deploy.serving.service.binary import bytes_of

LENGTH = struct.Struct("<Q")
"""In front of every message."""


class Packed(msgspec.Struct, array_like=True):
    """A tensor."""

    dtype: str
    shape: tuple[int, ...]
    data: memoryview

    def array(self) -> NDArray[Any]:
        """The tensor, which cannot be written to."""
        return np.frombuffer(self.data, self.dtype).reshape(self.shape)


def packed(array: NDArray[Any]) -> Packed:
    """A tensor to be sent."""
    return Packed(array.dtype.name, array.shape, bytes_of(array))


class Setup(msgspec.Struct, tag="setup"):
    """The first message to a worker: what it opens.

    ``manifest`` and ``state`` say what must lie there, as :func:`digest_of` and :attr:`Opened.state` tell it; empty:
    whatever does.
    """

    directory: str
    precision: str | None
    engine: str | None
    threads: int | None
    spin: bool | None
    flush_denormals: bool
    allow_unproven: bool
    max_pixels: int
    max_batch: int
    instances: int
    manifest: str = ""
    state: str = ""


def digest_of(manifest: Manifest) -> str:
    """SHA-256 of what a manifest says, the hashes of the files included."""
    return hashlib.sha256(msgspec.json.encode(manifest)).hexdigest()


class Item(msgspec.Struct):
    """One request: tensors and the outputs that are wanted, or an image and how many classes."""

    feeds: dict[str, Packed] | None = None
    outputs: tuple[str, ...] = ()
    image: memoryview | None = None
    top: int = 5


class Batch(msgspec.Struct, tag="batch"):
    """Requests that may share a run."""

    number: int
    items: list[Item]


class Fault(msgspec.Struct):
    """Why a request has no result; ``kind`` as in :mod:`~s2mlp_deploy.serving.service.failures`."""

    kind: str
    problem: str
    fix: str | None = None


class Outcome(msgspec.Struct):
    """The result of one request: outputs, or the best classes with their probabilities, or why there is none."""

    outputs: dict[str, Packed] | None = None
    classes: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    fault: Fault | None = None


class Done(msgspec.Struct, tag="done"):
    """The results of a batch, in its order; seconds for decoding and for running."""

    number: int
    outcomes: list[Outcome]
    prepare: float
    infer: float


class Opened(msgspec.Struct, tag="opened"):
    """A worker is warm: what it serves; ``state`` tells its file, and an engine built of it, from any other."""

    engine: str
    file: str
    precision: str
    reason: str
    notes: tuple[str, ...]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    limits: tuple[SizeLimit, ...]
    max_rows: int
    classifies: str
    seconds: float
    state: str = ""


class Refused(msgspec.Struct, tag="refused"):
    """A worker cannot open it."""

    problem: str
    fix: str | None = None


Question = Setup | Batch
Answer = Opened | Refused | Done

_ENCODER = msgspec.msgpack.Encoder()
QUESTIONS: msgspec.msgpack.Decoder[Question] = msgspec.msgpack.Decoder(Question)
ANSWERS: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def encode(message: Question | Answer) -> bytearray:
    """A message with its length in front."""
    body = bytearray(LENGTH.size)
    _ENCODER.encode_into(message, body, LENGTH.size)
    LENGTH.pack_into(body, 0, len(body) - LENGTH.size)
    return body
