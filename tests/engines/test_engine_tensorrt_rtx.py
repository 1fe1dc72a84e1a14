"""Real TensorRT-RTX builds, which need no GPU. Each takes seconds, so there are few."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nano_artifact
import pytest

from s2mlp_deploy.errors import ArtifactError, BuildError, InputError, OutputError, S2MLPDeployError, TargetError
from s2mlp_deploy.files import sha256_of

pytest.importorskip("tensorrt_rtx")
from s2mlp_deploy import api
from s2mlp_deploy.engines import tensorrt_rtx


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


@pytest.fixture
def artifact(tmp_path):
    pytest.importorskip("torch")
    return nano_artifact.copy_to(tmp_path / "artifact")


def test_the_digit_network_becomes_an_engine_with_evidence(artifact):
    before = files(artifact)
    record = api.build(artifact / "model.fp32.onnx", targets=["sm89"])
    engine = artifact / "model.fp32.tensorrt-rtx.sm89.engine"
    evidence = "evidence/build-model.fp32.tensorrt-rtx.sm89.json"
    assert files(artifact) - before == {engine.name, evidence}
    assert record.engine == engine.name
    assert record.bytes == engine.stat().st_size > 1_000_000
    assert record.engine_sha256 == sha256_of(engine)
    assert record.onnx_sha256 == sha256_of(artifact / "model.fp32.onnx")
    assert record.targets == ("sm89",)
    profile = record.profiles["input"]
    assert [shape[0] for shape in (profile.minimum, profile.optimum, profile.maximum)] == [1, 8, 32]
    # Strongly typed: nothing was lowered to half precision behind the user's back.
    assert record.layer_dtypes["float"] > 0
    assert set(record.layer_dtypes) <= {"float", "int32", "int64", "bool"}
    saved = json.loads((artifact / evidence).read_text())
    assert saved["engine_sha256"] == record.engine_sha256
    assert engine.name in (artifact / "report.html").read_text()


def test_two_targets_shapes_and_a_place_of_its_own(make_graph, tmp_path):
    graph = make_graph(["batch", 3, "height", 8])
    output = tmp_path / "elsewhere" / "my engine.plan"
    shape = {"input": (4, 3, 16, 8)}
    record = api.build(
        graph, targets=["sm86", "sm89", "sm86"], output=output, max_shapes=shape, min_shapes={"input": (1, 3, 8, 8)}
    )
    assert record.targets == ("sm86", "sm89")
    assert record.profiles["input"].maximum == (4, 3, 16, 8)
    assert record.profiles["input"].minimum == (1, 3, 8, 8)
    assert files(tmp_path) == {graph.name, "elsewhere/my engine.plan"}


@pytest.mark.parametrize("targets", [["sm99"], ["sm89", "ada"], [], ["SM 89"], [""]])
def test_a_target_that_does_not_exist_lists_those_that_do(make_graph, targets):
    with pytest.raises(TargetError) as caught:
        api.build(make_graph(["batch", 3]), targets=targets)
    assert all(target in str(caught.value) for target in tensorrt_rtx.TARGETS)


def test_the_listed_targets_are_those_of_the_library():
    import tensorrt_rtx as library

    known = {name.lower() for name in library.ComputeCapability.__members__ if name.startswith("SM")}
    assert set(tensorrt_rtx.TARGETS) == known


def test_an_engine_that_is_not_built_here_lists_those_that_are(make_graph):
    with pytest.raises(TargetError, match=r"'openvino'[\s\S]*tensorrt-rtx"):
        api.build(make_graph(["batch", 3]), engine="openvino", targets=["sm89"])


def refuse(error: type[S2MLPDeployError], path: Path, **options) -> str:
    """The message of a build that must fail and leave the folder as it was."""
    before = nano_artifact.snapshot(path.parent)
    with pytest.raises(error) as caught:
        api.build(path, targets=["sm89"], **options)
    assert nano_artifact.snapshot(path.parent) == before
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize("content", [b"", b"this is not an ONNX file", bytes(range(256)) * 99])
def test_a_file_that_is_not_onnx_is_named(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert str(path) in refuse(ArtifactError, path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    assert "nothing.onnx" in refuse(ArtifactError, tmp_path / "nothing.onnx")


def test_an_operator_the_parser_refuses_is_named(make_graph):
    text = refuse(BuildError, make_graph(["batch", 3], op="NoSuchOperator", domain="my.domain"))
    assert "the_node" in text or "NoSuchOperator" in text
    assert "graph.onnx" in text


def test_a_foreign_graph_with_a_free_height_needs_shapes_and_names_input_and_axis(make_graph):
    text = refuse(InputError, make_graph(["batch", 3, "height", 8]))
    assert "2 (height)" in text
    assert "--max-shapes input:Nx3xNx8" in text


def test_shapes_out_of_order_are_refused(make_graph):
    low, high = {"input": (8, 3)}, {"input": (4, 3)}
    assert "not in order" in refuse(InputError, make_graph(["batch", 3]), min_shapes=low, max_shapes=high)


def test_a_size_past_the_runtime_is_refused(make_graph):
    refuse(S2MLPDeployError, make_graph(["batch", 3]), max_shapes={"input": (10**25, 3)})


def test_the_graph_is_never_replaced_by_its_engine(make_graph):
    path = make_graph(["batch", 3])
    assert "the graph it is built from" in refuse(OutputError, path, output=path)


def test_an_output_that_cannot_be_written_leaves_nothing(make_graph, tmp_path):
    (tmp_path / "taken").mkdir()
    path = make_graph(["batch", 3])
    assert "a directory" in refuse(OutputError, path, output=tmp_path / "taken")
    assert "graph.onnx" in refuse(OutputError, path, output=path / "below a file.engine")


def test_without_the_package_the_extra_is_named(make_graph):
    path = make_graph(["batch", 3])
    code = (
        "import sys; sys.modules['tensorrt_rtx'] = None; "
        f"sys.argv = ['s2mlp-deploy', 'build', {str(path)!r}, '--target', 'sm89']; "
        "from s2mlp_deploy.cli.main import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": nano_artifact.PACKAGE_ROOT}, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert "s2mlp-deploy[rtx]" in result.stderr
    assert "Traceback" not in result.stderr
    assert files(path.parent) == {path.name}
