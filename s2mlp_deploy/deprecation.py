"""What will be removed: the table of all deprecations, and the warning that each gives once in a process.

The rule is in docs/contributing/release.md; the tests of this module hold it: a deprecation stands in CHANGELOG.md,
lasts for two minor releases, and is gone when the release comes that it names.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass


class DeprecatedUseWarning(FutureWarning):
    """Something is used that a later release will not have. Python shows it to users, unlike DeprecationWarning."""


@dataclass(frozen=True)
class Deprecation:
    """Something that will be removed.

    Attributes:
        name: What it is, in the user's words: an option, a name of the API, a version of a schema.
        since: The release that deprecated it.
        removal: The release that will not have it.
        instead: What to do in its place.
    """

    name: str
    since: str
    removal: str
    instead: str

    @property
    def message(self) -> str:
        """The warning."""
        return f"{self.name}: deprecated since {self.since} and gone in {self.removal}; {self.instead}"


MANIFEST_1 = Deprecation(
    "manifests of schema version 1",
    since="0.1.0",
    removal="0.3.0",
    instead="export the artifact again",
)

DEPRECATIONS = (MANIFEST_1,)

_told: set[str] = set()


def warn_deprecated(deprecation: Deprecation, *, stacklevel: int = 1) -> None:
    """Says once in a process that something is deprecated.

    Args:
        deprecation: What, of :data:`DEPRECATIONS`.
        stacklevel: 1 for a warning at the line that calls this function's caller, more for lines further out.
    """
    if deprecation.name not in _told:
        _told.add(deprecation.name)
        warnings.warn(deprecation.message, DeprecatedUseWarning, stacklevel=stacklevel + 2)
