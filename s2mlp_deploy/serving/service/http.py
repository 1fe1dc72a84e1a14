"""Around every HTTP request: who asks, under which id, how long it may take, and what is written of it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from s2mlp_deploy.serving.service.core import Service
from s2mlp_deploy.serving.service.failures import RequestError, in_one_line
from s2mlp_deploy.serving.service.limits import BodyBudget, decompress, too_large
from s2mlp_deploy.serving.service.options import ServiceLimits

LOG = logging.getLogger("s2mlp_deploy.serving.service.requests")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
A = TypeVar("A")

OPEN = frozenset({"/", "/v2/health/live", "/v2/health/ready"})
"""Paths that need no token: what a load balancer asks, and the page, which holds nothing of the models itself."""

_ID = re.compile(r"[\x21-\x7e]{1,128}")
_TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
GONE = 499
"""Status that stands in the log for a client that did not wait."""


class ClientGoneError(Exception):
    """The client hung up."""


@dataclass
class Context:
    """What is known of a request while it is answered.

    Attributes:
        id: Of the request.
        start: When it began to come.
        route: Which kind of request it is, for the counters.
        model: The served name; empty while it is not known to be one.
        extra: What its line in the log says besides.
    """

    id: str
    start: float = field(default_factory=time.monotonic)
    route: str = "other"
    model: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


class Token:
    """The bearer token.

    Args:
        secret: What clients must send.
    """

    def __init__(self, secret: str) -> None:
        self._hash = hashlib.sha256(secret.encode()).digest()

    def fits(self, header: str | None) -> bool:
        """Whether an Authorization header has it, in a time that does not tell how much of it was right."""
        scheme, _, sent = (header or "").partition(" ")
        # Of equal lengths, whatever was sent.
        found = hashlib.sha256(sent.strip().encode("utf-8", "surrogateescape")).digest()
        return hmac.compare_digest(found, self._hash) and scheme.lower() == "bearer"


class Envelope:
    """An ASGI application around the routes: ids, token, counters, log.

    Args:
        app: The routes.
        service: What they ask.
        token: What clients must send, if anything.
    """

    def __init__(self, app: App, service: Service, token: Token | None) -> None:
        self._app, self._service, self._token = app, service, token

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        sent = headers.get("x-request-id", "")
        context = Context(sent if _ID.fullmatch(sent) else uuid.uuid4().hex)
        scope["context"], scope["sent_headers"] = context, headers
        status = GONE

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [(b"x-request-id", context.id.encode())]
                # The caller's trace goes on: whoever stands in front reads it here.
                own += [
                    (n.encode(), headers[n].encode("latin-1")) for n in ("traceparent", "tracestate") if n in headers
                ]
                if self._service.draining:
                    own.append((b"connection", b"close"))
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        try:
            if self._token and scope["path"] not in OPEN and not self._token.fits(headers.get("authorization")):
                error = RequestError("unauthorized", "the token is missing or wrong", fix="Authorization: Bearer TOKEN")
                await send_error(answer, error)
            else:
                await self._app(scope, receive, answer)
        finally:
            self._tell(scope, context, status, headers)

    def _tell(self, scope: MutableMapping[str, Any], context: Context, status: int, headers: dict[str, str]) -> None:
        seconds = time.monotonic() - context.start
        self._service.metrics.answered(context.route, context.model, status, seconds)
        if context.route == "health" and status < 400:  # Every few seconds for ever.
            return
        extra = {
            "request_id": context.id,
            "method": scope["method"],
            "path": scope["path"][:500],
            "status": status,
            "milliseconds": round(1000 * seconds, 3),
            "client": (scope.get("client") or ("",))[0],
            **context.extra,
        }
        if trace := _TRACE.fullmatch(headers.get("traceparent", "")):
            extra |= {"trace_id": trace[1], "parent_id": trace[2]}
        LOG.info("request", extra=extra)


async def send_error(send: Send, error: RequestError) -> None:
    """Sends a refusal without any framework."""
    body, headers = error_body(error)
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    raw += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def error_body(error: RequestError) -> tuple[bytes, dict[str, str]]:
    """The protocol's document of an error, and the headers that go with it."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.kind == "unauthorized":
        headers["WWW-Authenticate"] = "Bearer"
    return msgspec.json.encode({"error": in_one_line(error)}), headers


class Body:
    """A request's body, within the bounds; its bytes count until the ``with`` ends.

    Args:
        headers: Of the request.
        receive: ASGI's.
        limits: The bounds.
        budget: What all bodies together may take.
    """

    def __init__(self, headers: dict[str, str], receive: Receive, limits: ServiceLimits, budget: BodyBudget) -> None:
        self._headers, self._receive, self._limits, self._budget = headers, receive, limits, budget
        self._taken = 0

    def __enter__(self) -> Body:
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.give(self._taken)

    async def read(self) -> bytes:
        """All of it.

        Raises:
            RequestError: It is too large, too slow, or its encoding is not known.
            ClientGoneError: It did not come whole.
        """
        limit = self._limits.max_body
        length = self._headers.get("content-length", "")
        if length.isascii() and length.isdigit() and (len(length) > 18 or int(length) > limit):
            raise too_large(limit)
        try:
            async with asyncio.timeout(self._limits.body_timeout):
                body = await self._whole(limit)
        except TimeoutError:
            raise RequestError(
                "timeout", f"the body did not come within {self._limits.body_timeout:g} seconds", fix="send it faster"
            ) from None
        encoding = self._headers.get("content-encoding", "").strip().lower()
        if encoding in ("", "identity"):
            return body
        made = await asyncio.to_thread(decompress, body, encoding, limit)
        self._take(len(made))
        return made

    async def _whole(self, limit: int) -> bytes:
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            part = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise too_large(limit)
            self._take(len(part))
            parts.append(part)
            more = message.get("more_body", False)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _take(self, size: int) -> None:
        self._budget.take(size)
        self._taken += size


async def unless_gone(receive: Receive, work: Awaitable[A]) -> A:
    """Waits for a result as long as the client does; the work is cancelled when it hangs up.

    Args:
        receive: ASGI's, when the body was read.
        work: What is done for the client.

    Raises:
        ClientGoneError: It hung up.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_hangs_up(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        for future in (task, gone):
            future.cancel()


async def _hangs_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
