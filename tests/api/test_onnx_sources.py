"""ONNX files of anybody's through the library: inspected, exported, compared."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx_sources import DYNAMO, TORCHSCRIPT, written

from s2mlp_deploy import api
from s2mlp_deploy.errors import InputError


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


def test_a_file_in_half_precision_is_taken_as_it_is(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["": 20]> net (float16[N,4] x) => (float16[N,4] y) { y = Relu(x) }"""
    path = written(tmp_path / "half.onnx", text)
    result = api.export(str(path), tmp_path / "out")
    assert [(record.path, record.precision) for record in result.manifest.files] == [("model.fp16.onnx", "fp16")]
    assert api.parity(str(path), [tmp_path / "out"])[0].passed
    with pytest.raises(InputError, match="computes in fp16 already"):
        api.export(str(path), tmp_path / "other", precision=api.PrecisionOptions(precisions=("fp16",)))
    assert not (tmp_path / "other").exists()


def test_sizes_that_the_file_fixes_cannot_be_made_free(tmp_path: Path) -> None:
    path = written(tmp_path / "net.onnx", DYNAMO)
    with pytest.raises(InputError, match="fixes its height"):
        api.export(str(path), tmp_path / "out", dynamic=("batch", "height"))


def test_an_artifact_of_a_file_is_a_source_again(rescued, tmp_path: Path) -> None:
    _, result = rescued
    again = api.export(str(result.file()), tmp_path / "again")
    assert [shift.spec for shift in again.manifest.shifts] == [shift.spec for shift in result.manifest.shifts]


def test_equal_files_give_equal_bytes(rescued, tmp_path: Path) -> None:
    path, result = rescued
    again = api.export(str(path), tmp_path / "again")
    assert again.file().read_bytes() == result.file().read_bytes()


def test_the_line_of_trtexec_in_the_documentation(rescued) -> None:
    _, result = rescued
    file = result.file("fp16")
    found = api.preflight(file, engine="tensorrt", version="10.16", precision="fp16", max_shapes={"x": (8, 6, 5, 4)})
    assert not found.findings
