"""ONNX files of anybody's through the library: inspected, exported, compared."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
from onnx_sources import DYNAMO, TORCHSCRIPT, written

from s2mlp_deploy import api
from s2mlp_deploy.errors import ArtifactError, InputError


@pytest.fixture(scope="module")
def rescued(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, api.ExportResult]:
    folder = tmp_path_factory.mktemp("rescued")
    path = written(folder / "vendor.onnx", TORCHSCRIPT)
    return path, api.export(str(path), folder / "out", precision=api.PrecisionOptions(precisions=("fp16",)))


def test_a_file_becomes_an_artifact_like_any_other(rescued) -> None:
    path, result = rescued
    manifest = result.manifest
    assert (manifest.name, manifest.source.reference, manifest.source.checkpoint) == ("vendor", path.name, path.name)
    assert [record.precision for record in manifest.files] == ["fp32", "fp16"]
    assert len(manifest.shifts) == 1
    assert manifest.inputs[0].shape == ("N", 6, 5, 4)
    assert any("opset 17" in note for note in manifest.notes)


def test_parity_is_with_the_file_as_it_is(rescued) -> None:
    path, result = rescued
    single, half = api.parity(str(path), [result.directory])
    assert single.passed
    assert half.passed
    assert single.outputs[0].metrics.max_abs == 0.0
    with pytest.raises(InputError, match="an ONNX file is compared with as it is") as raised:
        api.parity(api.load(str(path)), [result.directory])
    assert raised.value.fix == "name the file by its path"


def test_another_file_fails_parity(rescued, tmp_path: Path) -> None:
    _, result = rescued
    other = written(tmp_path / "other.onnx", DYNAMO.replace("int64[1] two = {2}", "int64[1] two = {3}"))
    report, *_ = api.parity(str(other), [result.file()])
    assert not report.passed


def test_inspect_finds_what_the_file_does_not_say(rescued) -> None:
    path, result = rescued
    found = api.inspect_graph(path).found
    assert found is not None
    assert len(found.shifts) == 1
    assert found.shifts[0].form
    # A file of this package says what it holds.
    assert api.inspect_graph(result.file()).found is None


def test_inspect_says_why_it_has_not_looked_for_shifts(rescued, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s2mlp_deploy.sources.onnx_file.MOST_NODES", 1)
    inspection = api.inspect_graph(rescued[0])
    assert inspection.found is None
    assert "at most 1 are looked through" in inspection.not_searched


HEAD = """<ir_version: 8, opset_import: ["": 17]> net (float[N,4] x) => (float[N,3] y)
    <float s = {0.05}, uint8 middle = {128}, int8 none1 = {0}, int8 none2 = {0},
     int8[4,2] w1 = {1, -20, 30, 40, -5, 6, 70, -80}, int8[2,3] w2 = {9, 8, -7, 60, 50, -40}>"""
TAKEN = {
    "Q/DQ": (
        HEAD
        + """{
            q = QuantizeLinear(x, s, middle) d = DequantizeLinear(q, s, middle)
            e = DequantizeLinear(w1, s, none1) a = MatMul(d, e)
            b = QuantizeLinear(a, s, middle) c = DequantizeLinear(b, s, middle)
            f = DequantizeLinear(w2, s, none2) y = MatMul(c, f) }""",
        "int8",
        "quantizes symmetrically",
    ),
    "QOperator": (
        HEAD
        + """{
            q = QuantizeLinear(x, s, middle)
            a = QLinearMatMul(q, s, middle, w1, s, none1, s, middle)
            b = QLinearMatMul(a, s, middle, w2, s, none2, s, middle)
            y = DequantizeLinear(b, s, middle) }""",
        "int8",
        "QLinearMatMul",
    ),
    "dynamic": (
        HEAD
        + """{
            q, t, z = DynamicQuantizeLinear(x)
            a = MatMulInteger(q, w1, z, none1) b = Cast <to = 1> (a) c = Mul(b, t)
            r, u, v = DynamicQuantizeLinear(c)
            d = MatMulInteger(r, w2, v, none2) e = Cast <to = 1> (d) y = Mul(e, u) }""",
        "int8",
        "MatMulInteger",
    ),
    "float16": (
        """<ir_version: 8, opset_import: ["": 17]> net (float[N,4] x) => (float16[N,2] y)
            <float16[4,2] w = {1, 2, 3, 4, 5, 6, 7, 8}> { a = Cast <to = 10> (x) y = MatMul(a, w) }""",
        "fp16",
        "",
    ),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_a_file_in_another_precision_is_taken_as_it_is(kind, tmp_path: Path) -> None:
    text, precision, finding = TAKEN[kind]
    path, out = written(tmp_path / "net.onnx", text), tmp_path / "out"
    result = api.export(str(path), out)
    assert [(record.path, record.precision) for record in result.manifest.files] == [
        (f"model.{precision}.onnx", precision)
    ]
    (report,) = api.parity(str(path), [out])
    assert report.passed
    assert report.precision == precision
    assert report.outputs[0].metrics.max_abs == 0.0
    # Of the artifact its only file is built, and what a builder of TensorRT takes of it is said.
    problems = [found.problem for found in api.preflight(out, engine="tensorrt", version="10.16").findings]
    assert any(finding in problem for problem in problems) if finding else not problems
    half = api.PrecisionOptions(precisions=("fp16",), data="images")
    said = f"computes in {precision}.* made from float32"
    with pytest.raises(InputError, match=said):
        api.export(str(path), tmp_path / "other", precision=api.PrecisionOptions(precisions=("fp16",)))
    with pytest.raises(ArtifactError, match=said):
        api.quantize(out, half)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("kind", ["Q/DQ", "QOperator"])
def test_a_quantized_file_loads_where_weights_become_uint8(kind, tmp_path: Path) -> None:
    result = api.export(str(written(tmp_path / "net.onnx", TAKEN[kind][0])), tmp_path / "out")
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # As engines do on processors without VNNI.
    onnxruntime.InferenceSession(result.file("int8"), options)


def test_sizes_that_the_file_fixes_cannot_be_made_free(tmp_path: Path) -> None:
    path = written(tmp_path / "net.onnx", DYNAMO)
    with pytest.raises(InputError, match="fixes its height"):
        api.export(str(path), tmp_path / "out", dynamic=("batch", "height"))
    for step in (api.analyze, api.capture):
        with pytest.raises(InputError, match="fixes its width"):
            step(api.load(str(path)), dynamic=("batch", "width"))


def test_an_artifact_of_a_file_is_a_source_again(rescued, tmp_path: Path) -> None:
    _, result = rescued
    again = api.export(str(result.file()), tmp_path / "again")
    assert [shift.spec for shift in again.manifest.shifts] == [shift.spec for shift in result.manifest.shifts]


def test_equal_files_give_equal_bytes(rescued, tmp_path: Path) -> None:
    path, result = rescued
    again = api.export(str(path), tmp_path / "again")
    assert again.file().read_bytes() == result.file().read_bytes()
