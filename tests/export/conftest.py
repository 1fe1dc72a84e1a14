"""One export of the nano for all tests that only read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from one_shift import Exported


@pytest.fixture(scope="session")
def nano() -> Exported:
    """The smallest network of the zoo, with fewer blocks and channels and a dynamic batch."""
    from one_shift import Exported, captured, lively

    from s2mlp_deploy.export.canonical import to_canonical
    from s2mlp_deploy.models.registry import create_model

    module = lively(create_model("s2mlpv2_nano", dims=(16, 32), depths=(1, 2)))
    program = captured(module, 2, 3, 32, 32)
    return Exported(module, program, to_canonical(program))
