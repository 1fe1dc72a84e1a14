"""The examples from the field: what is found in each, and that its file computes what it means."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gallery_case import moved  # noqa: E402
from gallery_flow import run_onnx  # noqa: E402
from torchvision_ops import torchvision_ops  # noqa: E402

from s2mlp_deploy import api  # noqa: E402
from s2mlp_deploy.export.lower import lower_shifts  # noqa: E402
from s2mlp_deploy.graph.axes import named_axes  # noqa: E402

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
UNEXT = {"dims": "[4, 4, 10, 10, 15]", "size": "96"}
VIDEO = {"width": "8", "depth": "3", "size": "16", "classes": "3"}
CYCLE = {"dims": "[12]", "depths": "[1]", "size": "64", "classes": "3"}
VOLUME = {"dim": "13", "depth": "1", "size": "[8, 12, 16]"}
WINDOWS = {"dim": "16", "depths": "[2]", "size": "40"}


@pytest.fixture(scope="module", autouse=True)
def deformable():
    with torchvision_ops():
        yield


@functools.cache
def captured(reference: str, **settings: str) -> api.CapturedSource:
    return api.capture(api.load(f"{EXAMPLES / reference}", overrides=settings))


def code_of(found: api.CapturedSource) -> ModuleType:
    return sys.modules[type(found.source.module).__module__]


def file_computes(found: api.CapturedSource, expected: Any, *inputs: torch.Tensor, atol: float = 2e-5) -> None:
    model, _ = lower_shifts(found.canonical)
    wanted = [expected] if isinstance(expected, torch.Tensor) else list(expected)
    got = run_onnx(model, [x.numpy() for x in inputs])
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_allclose(one, other.detach().numpy(), atol=atol, rtol=1e-4)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def specs(found: api.CapturedSource) -> list[tuple[tuple[int, ...], str]]:
    return [(shift.spec.axes, shift.spec.border) for shift in found.analysis.shifts]


@pytest.mark.slow
def test_the_unets_tokens_move_along_height_and_width(monkeypatch):
    found = captured("unext.py:make", **UNEXT)
    shifts = found.analysis.shifts
    assert len(shifts) == 8
    assert {shift.spec.border for shift in shifts} == {"zero"}
    assert [group.channels for group in shifts[0].spec.groups] == [2] * 5
    assert found.analysis.hazards == ()
    assert {shift.origin.line.partition(":")[0] for shift in shifts} == {"unext.py"}

    def meant(tokens, height, width, axis):
        image = tokens.transpose(1, 2).reshape(len(tokens), -1, height, width).numpy()
        sizes = [len(part) for part in torch.arange(image.shape[1]).chunk(5)]
        groups = [(size, (step, 0) if axis == 2 else (0, step)) for size, step in zip(sizes, range(-2, 3), strict=True)]
        return torch.from_numpy(moved(image, groups, (2, 3), 1, "zero")).flatten(2).transpose(1, 2)

    monkeypatch.setattr(code_of(found), "shift", meant)
    image = noise(3, 3, 96, 96)
    with torch.no_grad():
        file_computes(found, found.source.module(image), image)


@pytest.mark.slow
def test_frames_of_a_clip_move_both_ways_through_many_blocks(monkeypatch):
    """Three blocks: with one, no formula of sizes grows."""
    found = captured("video/temporal_shift.py:make", **VIDEO, frames="4")
    assert specs(found) == [((1,), "zero")] * 3
    assert "the batch of video is a multiple of 4" in found.analysis.notes

    def meant(x, frames, fold):
        clips = x.numpy().reshape(-1, frames, *x.shape[1:])
        groups = [(fold, (-1,)), (fold, (1,)), (x.shape[1] - 2 * fold, (0,))]
        return torch.from_numpy(moved(clips, groups, (1,), 2, "zero").reshape(x.shape))

    monkeypatch.setattr(code_of(found), "shift_clips", meant)
    clips = noise(12, 3, 16, 16)
    with torch.no_grad():
        expected = found.source.module(clips)
    assert expected.shape == (3, 3)
    file_computes(found, expected, clips)


def test_online_buffers_go_in_and_come_out(monkeypatch):
    """Frame by frame it is the offline network that sees no future, whose shift is written in NumPy here."""
    found = captured("video/temporal_shift.py:make_online", **VIDEO)
    assert found.analysis.shifts == ()
    assert found.analysis.captured.input_names == ("frame", "buffers_0", "buffers_1", "buffers_2")
    shapes = [(value.name, list(value.shape)) for value in found.canonical.graph.inputs]
    assert {str(shape[0]) for _, shape in shapes} == {"batch"}
    code = code_of(found)

    def meant(x, frames, fold):
        clips = x.numpy().reshape(-1, frames, *x.shape[1:])
        return torch.from_numpy(
            moved(clips, [(fold, (1,)), (x.shape[1] - fold, (0,))], (1,), 2, "zero").reshape(x.shape)
        )

    monkeypatch.setattr(code, "shift_back", meant)
    whole = code.Causal(5, width=8, depth=3, classes=3).eval()
    whole.load_state_dict(found.source.module.state_dict())
    streams = noise(2, 5, 3, 16, 16)
    with torch.no_grad():
        expected = whole(streams.flatten(0, 1)).view(2, 5, 3).numpy()
    model, _ = lower_shifts(found.canonical)
    state = [np.zeros((2, *shape[1:]), np.float32) for _, shape in shapes[1:]]
    for index in range(5):
        logits, *state = run_onnx(model, [streams[:, index].numpy(), *state])
        np.testing.assert_allclose(logits, expected[:, index], atol=2e-5)


def test_channels_of_a_cycle_read_their_neighbours(monkeypatch):
    found = captured("cycle_mlp.py:make", **CYCLE)
    assert [shift.spec.border for shift in found.analysis.shifts] == ["zero", "zero"]
    assert {shift.origin.idiom for shift in found.analysis.shifts} == {"constant sampling offsets"}
    assert "DeformConv" not in {node.op_type for node in found.canonical.graph}

    def meant(x, offset, weight, bias):
        steps = [tuple(-int(step) for step in pair) for pair in offset[0, :, 0, 0].view(-1, 2)]
        read = moved(x.numpy(), [(1, step) for step in steps], (2, 3), 1, "zero")
        return torch.nn.functional.conv2d(torch.from_numpy(read), weight, bias)

    monkeypatch.setattr(code_of(found), "deform_conv2d", meant)
    image = noise(3, 3, 64, 64)
    with torch.no_grad():
        file_computes(found, found.source.module(image), image)


def test_voxels_move_in_six_directions(monkeypatch):
    found = captured("volume.py:make", **VOLUME)
    (shift,) = found.analysis.shifts
    assert (shift.spec.axes, shift.spec.channel_axis, shift.spec.border) == ((1, 2, 3), 4, "keep")
    assert [group.channels for group in shift.spec.groups] == [2, 2, 2, 2, 2, 3]
    assert found.analysis.hazards == ()
    steps = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
    groups = list(zip([2, 2, 2, 2, 2, 3], steps, strict=True))
    monkeypatch.setattr(
        code_of(found), "shift_volume", lambda x: torch.from_numpy(moved(x.numpy(), groups, (1, 2, 3), 4))
    )
    volume = noise(3, 1, 8, 12, 16)
    with torch.no_grad():
        file_computes(found, found.source.module(volume), volume)


@pytest.mark.slow
def test_windows_are_rolled_and_rolled_back(monkeypatch):
    found = captured("shifted_windows.py:make", **WINDOWS)
    assert [(shift.spec.border, shift.spec.groups[0].offsets) for shift in found.analysis.shifts] == [
        ("circular", (-3, -3)),
        ("circular", (3, 3)),
    ]
    code = code_of(found)

    def partition(x, size):
        rows, columns = range(0, x.shape[1], size), range(0, x.shape[2], size)
        windows = [image[i : i + size, j : j + size] for image in x for i in rows for j in columns]
        return torch.stack(windows)

    def mask(h, w, size, step, like):
        """Together are those that lie in one window and did not come around an edge."""
        came = lambda n: torch.arange(n) >= n - step  # noqa: E731
        around = partition((came(h)[:, None] * 2 + came(w))[None, :, :, None], size).flatten(1)
        return torch.where(around[:, None] == around[:, :, None], 0.0, -100.0)

    monkeypatch.setattr(code, "window_partition", partition)
    monkeypatch.setattr(code, "attention_mask", mask)
    image = noise(*found.source.example_tensors[0].shape)
    with torch.no_grad():
        file_computes(found, found.source.module(image), image)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reference", "settings", "dynamic"),
    [
        ("unext.py:make", UNEXT, ("batch",)),
        ("video/temporal_shift.py:make", {**VIDEO, "depth": "8"}, ("batch",)),
        ("cycle_mlp.py:make", CYCLE, ("batch", "height", "width")),
        ("volume.py:make", VOLUME, ("batch", "depth", "height", "width")),
        ("shifted_windows.py:make", WINDOWS, ("batch",)),
        ("bring_your_own/detector.py:make", {"width": "8"}, ("batch", "height", "width")),
    ],
)
def test_each_is_exported_with_parity(tmp_path, reference, settings, dynamic):
    source = api.load(f"{EXAMPLES / reference}", overrides=settings)
    manifest = api.export(source, tmp_path / "out", dynamic=dynamic).manifest
    if "windows" in reference:  # Its batch is counted by int() of a quotient, which torch takes for a constant.
        assert manifest.inputs[0].shape[0] == 1
        assert any("the batch is fixed" in note for note in manifest.notes)
    else:
        sizes = manifest.inputs[0].shape
        assert all(isinstance(sizes[axis], str) for name, axis in named_axes(len(sizes)).items() if name in dynamic)
    (report,) = api.parity(source, [tmp_path / "out" / "model.fp32.onnx"], samples=4)
    assert report.passed, report.failures


@pytest.mark.slow
def test_the_streaming_loop_equals_the_clips(tmp_path, monkeypatch, capsys):
    for name in ("online", "causal"):
        source = api.load(f"{EXAMPLES / 'video' / 'temporal_shift.py'}:make_{name}", overrides=VIDEO)
        exported = api.export(source, tmp_path / name)
        (report,) = api.parity(source, [exported.file("fp32")], samples=4)
        assert report.passed
    monkeypatch.syspath_prepend(str(EXAMPLES / "video"))
    import stream

    stream.main(str(tmp_path / "online"), str(tmp_path / "causal"))
    assert capsys.readouterr().out.count("8 frames, largest difference") == 2
