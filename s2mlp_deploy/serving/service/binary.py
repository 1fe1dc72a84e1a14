"""The binary tensor extension: a JSON header and behind it the bytes of tensors, row-major and little-endian."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.serving.service.failures import RequestError
from s2mlp_deploy.text import whole_number

HEADER_LENGTH = "inference-header-content-length"
"""HTTP header: how many bytes of the body are JSON. Without it the whole body is."""


def split_body(body: bytes, header_length: str | None) -> tuple[memoryview, memoryview]:
    """The JSON of a body, and what lies behind it.

    Args:
        body: Of a request.
        header_length: What the HTTP header says; None where there is none.

    Raises:
        RequestError: It is no length within the body.
    """
    whole = memoryview(body)
    if header_length is None:
        return whole, whole[len(body) :]
    length = whole_number(header_length)
    if length is None or length > len(body):
        raise RequestError(
            "invalid",
            f"Inference-Header-Content-Length is {header_length!r:.100}, and the body has {len(body)} bytes",
            fix="give the length of the JSON part in bytes",
        )
    return whole[:length], whole[length:]


def tensor_of(data: memoryview, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The tensor in these bytes; a view of them where they lie well.

    Raises:
        RequestError: They are not as many as the shape needs.
    """
    # Python's own integers: a product of sizes that somebody chose overflows NumPy's.
    wanted = dtype.itemsize
    for size in shape:
        wanted *= size
    if len(data) != wanted:
        raise RequestError(
            "invalid",
            f"{len(data)} bytes were sent for {dtype} {list(shape)}, which takes {wanted}",
            fix="send the tensor row-major and little-endian",
        )
    if dtype == np.bool_ and np.frombuffer(data, np.uint8).max(initial=0) > 1:
        raise RequestError("invalid", "a BOOL is a byte of 0 or 1, and others were sent", fix="send 0 or 1")
    return np.frombuffer(data, dtype.newbyteorder("<")).reshape(shape).astype(dtype, copy=False)


def bytes_of(array: NDArray[Any]) -> memoryview:
    """A tensor's bytes, row-major and little-endian, copied only where they do not lie so already."""
    plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return plain.reshape(-1).view(np.uint8).data
