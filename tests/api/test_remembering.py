"""What an export takes from tunings of this machine."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest
from one_shift import one_shift
from onnx_sources import adopted

from s2mlp_deploy import api
from s2mlp_deploy.api import remembering
from s2mlp_deploy.bench.remembered import Found
from s2mlp_deploy.export.forms import FORMS
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.shift.spec import ShiftSpec


@pytest.mark.parametrize(
    ("dtype", "form"), [(ir.DataType.FLOAT, "grouped-conv"), (ir.DataType.UINT8, None)], ids=["float", "integers"]
)
def test_integers_take_no_form_that_was_measured_in_float(
    dtype: ir.DataType, form: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ShiftSpec.equal_groups(4, [(1,), (-1,)], axes=(2,), channel_axis=1)
    path = tmp_path / "net.onnx"
    ir.save(lower_shifts(one_shift((2, 4, 5, 3), spec, dtype=dtype), FORMS["slice-concat"])[0], path)
    monkeypatch.setattr(
        remembering, "_recall", lambda _: Found("fp32", "onnxruntime", "channels-first", "grouped-conv", 0.5)
    )
    assert remembering.remembered_form(api.load(str(path)), adopted(path))[0] == form
