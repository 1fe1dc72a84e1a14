"""The Open Inference Protocol's documents: types of elements, requests and responses, and what a model takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.artifact import SizeLimit, TensorInfo, check_sizes
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.serving.service.binary import bytes_of, split_body, tensor_of
from s2mlp_deploy.serving.service.failures import RequestError
from s2mlp_deploy.text import join_names

Feeds = dict[str, NDArray[Any]]

DATATYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
"""The protocol's names of element types, and NumPy's. Text (BYTES) is no input or output of the models here."""

NAMES = {numpy: name for name, numpy in DATATYPES.items()}

EXTENSIONS = ("binary_tensor_data",)

_MAX_RANK = 16


def _numbers() -> msgspec.json.Decoder[list[Any]]:
    """Of a tensor's data: numbers, and lists of them as deep as tensors are.

    NumPy makes an array of texts as wide as the longest of them: one of a megabyte among a thousand takes gigabytes.
    """
    kind: Any = bool | int | float
    for _ in range(_MAX_RANK):
        kind = bool | int | float | list[kind]
    return msgspec.json.Decoder(list[kind])


_NUMBERS = _numbers()
_NOTHING = msgspec.Raw()


class Tensor(msgspec.Struct):
    """An input of a request."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)
    data: msgspec.Raw = _NOTHING

    @property
    def has_data(self) -> bool:
        """Whether its values stand in the JSON."""
        return bytes(memoryview(self.data)[:5]) not in (b"", b"null")


class RequestedOutput(msgspec.Struct):
    """An output that a request asks for."""

    name: str
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)


class InferDocument(msgspec.Struct):
    """A request's JSON."""

    inputs: list[Tensor]
    id: str = ""
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)
    outputs: list[RequestedOutput] | None = None


@dataclass(frozen=True)
class InferRequest:
    """A request, whatever way it came.

    Attributes:
        feeds: Arrays by input name, with the batch axis.
        id: What the client calls it.
        outputs: Names of the outputs that are wanted, in order; None for all.
        binary: Which of them as bytes behind the JSON; None for those that are not named otherwise.
        binary_default: Whether outputs go as bytes that say nothing of it themselves.
    """

    feeds: Feeds
    id: str = ""
    outputs: tuple[str, ...] | None = None
    binary: Mapping[str, bool] = field(default_factory=dict)
    binary_default: bool = False

    def is_binary(self, output: str) -> bool:
        """Whether an output goes as bytes."""
        return self.binary.get(output, self.binary_default)


_DECODER = msgspec.json.Decoder(InferDocument)


def decode_request(body: bytes, header_length: str | None) -> InferRequest:
    """Reads a request of HTTP.

    Args:
        body: JSON, and behind it the bytes of binary tensors.
        header_length: The header ``Inference-Header-Content-Length``.

    Raises:
        RequestError: It is malformed; says where.
    """
    head, rest = split_body(body, header_length)
    try:
        document = _DECODER.decode(head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(
            "invalid", f"the request is no inference request: {error}", fix="see /docs for its fields"
        ) from error
    feeds: Feeds = {}
    for tensor in document.inputs:
        if tensor.name in feeds:
            raise RequestError("invalid", f"the input {tensor.name!r} is given twice", fix="give it once")
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            feeds[tensor.name] = _from_json(tensor)
            continue
        if tensor.has_data or type(size) is not int or not 0 <= size <= len(rest):
            raise RequestError(
                "invalid",
                f"the input {tensor.name!r} has binary_data_size {size!r}, and {len(rest)} bytes are left behind the "
                "JSON" + (" and data in the JSON too" if tensor.has_data else ""),
                fix="send either data or so many bytes, inputs in the order of the JSON",
            )
        dtype, shape = _kind_of(tensor.name, tensor.datatype, tensor.shape)
        feeds[tensor.name] = _named(tensor.name, rest[:size], dtype, shape)
        rest = rest[size:]
    if len(rest):
        raise RequestError(
            "invalid",
            f"{len(rest)} bytes behind the JSON belong to no input",
            fix="give each binary input its binary_data_size, and the header Inference-Header-Content-Length",
        )
    wanted = document.outputs or None
    for output in wanted or ():
        if output.parameters.get("classification"):
            raise RequestError(
                "unsupported", "the classification extension is not offered", fix="POST the image to .../classify"
            )
    return InferRequest(
        feeds,
        document.id,
        None if wanted is None else tuple(output.name for output in wanted),
        {o.name: o.parameters["binary_data"] is True for o in wanted or () if "binary_data" in o.parameters},
        document.parameters.get("binary_data_output") is True,
    )


def _kind_of(name: str, datatype: str, shape: Sequence[int]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """The types that an input states."""
    if datatype not in DATATYPES:
        raise RequestError(
            "invalid",
            f"the input {name!r} has the datatype {datatype!r}",
            fix=f"use one of {', '.join(DATATYPES)}",
        )
    if len(shape) > _MAX_RANK or any(size < 1 for size in shape):
        raise RequestError(
            "invalid", f"the input {name!r} has the shape {list(shape)[:_MAX_RANK]}", fix="sizes are at least 1"
        )
    return np.dtype(DATATYPES[datatype]), tuple(shape)


def _named(name: str, data: memoryview, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        return tensor_of(data, dtype, shape)
    except RequestError as error:
        raise RequestError(error.kind, f"the input {name!r}: {error.problem}", fix=error.fix) from error


def raw_tensor(name: str, datatype: str, shape: Sequence[int], data: bytes) -> NDArray[Any]:
    """An input whose bytes came on their own.

    Raises:
        RequestError: They do not fit its type and shape.
    """
    dtype, sizes = _kind_of(name, datatype, shape)
    return _named(name, memoryview(data), dtype, sizes)


def listed_tensor(name: str, datatype: str, shape: Sequence[int], values: Sequence[Any]) -> NDArray[Any]:
    """An input whose values came as a flat list.

    Raises:
        RequestError: They do not fit its type and shape.
    """
    dtype, sizes = _kind_of(name, datatype, shape)
    if len(values) != _product(sizes):  # Before anything is made of them.
        raise RequestError(
            "invalid",
            f"the input {name!r} has {len(values)} values and states {list(sizes)}",
            fix="give as many values as the shape has",
        )
    return _array(name, datatype, list(values), dtype, sizes)


def _from_json(tensor: Tensor) -> NDArray[Any]:
    """The array of an input whose values stand in the JSON, flat or nested as its shape."""
    dtype, shape = _kind_of(tensor.name, tensor.datatype, tensor.shape)
    if not tensor.has_data:
        raise RequestError(
            "invalid", f"the input {tensor.name!r} has no data", fix="give data, or parameters.binary_data_size"
        )
    try:
        values: list[Any] | None = _NUMBERS.decode(tensor.data)
    except (msgspec.DecodeError, RecursionError):
        values = None
    return _array(tensor.name, tensor.datatype, values, dtype, shape)


def _array(
    name: str, datatype: str, values: list[Any] | None, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> NDArray[Any]:
    """An input of these numbers; None where they were something else."""
    try:
        found = np.empty(0, object) if values is None else np.asarray(values)
    except (ValueError, OverflowError):
        found = np.empty(0, object)
    if dtype == np.uint64 and found.dtype.kind == "f":
        # What NumPy makes of integers of which some are above int64's.
        exact = np.asarray(values, object)
        if all(type(value) is int and 0 <= value < 2**64 for value in exact.flat):
            found = exact.astype(np.uint64)
    allowed = {"f": "fiu", "b": "b"}.get(dtype.kind, "iu")
    if found.dtype.kind not in allowed:
        raise RequestError(
            "invalid",
            f"the input {name!r} has data that is not all {datatype}",
            fix=f"give a list of {'true and false' if dtype.kind == 'b' else 'numbers'}, flat or nested as the shape",
        )
    if found.shape != shape and (found.ndim != 1 or found.size != _product(shape)):
        raise RequestError(
            "invalid",
            f"the input {name!r} has data of the shape {list(found.shape)} and states {list(shape)}",
            fix="give as many values as the shape has, flat or nested as it",
        )
    with np.errstate(over="ignore"):
        made = found.astype(dtype).reshape(shape)
    # What does not fit would wrap round, or become infinite.
    fits = np.isfinite(made).all() if dtype.kind == "f" else dtype.kind == "b" or (made == found.reshape(shape)).all()
    if not fits:
        raise RequestError(
            "invalid",
            f"the input {name!r} has a value outside of {datatype}",
            fix="give values within its range",
        )
    return np.asarray(made, order="C")


def _product(shape: Iterable[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def check_feeds(inputs: Sequence[TensorInfo], limits: Sequence[SizeLimit], feeds: Feeds) -> None:
    """Refuses what is not exactly what a model takes.

    Args:
        inputs: Of the model.
        limits: What its free sizes may be.
        feeds: By input name.

    Raises:
        RequestError: Names, types, shapes or values are not the model's.
    """
    names = [info.name for info in inputs]
    if set(feeds) != set(names):
        raise RequestError(
            "invalid",
            f"the request has the inputs {join_names(map(repr, feeds)) or 'none'}",
            fix=f"give {join_names(map(repr, names))}",
        )
    free: dict[str, int] = {}
    for info in inputs:
        array = feeds[info.name]
        if array.dtype.name != info.dtype:
            raise RequestError(
                "invalid",
                f"the input {info.name!r} is {NAMES[array.dtype.name]}",
                fix=f"the model takes {NAMES[info.dtype]}",
            )
        fits = len(array.shape) == len(info.shape)
        for wanted, size in zip(info.shape, array.shape, strict=False):
            # An axis with a name has one size, wherever it stands; "?" is one without.
            fits = fits and size == (wanted if isinstance(wanted, int) else free.setdefault(wanted, size))
            free.pop("?", None)
        if not fits:
            raise RequestError(
                "invalid",
                f"the input {info.name!r} has the shape {list(array.shape)}",
                fix=f"the model takes {[*info.shape]}",
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise RequestError(
                "invalid", f"the input {info.name!r} has NaN or infinite values", fix="leave such samples out"
            )
    try:
        check_sizes(limits, {name: array.shape for name, array in feeds.items()})
    except InputError as error:
        raise RequestError("invalid", error.problem, fix=error.fix) from error


def check_outputs(outputs: Sequence[TensorInfo], wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The outputs that a request gets.

    Raises:
        RequestError: The model has none of that name.
    """
    names = [info.name for info in outputs]
    for name in wanted or ():
        if name not in names:
            raise RequestError("invalid", f"the model has no output {name!r}", fix=f"ask for {join_names(names)}")
    return tuple(dict.fromkeys(wanted or names))


def tensor_metadata(info: TensorInfo) -> dict[str, Any]:
    """An input or output in a model's metadata; free sizes are -1."""
    shape = [size if isinstance(size, int) else -1 for size in info.shape]
    return {"name": info.name, "datatype": NAMES[info.dtype], "shape": shape}


def encode_response(
    model: str, version: str, request: InferRequest, outputs: Mapping[str, NDArray[Any]]
) -> tuple[bytes, int | None]:
    """A response of HTTP.

    Returns:
        The body, and the length of its JSON where bytes of tensors follow it.

    Raises:
        RequestError: An output has a value that JSON cannot hold.
    """
    tensors, blobs = [], []
    for name, array in outputs.items():
        tensor: dict[str, Any] = {"name": name, "datatype": NAMES[array.dtype.name], "shape": array.shape}
        if request.is_binary(name):
            blobs.append(bytes_of(array))
            tensor["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise RequestError(
                    "broken",
                    f"the output {name!r} has NaN or infinite values, which JSON cannot hold",
                    fix='ask for it as bytes ("binary_data": true); compare the file with its source (parity)',
                )
            # As float64, whose shortest digits read back as the same float32 or float16.
            tensor["data"] = array.reshape(-1).tolist()
        tensors.append(tensor)
    document: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": tensors}
    if request.id:
        document["id"] = request.id
    head = msgspec.json.encode(document)
    return (b"".join((head, *blobs)), len(head)) if blobs else (head, None)
