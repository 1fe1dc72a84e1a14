"""An ONNX file that holds what an overlapping copy left of a shift: told, kept, and repaired where that is asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx_sources import written

from s2mlp_deploy import api
from s2mlp_deploy.api.adopting import runtime
from s2mlp_deploy.errors import ExportError, InputError
from s2mlp_deploy.graph.loading import load_graph
from s2mlp_deploy.shift.spec import ShiftGroup

SMEARED = """
    <ir_version: 8, opset_import: ["": 18]>
    net (float[N,5,4,4] x) => (float[N,5,4,4] y)
    <int64[1] zero = {0}, int64[1] one = {1}, int64[1] last = {-1}, int64[1] end = {99}, int64[1] two = {2},
     int64[1] axis = {3}, int64[4] rows = {1, 5, 1, 1}>
    {
      a = Relu(x)
      front = Slice(a, zero, two, axis)
      first = Slice(front, zero, one, one)
      down = Tile(first, rows)
      back = Slice(a, two, end, axis)
      tail = Slice(back, one, end, one)
      still = Slice(back, last, end, one)
      up = Concat <axis = 1> (tail, still)
      moved = Concat <axis = 3> (down, up)
      y = Sigmoid(moved)
    }
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return written(tmp_path / "net.onnx", SMEARED)


def outputs(path: Path, x: np.ndarray) -> np.ndarray:
    return next(iter(runtime(load_graph(path).model)({"x": x}).values()))


def meant(x: np.ndarray) -> np.ndarray:
    a = np.maximum(x, 0)
    y = a.copy()
    y[:, 1:, :, :2] = a[:, :-1, :, :2]
    y[:, :-1, :, 2:] = a[:, 1:, :, 2:]
    return 1 / (1 + np.exp(-y))


def test_it_is_told_and_kept(source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (hazard,) = api.inspect_source(str(source)).hazards
    assert (hazard.kind, hazard.repaired) == ("smear", False)
    assert "2 of 4 channels" in hazard.code
    assert hazard.where
    result = api.export(str(source), tmp_path / "out")
    assert "--repair-smear" in caplog.text
    assert result.manifest.hazards == (hazard,)
    assert "smears where a shift was meant" in result.report.read_text()
    x = np.random.default_rng(0).standard_normal((3, 5, 4, 4)).astype(np.float32)
    assert np.array_equal(outputs(result.file(), x), outputs(source, x))
    (report,) = api.parity(str(source), [result.directory])
    assert report.passed
    assert "repaired" not in report.reference
    with pytest.raises(ExportError, match="1 smear"):
        api.export(str(source), tmp_path / "none", on_hazard="error")


def test_it_is_repaired_where_asked_for(source: Path, tmp_path: Path) -> None:
    result = api.export(str(source), tmp_path / "out", repair_smear=True)
    (hazard,) = result.manifest.hazards
    assert hazard.repaired
    (shift,) = result.manifest.shifts
    assert shift.spec.groups == (ShiftGroup(2, (1,)), ShiftGroup(2, (-1,)))
    x = np.random.default_rng(0).standard_normal((3, 5, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(outputs(result.file(), x), meant(x), rtol=1e-6)
    (report,) = api.parity(str(source), [result.directory])
    assert report.passed
    assert report.reference.endswith("with its smears repaired")
    assert any("itself differs from that by up to" in note for note in report.notes)
    with pytest.raises(InputError, match="layers of files whose smears were repaired"):
        api.layers_against_file(source, [result.directory])


def test_a_wrong_repaired_file_still_fails(source: Path, tmp_path: Path) -> None:
    result = api.export(str(source), tmp_path / "out", repair_smear=True)
    other = written(tmp_path / "other.onnx", SMEARED.replace("y = Sigmoid(moved)", "h = Sigmoid(moved)  y = Relu(h)"))
    (report,) = api.parity(str(other), [result.directory])
    assert report.passed  # Relu of a Sigmoid changes nothing.
    other = written(tmp_path / "other.onnx", SMEARED.replace("y = Sigmoid(moved)", "y = Tanh(moved)"))
    (report,) = api.parity(str(other), [result.directory])
    assert not report.passed


def test_nothing_to_repair_is_refused(source: Path, tmp_path: Path) -> None:
    plain = written(tmp_path / "plain.onnx", SMEARED.replace("Concat <axis = 3> (down, up)", "Identity(a)"))
    with pytest.raises(ExportError, match="no smear was found"):
        api.export(str(plain), tmp_path / "out", repair_smear=True)
    assert not (tmp_path / "out" / "manifest.json").exists()
    with pytest.raises(InputError, match="PyTorch code"):
        api.export("s2mlpv2_nano", tmp_path / "out", repair_smear=True)
