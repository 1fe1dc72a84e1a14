"""Every form in every precision, built for real: what the exporter writes, TensorRT-RTX builds, in that precision.

The table is (network, precision, targets, shape of its images). Nano runs by default, in every form in fp32 and one
in the other precisions; everything else is slow.
"""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nano_artifact
import numpy as np
import pytest

pytest.importorskip("tensorrt_rtx")
pytest.importorskip("torch")
from s2mlp_deploy import api
from s2mlp_deploy.artifact import read_manifest
from s2mlp_deploy.export.forms import FORMS

ALL, FP8 = ("sm86", "sm89", "sm120"), ("sm89", "sm120")


@dataclass(frozen=True)
class Case:
    """A network in a precision."""

    model: str
    precision: str
    targets: tuple[str, ...]
    image: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.model}-{self.precision}"


CASES = [
    Case(model, precision, targets, image)
    for model, image in (("s2mlpv2_nano", (3, 32, 32)), ("s2mlpv2_small_7", (3, 224, 224)))
    for precision, targets in (("fp32", ALL), ("fp16", ALL), ("int8-trt", ALL), ("fp8-trt", FP8))
]
KEPT = tempfile.TemporaryDirectory(prefix="engine-forms-")


def is_quick(case: Case, form: str) -> bool:
    return case.model == "s2mlpv2_nano" and (case.precision == "fp32" or form == "slice-concat")


PARAMETERS = [
    pytest.param(case, form, id=f"{case}-{form}", marks=() if is_quick(case, form) else pytest.mark.slow)
    for case in CASES
    for form in FORMS
]


@functools.cache
def captured(model: str):
    # The digit network is captured once for all tests of a run.
    return nano_artifact.captured() if model == "s2mlpv2_nano" else api.capture(api.load(model))


@functools.cache
def exported(model: str, form: str, image: tuple[int, ...] | None) -> Path:
    """An artifact with every precision, or in float32 alone without the shape of its images."""
    place = Path(KEPT.name) / model / form / ("all" if image else "fp32")
    options = None
    if image:
        samples = list(np.random.default_rng(0).standard_normal((8, *image)).astype(np.float32))
        options = api.PrecisionOptions(precisions=["fp16", "int8", "fp8"], data=samples)
    api.export(captured(model), place, shift_form=form, precision=options)
    return place


def file_of(case: Case, form: str) -> Path:
    image = None if case.precision == "fp32" else case.image
    return exported(case.model, form, image) / f"model.{case.precision}.onnx"


@pytest.mark.parametrize(("case", "form"), PARAMETERS)
def test_it_builds_for_every_target_and_has_its_precision(case, form, tmp_path):
    file = file_of(case, form)
    record = api.build(file, targets=case.targets, output=tmp_path / "model.engine", force=True)
    precision = case.precision.partition("-")[0]
    assert record.targets == case.targets
    assert record.precision == precision
    exempt = {item.layer for item in read_manifest(file.parent).precision_exceptions if item.file == file.name}
    ops = [
        op for op in record.contents.matrix_ops if "/Shift" not in op.name and op.name.rsplit("/", 1)[0] not in exempt
    ]
    assert len(ops) > 30
    assert {op.precision for op in ops} == {precision}
    assert (tmp_path / "model.engine").stat().st_size == record.bytes > 1_000_000
    if precision in ("int8", "fp8"):
        assert record.contents.dtypes[precision] >= len(ops)
        assert "float" not in {op.precision for op in record.contents.matrix_ops}


def test_fp8_for_a_gpu_that_has_none_is_refused(tmp_path):
    from s2mlp_deploy.errors import BuildError

    case = next(case for case in CASES if str(case) == "s2mlpv2_nano-fp8-trt")
    with pytest.raises(BuildError, match="sm86 has no fp8 arithmetic"):
        api.build(file_of(case, "slice-concat"), targets=["sm86"], output=tmp_path / "model.engine")
    assert list(tmp_path.iterdir()) == []
