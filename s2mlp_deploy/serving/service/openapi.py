"""What the OpenAPI document says of requests and responses: the schemas of the Open Inference Protocol."""

from __future__ import annotations

from typing import Any

from s2mlp_deploy.serving.service.protocol import DATATYPES

Schema = dict[str, Any]

_NAME = {"type": "string"}
_PARAMETERS = {"type": "object", "additionalProperties": True}
_DATATYPE = {"type": "string", "enum": list(DATATYPES)}
_SHAPE = {"type": "array", "items": {"type": "integer", "minimum": 1}, "maxItems": 16}
_DATA = {"type": "array", "items": {}, "description": "Values, flat (row-major) or nested as the shape."}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> Schema:
    return {"type": "object", "required": list(required), "properties": required | (optional or {})}


ERROR = _object({"error": {"type": "string"}})
LIVE = _object({"live": {"type": "boolean"}})
READY = _object({"ready": {"type": "boolean"}}, {"reasons": {"type": "array", "items": _NAME}})
MODEL_READY = _object({"name": _NAME, "ready": {"type": "boolean"}}, {"reason": _NAME})
SERVER = _object({"name": _NAME, "version": _NAME, "extensions": {"type": "array", "items": _NAME}})
_INFO = _object(
    {"name": _NAME, "datatype": _DATATYPE, "shape": {"type": "array", "items": {"type": "integer", "minimum": -1}}}
)
_INFOS = {"type": "array", "items": _INFO}
MODEL = _object(
    {
        "name": _NAME,
        "versions": {"type": "array", "items": _NAME},
        "platform": _NAME,
        "inputs": _INFOS,
        "outputs": _INFOS,
    }
)
_INPUT = _object({"name": _NAME, "shape": _SHAPE, "datatype": _DATATYPE}, {"parameters": _PARAMETERS, "data": _DATA})
_OUTPUT = _object({"name": _NAME, "shape": _SHAPE, "datatype": _DATATYPE}, {"parameters": _PARAMETERS, "data": _DATA})
INFER_REQUEST = _object(
    {"inputs": {"type": "array", "items": _INPUT, "minItems": 1}},
    {
        "id": _NAME,
        "parameters": _PARAMETERS,
        "outputs": {"type": "array", "items": _object({"name": _NAME}, {"parameters": _PARAMETERS})},
    },
)
INFER_RESPONSE = _object(
    {"model_name": _NAME, "model_version": _NAME, "outputs": {"type": "array", "items": _OUTPUT}}, {"id": _NAME}
)
CLASSES = _object(
    {
        "model_name": _NAME,
        "model_version": _NAME,
        "classes": {
            "type": "array",
            "items": _object({"name": _NAME, "probability": {"type": "number", "minimum": 0, "maximum": 1}}),
        },
    }
)
CARDS = {"type": "array", "items": {"type": "object"}}

_BINARY = {"schema": {"type": "string", "format": "binary"}}
IMAGE_BODY = {
    "requestBody": {
        "required": True,
        "description": "The bytes of an image file.",
        "content": dict.fromkeys(("application/octet-stream", "image/jpeg", "image/png"), _BINARY),
    }
}
INFER_BODY = {
    "requestBody": {
        "required": True,
        "description": "A request; with the header Inference-Header-Content-Length, the bytes of tensors follow it.",
        "content": {"application/json": {"schema": INFER_REQUEST}, "application/octet-stream": _BINARY},
    },
    "parameters": [
        {
            "name": "Inference-Header-Content-Length",
            "in": "header",
            "required": False,
            "description": "Bytes of the body that are JSON, where bytes of tensors follow.",
            "schema": {"type": "integer", "minimum": 0},
        }
    ],
}

_TOLD = {
    400: "The request is wrong.",
    401: "The token is missing or wrong.",
    404: "There is no such model or version.",
    408: "The body came too slowly.",
    413: "The body or the image is too large.",
    415: "The body is of a kind that is not taken.",
    500: "The model's result cannot be told.",
    503: "Too many requests wait, or the model is not ready: try again after Retry-After seconds.",
    504: "There was no result in time.",
}


def responses(schema: Schema | None, *failures: int, kind: str = "application/json") -> dict[int | str, dict[str, Any]]:
    """The responses of a route.

    Args:
        schema: Of its success; None for what is no JSON.
        failures: Statuses that it may have besides.
        kind: Content type of its success.
    """
    made: dict[int | str, dict[str, Any]] = {
        200: {"description": "Done.", "content": {kind: {"schema": schema or {"type": "string"}}}}
    }
    for status in failures:
        made[status] = {"description": _TOLD[status], "content": {"application/json": {"schema": ERROR}}}
    return made


def not_ready(schema: Schema) -> dict[int | str, dict[str, Any]]:
    """The response of a route of readiness, where the answer is no."""
    return {503: {"description": "Not yet.", "content": {"application/json": {"schema": schema}}}}
