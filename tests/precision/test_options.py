"""What can be refused about precision options is refused before any work, by a message that names the option."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from image_files import put

from s2mlp_deploy.errors import DataError, InputError, OutputError, S2MLPDeployError
from s2mlp_deploy.precision.limits import FileLimits, Limits
from s2mlp_deploy.precision.options import PrecisionOptions


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    put(tmp_path / "images", *(f"{index}.png" for index in range(8)))
    return tmp_path / "images"


def test_what_can_be_used_passes(folder: Path, tmp_path: Path) -> None:
    int8 = PrecisionOptions(precisions=("int8",), data=folder)
    int8.check()
    replace(int8, eval_data=str(folder), max_drop=0.0, exclude=("mlp",), exclude_ops=("Conv",)).check()
    replace(int8, reduce_range=True, half_io=True, cache=tmp_path / "cache.npz").check()
    PrecisionOptions(precisions=("fp16",)).check()
    PrecisionOptions(precisions=("fp16",), min_cosine=0.9).check()
    PrecisionOptions(precisions=("fp16",), data=folder, max_drop=1.0).check()
    PrecisionOptions(precisions=("fp32",)).check()
    replace(int8, data=(array for array in np.zeros((9, 3, 4, 4), np.float32))).check()


@pytest.mark.parametrize(
    ("changes", "error", "problem"),
    [
        ({"precisions": ("int4",)}, InputError, "int4"),
        ({"method": "average"}, InputError, "average"),
        ({"max_drop": 101.0}, InputError, "--max-drop is 101"),
        ({"max_drop": float("nan")}, InputError, "--max-drop is nan"),
        ({"samples": 0}, InputError, "--samples is 0"),
        ({"eval_samples": 0}, InputError, "--eval-samples is 0"),
        ({"samples": 7}, InputError, "--samples is 7"),
        ({"eval_samples": 7}, InputError, "--eval-samples is 7"),
        ({"exclude": ("mlp(",)}, InputError, "no regular expression"),
        ({"data": None}, DataError, "need data"),
        ({"cache": f"{__file__}/cache.npz"}, OutputError, "cache.npz cannot be written below"),
        ({"precisions": ("fp32",)}, InputError, "--calibration-data is given"),
        ({"precisions": ("fp16",), "data": None, "max_drop": 1.0}, InputError, "--max-drop is given"),
        ({"precisions": ("fp16",), "data": None, "min_top1": 1.0}, InputError, "--min-top1 is given"),
        ({"precisions": ("fp32",), "data": None, "min_cosine": 0.9}, InputError, "--min-cosine is given"),
        ({"precisions": ("fp16",), "data": None, "metric": len}, InputError, "--metric is given"),
        ({"precisions": ("fp16",), "data": None, "score_output": "a"}, InputError, "--score-output is given"),
        ({"precisions": ("fp32",), "data": None, "limits": Limits()}, InputError, "--limits is given"),
        (
            {"precisions": ("fp16",), "data": None, "limits": Limits(FileLimits(min_top1=1.0))},
            InputError,
            "--limits is given",
        ),
        ({"min_cosine": 1.5}, InputError, "--min-cosine is 1.5"),
        ({"min_top1": -1.0}, InputError, "--min-top1 is -1"),
        ({"min_top1": 50.0, "metric": len}, InputError, "no top-1 score"),
        ({"limits": Limits(named={"int8": FileLimits(min_top1=1.0)}), "metric": len}, InputError, "no top-1 score"),
        ({"precisions": ("fp16",), "data": None, "eval_data": "."}, InputError, "--eval-data is given"),
        ({"precisions": ("fp16",), "data": None, "cache": "c.npz"}, InputError, "--calibration-cache is given"),
        ({"precisions": ("fp32",), "data": None, "exclude": ("a",)}, InputError, "--exclude is given"),
        ({"precisions": ("fp32",), "data": None, "exclude_ops": ("Conv",)}, InputError, "--exclude-op is given"),
        ({"exclude_ops": ("Softmax",)}, InputError, "--exclude-op Softmax excludes nothing: .* Conv, Gemm and MatMul"),
        ({"precisions": ("fp8",), "reduce_range": True}, InputError, "--reduce-range is given"),
        ({"precisions": ("fp32",), "data": None, "half_io": True}, InputError, "--half-io is given"),
    ],
)
def test_each_option_is_refused_before_any_work(
    folder: Path, changes: dict[str, object], error: type[S2MLPDeployError], problem: str
) -> None:
    with pytest.raises(error, match=problem) as caught:
        replace(PrecisionOptions(data=folder), **changes).check()  # type: ignore[arg-type]
    assert caught.value.fix
