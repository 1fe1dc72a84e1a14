"""One export of the nano for all tests that only read it, and the reference of the shift's own tests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from one_shift import Exported

# shift_reference.py: what a shift means is written once for all rooms.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shift"))


@pytest.fixture(scope="session")
def nano() -> Exported:
    """The smallest network of the zoo with a dynamic batch."""
    from one_shift import Exported, captured, lively

    from s2mlp_deploy.export.canonical import to_canonical
    from s2mlp_deploy.models.registry import create_model

    module = lively(create_model("s2mlpv2_nano"))
    program = captured(module, 2, 3, 32, 32)
    return Exported(module, program, to_canonical(program))
