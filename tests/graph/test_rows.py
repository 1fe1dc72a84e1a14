"""The sizes of tensors in rows."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from s2mlp_deploy.graph.rows import least_size, rows_of


@pytest.mark.parametrize(
    ("shape", "rows", "least"),
    [
        ((2, 3, 4, 8), 24, 24),
        (("batch", 3, 4, 8), "12*batch", 12),
        (("batch", 3, "width", 8), "3*batch*width", 3),
        ((None, 3, 4, 8), None, 1),
    ],
)
def test_rows(shape: tuple[int | str | None, ...], rows: int | str | None, least: int) -> None:
    found = rows_of(ir.Shape(shape))
    assert (found.value if isinstance(found, ir.SymbolicDim) else found) == rows
    assert least_size(found) == least


def test_a_name_with_a_number_is_no_factor() -> None:
    assert least_size(ir.SymbolicDim("s77")) == least_size(ir.SymbolicDim("batch")) == least_size(None) == 1
