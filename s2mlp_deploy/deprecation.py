"""What will be removed: the table of all deprecations, and the warning that each gives once in a process.

The rule is in docs/contributing/release.md; the tests of this module hold it: a deprecation stands in CHANGELOG.md,
lasts for two minor releases, and is gone when the release comes that it names.
"""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path


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

_PACKAGE = f"{Path(__file__).parent}{os.sep}"


def warn_deprecated(deprecation: Deprecation) -> None:
    """Says once in a process that something is deprecated, at the innermost line that is not of this package.

    Args:
        deprecation: What, of :data:`DEPRECATIONS`.
    """
    if deprecation.name in _told:
        return
    _told.add(deprecation.name)
    # From Python 3.12 on `skip_file_prefixes` does this.
    level, frame = 1, sys._getframe()
    while frame.f_code.co_filename.startswith(_PACKAGE) and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    warnings.warn(deprecation.message, DeprecatedUseWarning, stacklevel=level)
