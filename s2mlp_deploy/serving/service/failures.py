"""Why a request is not answered: what it is told, and the status of HTTP that says it."""

from __future__ import annotations

from typing import Literal, TypeAlias

from s2mlp_deploy.errors import InputError, S2MLPDeployError

Kind: TypeAlias = Literal[
    "invalid", "unauthorized", "unknown", "timeout", "too_large", "unsupported", "broken", "busy", "unavailable", "late"
]

STATUS: dict[Kind, int] = {
    "invalid": 400,
    "unauthorized": 401,
    "unknown": 404,
    "timeout": 408,
    "too_large": 413,
    "unsupported": 415,
    "broken": 500,
    "busy": 503,
    "unavailable": 503,
    "late": 504,
}
"""HTTP's status of each kind: ``busy`` and ``unavailable`` are worth trying again, after ``retry_after`` seconds."""


class RequestError(InputError):
    """A request that gets no result.

    Args:
        kind: What sort of failure it is.
        problem: What is wrong, one sentence.
        fix: What the client can do.
        retry_after: Seconds after which another try makes sense.
    """

    def __init__(self, kind: Kind, problem: str, *, fix: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(problem, fix=fix)
        self.kind = kind
        self.retry_after = retry_after

    @property
    def status(self) -> int:
        """Of HTTP."""
        return STATUS[self.kind]


def in_one_line(error: S2MLPDeployError) -> str:
    """An error for a client: what is wrong and how to mend it, without paths of this machine."""
    return f"{error.problem}; {error.fix}" if error.fix else error.problem
