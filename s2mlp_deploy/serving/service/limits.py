"""Bodies of requests within their bounds."""

from __future__ import annotations

import zlib

from s2mlp_deploy.serving.service.failures import RequestError

LARGE = 65_536
"""Bytes from which a body is read and written in a thread: JSON of that size takes milliseconds."""


class BodyBudget:
    """The bytes of bodies that are held, all requests together.

    Args:
        limit: How many.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    def take(self, size: int) -> None:
        """Counts bytes that came.

        Raises:
            RequestError: There are too many already.
        """
        if self.held + size > self._limit:
            raise RequestError(
                "busy", "the requests that are being read fill the memory set aside for them", retry_after=1
            )
        self.held += size

    def give(self, size: int) -> None:
        """Counts bytes that are gone."""
        self.held -= size


def too_large(limit: int) -> RequestError:
    """The refusal of a body."""
    return RequestError(
        "too_large", f"the body has more than {limit:,} bytes", fix="send less, or start the service with --max-body"
    )


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """A body whose Content-Encoding is ``gzip`` or ``deflate``; no more of it than the limit is ever made.

    Raises:
        RequestError: It is damaged, too large, or in another encoding.
    """
    if encoding not in ("gzip", "deflate"):
        raise RequestError("unsupported", f"the body's encoding is {encoding!r}", fix="use gzip, deflate or none")
    decoder = zlib.decompressobj(zlib.MAX_WBITS | 32)  # By its header: gzip or zlib.
    try:
        found = decoder.decompress(body, limit + 1)
    except zlib.error as error:
        raise RequestError("invalid", f"the body is no {encoding}: {error}", fix="send it whole") from error
    if len(found) > limit or decoder.unconsumed_tail:
        raise too_large(limit)
    if not decoder.eof or decoder.unused_data:
        raise RequestError("invalid", f"the body is no whole {encoding}", fix="send it whole")
    return found
