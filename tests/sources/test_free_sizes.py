"""Files are right at sizes that their example did not have, or refuse them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from s2mlp_deploy import api
from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine
from s2mlp_deploy.errors import ExportError, InputError

FRAMES = 6


class Clips(nn.Module):
    """A shift over time within clips of six frames, between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 32, 1), nn.Conv2d(32, 32, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        v = x.view(x.shape[0] // FRAMES, FRAMES, *x.shape[1:])
        y = torch.zeros_like(v)
        y[:, :-1, :2] = v[:, 1:, :2]
        y[:, 1:, 2:4] = v[:, :-1, 2:4]
        y[:, :, 4:] = v[:, :, 4:]
        return self.last(y.view(x.shape))


@pytest.fixture(scope="module", params=[1, 2], ids=["one clip", "two clips"])
def clips(request, tmp_path_factory) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    module = Clips().eval()
    out = tmp_path_factory.mktemp("clips") / "out"
    source = api.from_module(module, (torch.randn(FRAMES * request.param, 3, 5, 4),))
    api.export(source, out)
    return module, out


def test_clips_of_any_number_are_right(clips):
    module, out = clips
    manifest = api.read_manifest(out)
    assert [shift.spec.axes for shift in manifest.shifts] == [(1,)]
    assert "the batch of x is a multiple of 6" in manifest.notes
    session = onnxruntime.InferenceSession(out / "model.fp32.onnx")
    for count in (6, 12, 18, 42):
        x = torch.randn(count, 3, 5, 4)
        (y,) = session.run(None, {"x": x.numpy()})
        np.testing.assert_allclose(y, module(x).detach().numpy(), atol=1e-5)


def test_what_is_no_whole_clip_is_refused_with_what_is(clips):
    engine = OnnxRuntimeEngine(clips[1] / "model.fp32.onnx")
    with pytest.raises(InputError, match="the batch of x is a multiple of 6, and it was given 8") as raised:
        engine.run({"x": np.zeros((8, 3, 5, 4), np.float32)})
    assert "give 12" in raised.value.fix


def test_parity_and_quantization_take_whole_clips(clips):
    module, out = clips
    source = api.from_module(module, (torch.randn(FRAMES, 3, 5, 4),))
    api.quantize(
        out,
        api.PrecisionOptions(
            precisions=("fp16", "int8"), data=np.random.default_rng(0).normal(size=(40, 3, 5, 4)).astype(np.float32)
        ),
    )
    manifest = api.read_manifest(out)
    assert {limit.multiple for limit in manifest.limits} == {6}
    files = [out / record.path for record in manifest.files if record.precision in ("fp32", "fp16")]
    for report in api.parity(source, files):
        assert report.passed, report.failures
        assert "batch 12" in report.tried
        assert not report.images % FRAMES


class RacingClips(Clips):
    """The same, and a shift along the rows that is written over what it reads."""

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        x[:, :16, 1:] = x[:, :16, :-1]
        return x


def test_one_clip_of_a_module_that_races_is_exported_and_compared(tmp_path):
    torch.manual_seed(0)
    source = api.from_module(RacingClips().eval(), (torch.randn(FRAMES, 3, 5, 4),))
    captured = api.capture(source)
    result = api.export(captured, tmp_path / "out")
    assert [limit.multiple for limit in result.manifest.limits] == [FRAMES]
    assert result.manifest.hazards[0].eager_deviation
    # A clip alone, which torch's guards of a program that was traced with two refuse.
    (report,) = api.parity(captured, [result.file()], samples=FRAMES, batch=FRAMES)
    assert report.passed, report.failures
    assert report.images == FRAMES
    assert report.eager


class ReturnsItsInput(nn.Module):
    """Beside what it makes of six rows and more."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (x * 2 if x.shape[2] >= 6 else x * 3), x


def test_an_input_that_is_returned_keeps_its_name_and_its_limits(tmp_path):
    source = api.from_module(ReturnsItsInput().eval(), (torch.randn(1, 3, 6, 4),))
    result = api.export(source, tmp_path / "out", dynamic=("batch", "height"))
    assert [info.name for info in result.manifest.inputs] == ["x"]
    engine = OnnxRuntimeEngine(result.file())
    found = engine.run({"x": np.ones((2, 3, 7, 4), np.float32)})
    assert [float(value.max()) for value in found.values()] == [2.0, 1.0]
    with pytest.raises(InputError, match="the height of x is at least 6, and it was given 1"):
        engine.run({"x": np.ones((2, 3, 1, 4), np.float32)})


class Growing(nn.Module):
    """A step of a tenth of the height, which is none in the example."""

    def forward(self, x: Tensor) -> Tensor:
        step = x.shape[2] // 10
        y = x.clone()
        y[:, :2, step:] = x[:, :2, : x.shape[2] - step]
        return y


def test_a_step_that_grows_with_the_height_is_no_copy(tmp_path):
    source = api.from_module(Growing(), (torch.randn(1, 4, 7, 5),))
    with pytest.raises(ExportError, match="height cannot be free"):
        api.export(source, tmp_path / "out", dynamic=("batch", "height"))
    api.export(source, tmp_path / "out")
    assert api.read_manifest(tmp_path / "out").inputs[0].shape == ("batch", 4, 7, 5)
