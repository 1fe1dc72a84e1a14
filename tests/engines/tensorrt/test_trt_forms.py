"""Every form in every precision, built for real: what the exporter writes, TensorRT-RTX builds, and it keeps promises.

The table is (network, precision, targets, shape of its pictures). Nano in fp32 and one form in the other precisions run
by default; everything else is slow.
"""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nano_artifact
import numpy as np
import onnx_graphs as og
import pytest

pytest.importorskip("tensorrt_rtx")
pytest.importorskip("torch")
from s2mlp_deploy import api
from s2mlp_deploy.export.forms import DEFAULT_FORM, FORMS

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
    for precision, targets in (("fp32", ALL), ("fp16", ALL), ("int8", ALL), ("int8-over-fp16", ALL), ("fp8", FP8))
]
KEPT = tempfile.TemporaryDirectory(prefix="engine-forms-")


def is_quick(case: Case, form: str) -> bool:
    if case.model != "s2mlpv2_nano":
        return False
    return case.precision == "fp32" or (form == DEFAULT_FORM and case.precision != "int8")


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
def exported(model: str, form: str) -> Path:
    place = Path(KEPT.name) / model / form
    api.export(captured(model), place, shift_form=form)
    return place / "model.fp32.onnx"


def file_of(case: Case, form: str) -> Path:
    """The ONNX file of a case: ours in fp32, other precisions by converters that are not ours."""
    plain = exported(case.model, form)
    made = plain.parent / "converted" / f"model.{case.precision}.onnx"
    made.parent.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)

    def feeds() -> list[dict[str, np.ndarray]]:
        return [{"input": rng.standard_normal((2, *case.image)).astype(np.float32)}]

    match case.precision:
        case "fp32":
            return plain
        case "fp16":
            return og.to_half(plain, made)
        case "int8-over-fp16":
            return og.to_quantized(og.to_half(plain, made.with_name("half.onnx")), made, feeds)
        case precision:
            return og.to_quantized(plain, made, feeds, precision)


@pytest.mark.parametrize(("case", "form"), PARAMETERS)
def test_it_builds_for_every_target_and_keeps_its_promise(case, form, tmp_path):
    file = file_of(case, form)
    record = api.build(file, targets=case.targets, output=tmp_path / "model.engine", force=True)
    precision = case.precision.partition("-")[0]
    assert record.targets == case.targets
    assert record.precision == precision
    gemms = [gemm for gemm in record.contents.gemms if "/Shift" not in gemm.name]
    assert len(gemms) > 40
    assert {gemm.precision for gemm in gemms} == {precision}
    assert (tmp_path / "model.engine").stat().st_size == record.bytes > 1_000_000
    if precision in ("int8", "fp8"):
        around = "QUANTIZE" in record.contents.types and record.contents.dtypes
        assert around[precision] >= len(gemms)
        assert bool(record.advice) == (case.precision != "int8-over-fp16")


def test_fp8_for_a_gpu_that_has_none_is_refused(tmp_path):
    from s2mlp_deploy.errors import BuildError

    case = next(case for case in CASES if str(case) == "s2mlpv2_nano-fp8")
    with pytest.raises(BuildError, match="sm86 has no fp8 arithmetic"):
        api.build(file_of(case, DEFAULT_FORM), targets=["sm86"], output=tmp_path / "model.engine")
    assert list(tmp_path.iterdir()) == []
