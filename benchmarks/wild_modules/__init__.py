"""Modules from the families of networks that move data, written without a look at the recogniser: a held-out test.

Each is code as people publish it, in a small size, with what is true of it beside it: how many grouped shifts it has,
which other sizes it takes, and, where its writes race, a module that computes what it means.
"""

from __future__ import annotations

from wild_modules import images, movements, sizes, tokens, video, windows
from wild_modules.registry import CASES, WildCase

__all__ = ["CASES", "WildCase", "images", "movements", "sizes", "tokens", "video", "windows"]
