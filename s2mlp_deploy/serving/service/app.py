"""The routes over HTTP: the Open Inference Protocol, images, metrics, and a page for people."""

from __future__ import annotations

import asyncio
import html
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException

from s2mlp_deploy import __version__
from s2mlp_deploy.serving.service import openapi
from s2mlp_deploy.serving.service.batcher import Phases
from s2mlp_deploy.serving.service.binary import HEADER_LENGTH
from s2mlp_deploy.serving.service.core import Service
from s2mlp_deploy.serving.service.failures import RequestError
from s2mlp_deploy.serving.service.http import (
    GONE,
    Body,
    ClientGoneError,
    Context,
    Envelope,
    Token,
    error_body,
    unless_gone,
)
from s2mlp_deploy.serving.service.limits import LARGE
from s2mlp_deploy.serving.service.metrics import CONTENT_TYPE
from s2mlp_deploy.serving.service.protocol import decode_request, encode_response
from s2mlp_deploy.serving.service.repository import card
from s2mlp_deploy.text import whole_number

LOG = logging.getLogger(__name__)

Top = Annotated[int, Query(ge=1, le=1000, description="How many classes.")]

_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_PAGE = Path(__file__).with_name("page.html")


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, "application/json")


def _refusal(error: RequestError) -> Response:
    body, headers = error_body(error)
    return Response(body, error.status, headers, "application/json")


def _begin(request: Request, service: Service, route: str, model: str = "") -> Context:
    context: Context = request.scope["context"]
    context.route = route
    if model and any(slot.name == model for slot in service.repository.slots):
        context.model = model
    return context


def make_app(service: Service, token: Token | None = None) -> Envelope:
    """The application.

    Args:
        service: What it asks.
        token: What clients must send, if anything.
    """
    app = FastAPI(
        title="s2mlp-deploy",
        version=__version__,
        description="The Open Inference Protocol (KServe v2) and image classification.",
        docs_url=None,  # FastAPI's own pages load scripts from elsewhere.
        redoc_url=None,
    )
    _add_failures(app)
    _add_health(app, service)
    _add_models(app, service)
    _add_inference(app, service)
    _add_pages(app, service)
    return Envelope(app, service, token)


def _add_failures(app: FastAPI) -> None:
    @app.exception_handler(RequestError)
    async def refused(_: Request, error: RequestError) -> Response:
        return _refusal(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        what = ".".join(map(str, first["loc"]))
        return _refusal(RequestError("invalid", f"{what}: {first['msg']}", fix="see /docs"))

    @app.exception_handler(HTTPException)
    async def unknown(_: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        return _json({"error": f"{error.detail}; see /docs for what there is"}, error.status_code, headers)

    @app.exception_handler(ClientGoneError)
    async def gone(_: Request, error: ClientGoneError) -> Response:
        del error
        return Response(status_code=GONE)  # For the log: nobody reads it.

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        context: Context = request.scope["context"]
        LOG.error("internal error", exc_info=error, extra={"request_id": context.id})
        return _json({"error": f"internal error, told in the log under the request id {context.id}"}, 500)


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/v2", responses=openapi.responses(openapi.SERVER))
    async def server(request: Request) -> Response:
        """The server's name, version and extensions."""
        _begin(request, service, "metadata")
        return _json(service.server_metadata())

    @app.get("/v2/health/live", responses=openapi.responses(openapi.LIVE))
    async def live(request: Request) -> Response:
        """Whether the server runs: it should be started again if it does not answer."""
        _begin(request, service, "health")
        return _json({"live": True})

    not_ready = openapi.not_ready(openapi.READY)

    @app.get("/v2/health/ready", responses=openapi.responses(openapi.READY) | not_ready)
    async def ready(request: Request) -> Response:
        """Whether every model is warm: requests should be sent here."""
        _begin(request, service, "health")
        if service.ready:
            return _json({"ready": True})
        return _json({"ready": False, "reasons": service.why_not_ready()}, 503, {"Retry-After": "1"})


def _add_models(app: FastAPI, service: Service) -> None:
    known = openapi.responses(openapi.MODEL, 404, 503)

    @app.get("/v2/models/{model}", responses=known)
    async def model_metadata(request: Request, model: str) -> Response:
        """Inputs, outputs and versions of a model."""
        return metadata_of(request, model, None)

    @app.get("/v2/models/{model}/versions/{version}", responses=known)
    async def version_metadata(request: Request, model: str, version: str) -> Response:
        """Inputs and outputs of a version of a model."""
        return metadata_of(request, model, version)

    def metadata_of(request: Request, model: str, version: str | None) -> Response:
        _begin(request, service, "metadata", model)
        return _json(service.model_metadata(model, version))

    told = openapi.responses(openapi.MODEL_READY, 404) | openapi.not_ready(openapi.MODEL_READY)

    @app.get("/v2/models/{model}/ready", responses=told)
    async def model_ready(request: Request, model: str) -> Response:
        """Whether a model answers."""
        return ready_of(request, model, None)

    @app.get("/v2/models/{model}/versions/{version}/ready", responses=told)
    async def version_ready(request: Request, model: str, version: str) -> Response:
        """Whether a version of a model answers."""
        return ready_of(request, model, version)

    def ready_of(request: Request, model: str, version: str | None) -> Response:
        _begin(request, service, "health", model)
        slot = service.repository.slot(model, version)
        if service.model_ready(model, version):
            return _json({"name": slot.name, "ready": True})
        return _json({"name": slot.name, "ready": False, "reason": slot.reason}, 503, {"Retry-After": "1"})


def _add_inference(app: FastAPI, service: Service) -> None:
    failures = (400, 404, 408, 413, 415, 500, 503, 504)
    infers: dict[str, Any] = {
        "responses": openapi.responses(openapi.INFER_RESPONSE, *failures),
        "openapi_extra": openapi.INFER_BODY,
    }
    classifies: dict[str, Any] = {
        "responses": openapi.responses(openapi.CLASSES, *failures),
        "openapi_extra": openapi.IMAGE_BODY,
    }

    @app.post("/v2/models/{model}/infer", **infers)
    async def infer(request: Request, model: str) -> Response:
        """Outputs for tensors, in JSON or as bytes."""
        return await infer_with(request, model, None)

    @app.post("/v2/models/{model}/versions/{version}/infer", **infers)
    async def infer_version(request: Request, model: str, version: str) -> Response:
        """Outputs of a version of a model."""
        return await infer_with(request, model, version)

    @app.post("/v2/models/{model}/classify", **classifies)
    async def classify(request: Request, model: str, top: Top = 5) -> Response:
        """The best classes of an image."""
        return await classify_with(request, model, None, top)

    @app.post("/v2/models/{model}/versions/{version}/classify", **classifies)
    async def classify_version(request: Request, model: str, version: str, top: Top = 5) -> Response:
        """The best classes of an image, by a version of a model."""
        return await classify_with(request, model, version, top)

    def left(context: Context) -> float:
        return max(0.001, service.limits.timeout - (time.monotonic() - context.start))

    def admit(request: Request, route: str, model: str, version: str | None) -> tuple[Context, dict[str, str]]:
        """What can be refused before a body is read is refused then."""
        context = _begin(request, service, route, model)
        service.repository.served(model, version).batcher.check_room()
        return context, request.scope["sent_headers"]

    async def infer_with(request: Request, model: str, version: str | None) -> Response:
        context, headers = admit(request, "infer", model, version)
        with Body(headers, request.receive, service.limits, service.bodies) as sent:
            body = await sent.read()
            received = time.monotonic()
            service.metrics.phase("infer", context.model, "receive", received - context.start)
            length = headers.get(HEADER_LENGTH)
            # Bytes behind a short JSON cost nothing to read.
            slow = len(body) > LARGE and (length is None or (whole_number(length) or 0) > LARGE)
            asked = await asyncio.to_thread(decode_request, body, length) if slow else decode_request(body, length)
            work = service.infer(model, version, asked, left(context))
            served, outputs, phases = await unless_gone(request.receive, work)
        many = sum(array.size for name, array in outputs.items() if not asked.is_binary(name)) > LARGE // 8
        arguments = (served.name, served.version, asked, outputs)
        made, json_length = (
            await asyncio.to_thread(encode_response, *arguments) if many else encode_response(*arguments)
        )
        timing = _timing(context, phases, served.version)
        if json_length is None:
            return Response(made, 200, timing, "application/json")
        return Response(made, 200, timing | {HEADER_LENGTH: str(json_length)}, "application/octet-stream")

    async def classify_with(request: Request, model: str, version: str | None, top: int) -> Response:
        context, headers = admit(request, "classify", model, version)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind.startswith(("multipart/", "text/", "application/json")):
            raise RequestError(
                "unsupported",
                f"the body is {kind!r:.100}",
                fix="send the bytes of an image file: curl --data-binary @image.jpg -H 'Content-Type: image/jpeg'",
            )
        with Body(headers, request.receive, service.limits, service.bodies) as sent:
            body = await sent.read()
            service.metrics.phase("classify", context.model, "receive", time.monotonic() - context.start)
            if not body:
                raise RequestError("invalid", "the body is empty", fix="send the bytes of an image file")
            work = service.classify(model, version, body, top, left(context))
            served, outcome, phases = await unless_gone(request.receive, work)
        found = zip(outcome.classes, outcome.probabilities, strict=True)
        return _json(
            {
                "model_name": served.name,
                "model_version": served.version,
                "classes": [{"name": name, "probability": probability} for name, probability in found],
            },
            headers=_timing(context, phases, served.version),
        )


def _timing(context: Context, phases: Phases, version: str) -> dict[str, str]:
    """The header that browsers show in their network panel; its figures stand in the log too."""
    spent = {name: round(1000 * getattr(phases, name), 3) for name in ("queue", "prepare", "infer")}
    context.extra |= {"model": context.model, "version": version, "batch": phases.rows, "phases_ms": spent}
    return {"Server-Timing": ", ".join(f"{name};dur={value}" for name, value in spent.items())}


def _add_pages(app: FastAPI, service: Service) -> None:
    page = _PAGE.read_text(encoding="utf-8")
    safe = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}

    @app.get("/", include_in_schema=False)
    async def start(request: Request) -> Response:
        _begin(request, service, "page")
        return HTMLResponse(page, headers=safe)

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        _begin(request, service, "page")
        return HTMLResponse(_docs_page(app.openapi()), headers=safe)

    @app.get("/cards", responses=openapi.responses(openapi.CARDS))
    async def cards(request: Request) -> Response:
        """Every version of every model with its card: what is not ready too, and why."""
        _begin(request, service, "page")
        return _json([card(slot) for slot in service.repository.slots])

    @app.get("/metrics", responses=openapi.responses(None, kind="text/plain"))
    async def metrics(request: Request) -> Response:
        """Counters and histograms in Prometheus's format."""
        _begin(request, service, "metrics")
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)


def _docs_page(document: dict[str, Any]) -> str:
    """The OpenAPI document for people, as one page without scripts."""
    rows = []
    for path, methods in document["paths"].items():
        for method, about in methods.items():
            kinds: Sequence[str] = list(about.get("requestBody", {}).get("content", {}))
            told = [f"{status}: {item['description']}" for status, item in about["responses"].items()]
            rows.append(
                f"<tr><td><code>{method.upper()} {html.escape(path)}</code>"
                f"<td>{html.escape(about.get('description', ''))}"
                f"<td>{'<br>'.join(map(html.escape, kinds)) or 'none'}<td>{'<br>'.join(map(html.escape, told))}"
            )
    return (
        "<!DOCTYPE html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        "<title>s2mlp-deploy: routes</title><style>:root{color-scheme:light dark}body{font:1rem/1.5 system-ui;"
        "max-width:75rem;margin:2rem auto;padding:0 1rem}td,th{text-align:left;vertical-align:top;padding:.4rem .8rem "
        ".4rem 0;border-bottom:1px solid}div{overflow-x:auto}</style><h1>Routes</h1>"
        "<p>As a document: <a href=openapi.json>openapi.json</a></p><div><table><tr><th>Route<th>What it does<th>Body"
        f"<th>Statuses{''.join(rows)}</table></div></html>"
    )
