"""Every ablation of the papers, from ``--set`` to ONNX Runtime: exported in every form, and equal to torch.

The values are the papers' own; depth and width are small where they are not what is varied.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
from one_shift import lively  # noqa: E402

from s2mlp_deploy import api  # noqa: E402
from s2mlp_deploy.export.forms import FORMS  # noqa: E402
from s2mlp_deploy.models.config import DIRECTION_SETS, S2MLPConfig, S2MLPv2Config  # noqa: E402
from s2mlp_deploy.models.registry import configure, get_model  # noqa: E402

LIMIT = 2e-5
"""Of the difference over the peak. Two runtimes that add in different orders stay below; a wrong shift is far above."""

V1 = {"dims": [16], "depths": [1], "patches": [16], "image_size": 64, "classes": 5}
V2 = {"dims": [16, 24], "depths": [1, 1], "patches": [7, 2], "image_size": 56, "classes": 5}

# Directions, norm, depth, width, expansion, input size and patch. The first one is the base itself.
V1_ABLATIONS: list[dict[str, Any]] = [
    *({"directions": letter} for letter in DIRECTION_SETS),
    {"norm": "affine"},
    *({"depths": [depth]} for depth in (2, 4, 8, 16)),
    *({"dims": [width]} for width in (192, 384, 576, 768, 960)),
    *({"expansion": expansion} for expansion in (1, 2, 3, 5)),
    *({"image_size": side} for side in (112, 224, 336)),
    {"patches": [32], "image_size": 224},
]
# Pooling, branches, pyramid; then what users change: bottleneck, sizes, channels, classes.
V2_ABLATIONS: list[dict[str, Any]] = [
    *({"fusion": fusion} for fusion in ("split-attention", "sum")),
    {"branches": ["shift2", "identity"]},
    {"branches": ["shift1", "identity"]},
    {"branches": ["shift1", "shift2"]},
    {"branches": ["identity"]},
    {"dims": [16], "depths": [2], "patches": [14]},
    {"dims": [16, 24, 32], "depths": [1, 1, 1], "patches": [7, 2, 2]},
    *({"attention_ratio": ratio} for ratio in (1, 2)),
    *({"expansion": expansion} for expansion in (1, 4)),
    *({"image_size": size} for size in (112, [28, 70])),
    *({"in_channels": channels} for channels in (1, 4)),
    *({"classes": classes} for classes in (1, 100)),
    *({"border": border} for border in ("edge", "zero", "circular")),
]
ALL = [("s2mlp_wide", V1, changed) for changed in V1_ABLATIONS] + [
    ("s2mlpv2_nano", V2, changed) for changed in V2_ABLATIONS
]
QUICK = [
    ("s2mlp_wide", V1, {"directions": "b", "norm": "affine", "layout": "channels-first"}),
    ("s2mlpv2_nano", V2, {"fusion": "sum", "branches": ["shift2", "identity"]}),
]


def named(cases: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> Any:
    return pytest.mark.parametrize(
        ("name", "base", "changed"), cases, ids=[f"{name}-{changed}" for name, _, changed in cases]
    )


def shifts_of(config: S2MLPConfig | S2MLPv2Config, block: int) -> int:
    """Shifts of one block by the configuration alone."""
    if isinstance(config, S2MLPConfig):
        return block if config.directions != "none" else 0
    return block * len({"shift1", "shift2"} & set(config.branches))


def check(name: str, base: dict[str, Any], changed: dict[str, Any], place: Path) -> None:
    """Exports one configuration in every form and compares all of them with torch."""
    overrides = base | changed
    config = configure(get_model(name).config, overrides)
    source = api.load(name, overrides=overrides)
    lively(source.module)
    captured = api.capture(source)
    for form in FORMS:
        manifest = api.export(captured, place / form, shift_form=form).manifest
        assert len(manifest.shifts) == shifts_of(config, sum(config.depths))
        assert {shift.form for shift in manifest.shifts} <= {form}
        assert manifest.source.config == config.to_dict()
        assert manifest.inputs[0].shape == ("batch", config.in_channels, *config.image_size)
        assert manifest.outputs[0].shape == ("batch", config.classes)
    # Another batch than the one it was captured with.
    reports = api.parity(captured, [place / form / "model.fp32.onnx" for form in FORMS], samples=5, batch=5)
    for report in reports:
        assert report.passed, report.failures
        (output,) = report.outputs
        assert output.metrics.peak > 1e-3, "an output of zeros would agree with anything"
        assert output.metrics.max_rel < LIMIT


@named(QUICK)
def test_ablations_export_and_agree(name: str, base: dict[str, Any], changed: dict[str, Any], tmp_path: Path) -> None:
    check(name, base, changed, tmp_path)


@pytest.mark.slow
@named(ALL)
def test_every_ablation_exports_and_agrees(
    name: str, base: dict[str, Any], changed: dict[str, Any], tmp_path: Path
) -> None:
    check(name, base, changed, tmp_path)


@pytest.mark.slow
@named([case for case in ALL if case[2].get("directions") in ("a", "b") or {"fusion", "branches"} & case[2].keys()])
def test_ablations_of_the_shift_agree_channels_first(
    name: str, base: dict[str, Any], changed: dict[str, Any], tmp_path: Path
) -> None:
    check(name, base, changed | {"layout": "channels-first"}, tmp_path)


def test_another_ablation_does_not_agree(tmp_path: Path) -> None:
    """Up instead of down: the comparison above can fail."""
    sources = [api.load("s2mlp_wide", overrides=V1 | {"directions": letter}) for letter in "gh"]
    for source in sources:
        lively(source.module)
    api.export(sources[0], tmp_path / "up")
    (report,) = api.parity(sources[1], [tmp_path / "up" / "model.fp32.onnx"], samples=4)
    assert not report.passed
    assert report.outputs[0].metrics.max_rel > 100 * LIMIT
