"""Makes what other rooms' tests have written once importable here."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
for room in ("shift", "export"):
    # shift_reference.py: what a shift means, cell by cell. one_shift.py: a graph of one shift.
    sys.path.insert(0, str(TESTS / room))
