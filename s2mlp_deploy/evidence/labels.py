"""Names of documents of which an artifact has several: readable, stable, and different where the question differs."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import PurePath

_NAME_OF_DATA = re.compile(r"^(?:raw pixels of )?[\d,]+ \w+ of (?P<name>.+)$", re.DOTALL)
_DIGITS, _MOST_OF_A_NAME = 8, 60


def saved_path(file: str) -> PurePath:
    """A path that a record keeps, which may be of another machine: with backslashes, of Windows."""
    return PurePath(file.replace("\\", "/"))


def name_of_data(described: str) -> str:
    """What data is called: ``photos`` of ``64 images of photos``."""
    named = _NAME_OF_DATA.match(described)
    return named["name"] if named else described


def label_of(*names: str, asked: object) -> str:
    """``model.int8-photos-1f0c9a2e``.

    Args:
        names: What a reader looks for; anything but letters, digits, points and underscores becomes a hyphen.
        asked: Everything that the measurement was of, as JSON holds it: the same gives the same label.
    """
    digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:_DIGITS]
    plain = (re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")[:_MOST_OF_A_NAME] or "data" for name in names)
    return "-".join([*plain, digest])
