"""The Open Inference Protocol over gRPC: the same answers as over HTTP, on a port of its own."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from s2mlp_deploy.errors import InputError
from s2mlp_deploy.serving.service.binary import bytes_of
from s2mlp_deploy.serving.service.core import Service
from s2mlp_deploy.serving.service.failures import Kind, RequestError, in_one_line
from s2mlp_deploy.serving.service.grpc_messages import CLASSES, METHODS, SERVICE
from s2mlp_deploy.serving.service.http import Token
from s2mlp_deploy.serving.service.limits import LARGE
from s2mlp_deploy.serving.service.protocol import NAMES, Feeds, InferRequest, listed_tensor, raw_tensor

LOG = logging.getLogger("s2mlp_deploy.serving.service.requests")

_CODES: dict[Kind, grpc.StatusCode] = {
    "invalid": grpc.StatusCode.INVALID_ARGUMENT,
    "unauthorized": grpc.StatusCode.UNAUTHENTICATED,
    "unknown": grpc.StatusCode.NOT_FOUND,
    "timeout": grpc.StatusCode.DEADLINE_EXCEEDED,
    "too_large": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "unsupported": grpc.StatusCode.UNIMPLEMENTED,
    "broken": grpc.StatusCode.INTERNAL,
    "busy": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "unavailable": grpc.StatusCode.UNAVAILABLE,
    "late": grpc.StatusCode.DEADLINE_EXCEEDED,
}
_OPEN = ("ServerLive", "ServerReady")
_CONTENTS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
_CALLS = 1024
"""Calls at a time, at least; others are refused before their messages are read."""

_RETRY_AFTER = "retry-after"

Handler = Callable[[Any, Any, int], Awaitable[Any]]


class GrpcServer:
    """The server.

    Args:
        service: What it asks.
        token: What clients must send in the metadata ``authorization``, if anything.
    """

    def __init__(self, service: Service, token: Token | None) -> None:
        self._service, self._token = service, token
        largest = service.limits.max_body
        self._server = aio.server(
            options=[
                ("grpc.max_receive_message_length", largest),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
            ],
            maximum_concurrent_rpcs=max(_CALLS, 2 * service.limits.queue),
        )
        handlers = {name: self._handler(name) for name in METHODS}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    async def start(self, host: str, port: int) -> int:
        """Listens; returns the port.

        Raises:
            InputError: The address cannot be used.
        """
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            bound: int = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise InputError(
                "the address of gRPC cannot be used",
                where=address,
                fix="choose another with --grpc-port, or end whoever listens there",
            ) from error
        await self._server.start()
        return bound

    async def stop(self, seconds: float) -> None:
        """Takes nothing new, and lets what runs end within this time."""
        await self._server.stop(seconds)

    def _handler(self, name: str) -> grpc.RpcMethodHandler:
        work: Handler = getattr(self, f"_{name}")

        read = CLASSES[f"{name}Request"].FromString

        async def answer(message: bytes, context: Any) -> Any:
            start, code, request, held = time.monotonic(), grpc.StatusCode.OK, None, 0
            metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
            ident = metadata.get("x-request-id") or uuid.uuid4().hex
            try:
                if self._token and name not in _OPEN and not self._token.fits(metadata.get("authorization")):
                    raise RequestError(
                        "unauthorized", "the token is missing or wrong", fix="authorization: Bearer TOKEN"
                    )
                size = len(message)
                self._service.bodies.take(size)
                held = size
                try:
                    request = await asyncio.to_thread(read, message) if size > LARGE else read(message)
                except DecodeError as error:
                    raise RequestError(
                        "invalid", f"the message is no {name}Request", fix="use the protocol's definition"
                    ) from error
                ident = metadata.get("x-request-id") or getattr(request, "id", "") or ident
                return await work(request, context, size)
            except RequestError as error:
                code = _CODES[error.kind]
                if error.retry_after is not None:
                    context.set_trailing_metadata(((_RETRY_AFTER, str(error.retry_after)),))
                await context.abort(code, in_one_line(error))
            except asyncio.CancelledError:  # The client hung up, or its deadline passed.
                code = grpc.StatusCode.CANCELLED
                raise
            except Exception as error:
                code = grpc.StatusCode.INTERNAL
                LOG.error("internal error", exc_info=error, extra={"request_id": ident[:128]})
                await context.abort(code, f"internal error, told in the log under the request id {ident[:128]}")
            finally:
                self._service.bodies.give(held)
                self._tell(name, request, code, time.monotonic() - start, ident[:128], metadata)

        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=None,  # By the handler: whoever is refused costs no reading.
            response_serializer=CLASSES[f"{name}Response"].SerializeToString,
        )

    def _tell(
        self, name: str, request: Any, code: grpc.StatusCode, seconds: float, ident: str, metadata: dict[str, str]
    ) -> None:
        model = getattr(request, "model_name", "") or getattr(request, "name", "")
        known = model if any(slot.name == model for slot in self._service.repository.slots) else ""
        self._service.metrics.answered(f"grpc {name}", known, code.value[0], seconds)
        if name in _OPEN or name == "ModelReady":  # Every few seconds for ever.
            return
        extra = {
            "request_id": ident,
            "method": "gRPC",
            "path": f"/{SERVICE}/{name}",
            "status": code.name,
            "milliseconds": round(1000 * seconds, 3),
            "model": known,
        }
        if trace := metadata.get("traceparent"):
            extra["traceparent"] = trace[:128]
        LOG.info("request", extra=extra)

    async def _ServerLive(self, request: Any, context: Any, size: int) -> Any:  # noqa: N802 - As the protocol calls them.
        del request, context, size
        return CLASSES["ServerLiveResponse"](live=True)

    async def _ServerReady(self, request: Any, context: Any, size: int) -> Any:  # noqa: N802
        del request, context, size
        return CLASSES["ServerReadyResponse"](ready=self._service.ready)

    async def _ModelReady(self, request: Any, context: Any, size: int) -> Any:  # noqa: N802
        del context, size
        return CLASSES["ModelReadyResponse"](ready=self._service.model_ready(request.name, request.version))

    async def _ServerMetadata(self, request: Any, context: Any, size: int) -> Any:  # noqa: N802
        del request, context, size
        return CLASSES["ServerMetadataResponse"](**self._service.server_metadata())

    async def _ModelMetadata(self, request: Any, context: Any, size: int) -> Any:  # noqa: N802
        del context, size
        return CLASSES["ModelMetadataResponse"](**self._service.model_metadata(request.name, request.version))

    async def _ModelInfer(self, request: Any, context: Any, size: int) -> Any:  # noqa: N802
        start, timeout = time.monotonic(), self._service.limits.timeout
        if (left := context.time_remaining()) is not None:
            timeout = min(timeout, left)
        # What can be refused before tensors are made is refused then.
        self._service.repository.served(request.model_name, request.model_version).batcher.check_room()
        asked = await asyncio.to_thread(decode, request) if size > LARGE else decode(request)
        timeout = max(0.001, timeout - (time.monotonic() - start))
        served, outputs, _ = await self._service.infer(request.model_name, request.model_version, asked, timeout)
        response = CLASSES["ModelInferResponse"](model_name=served.name, model_version=served.version, id=request.id)
        for name, array in outputs.items():
            response.outputs.add(name=name, datatype=NAMES[array.dtype.name], shape=array.shape)
            response.raw_output_contents.append(bytes(bytes_of(array)))
        return response


def decode(request: Any) -> InferRequest:
    """Reads a request; tensors are raw bytes, all of them, or lists of values.

    Raises:
        RequestError: It is malformed.
    """
    raw: Sequence[bytes] = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise RequestError(
            "invalid",
            f"there are {len(request.inputs)} inputs and {len(raw)} raw contents",
            fix="send all inputs as raw contents, or none",
        )
    feeds: Feeds = {}
    for index, tensor in enumerate(request.inputs):
        if tensor.name in feeds:
            raise RequestError("invalid", f"the input {tensor.name!r} is given twice", fix="give it once")
        if raw:
            if tensor.HasField("contents"):
                raise RequestError(
                    "invalid", f"the input {tensor.name!r} has contents and raw contents", fix="send one of them"
                )
            feeds[tensor.name] = raw_tensor(tensor.name, tensor.datatype, tensor.shape, raw[index])
        else:
            kind = _CONTENTS.get(tensor.datatype)
            if kind is None:
                raise RequestError(
                    "invalid",
                    f"the input {tensor.name!r} has the datatype {tensor.datatype!r}",
                    fix=f"use one of {', '.join(_CONTENTS)}; FP16 as raw contents",
                )
            values = getattr(tensor.contents, kind)
            feeds[tensor.name] = listed_tensor(tensor.name, tensor.datatype, tensor.shape, values)
    return InferRequest(feeds, request.id, tuple(output.name for output in request.outputs) or None)
