"""What TensorRT-RTX is not asked to build, or refuses, is said in words and leaves nothing."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import nano_artifact
import onnx_graphs as og
import pytest

from s2mlp_deploy.errors import (
    ArtifactError,
    BuildError,
    CheckFailedError,
    InputError,
    OutputError,
    S2MLPDeployError,
    TargetError,
)

pytest.importorskip("tensorrt_rtx")
pytest.importorskip("onnx_ir")
import tensorrt_rtx as trt

from s2mlp_deploy import api
from s2mlp_deploy.engines import cuda
from s2mlp_deploy.engines.tensorrt import builder, plan
from s2mlp_deploy.engines.tensorrt.flavours import flavour
from s2mlp_deploy.engines.tensorrt.options import BuildOptions
from s2mlp_deploy.gpu import gpus


def refuse(error: type[S2MLPDeployError], path: Path, **options) -> str:
    """The message of a build that must fail and leave the folder as it was."""
    before = nano_artifact.snapshot(path.parent)
    with pytest.raises(error) as caught:
        api.build(path, **{"targets": ["sm89"]} | options)
    assert nano_artifact.snapshot(path.parent) == before
    return str(caught.value)


@pytest.mark.parametrize("content", [b"", b"this is not an ONNX file", bytes(range(256)) * 99])
def test_a_file_that_is_not_onnx_is_named(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert str(path) in refuse(ArtifactError, path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    assert "nothing.onnx" in refuse(ArtifactError, tmp_path / "nothing.onnx")


@pytest.mark.parametrize(("opset", "ir"), [(99, 10), (20, 99)])
def test_an_opset_or_ir_version_of_the_future_is_named(tmp_path, opset, ir):
    made = og.model(
        [og.node("Relu", ["x"], ["y"])],
        [og.value("x", og.FLOAT, [1])],
        [og.value("y", og.FLOAT, [1])],
        opset=opset,
        ir=ir,
    )
    text = refuse(ArtifactError, og.save(made, tmp_path / "new.onnx"))
    assert "99" in text
    assert "--opset" in text


def test_an_operator_the_parser_refuses_is_named(make_graph):
    text = refuse(BuildError, make_graph([1, 3], op="NoSuchOperator", domain="my.domain"))
    assert "the_node" in text
    assert "NoSuchOperator" in text
    assert "graph.onnx" in text


def test_what_only_the_parser_notices_is_told_in_its_words(tmp_path, monkeypatch):
    made = og.model(
        [og.node("ReduceSum", ["x", "axes"], ["y"], "the_sum")],
        [og.value("x", og.FLOAT, [2, 4]), og.value("axes", og.INT64, [1])],
        [og.value("y", og.FLOAT, [None, None])],
    )
    monkeypatch.setattr(plan, "find", lambda *_: ())
    text = refuse(BuildError, og.save(made, tmp_path / "graph.onnx"))
    assert "the_sum: " in text
    assert "build-time constant" in text


def test_a_foreign_graph_with_a_dynamic_input_needs_shapes_and_names_it(make_graph):
    text = refuse(InputError, make_graph(["batch", 3, "height", 8]))
    assert "0 (batch), 2 (height) of the input input" in text
    assert "--max-shapes input:Nx3xNx8" in text
    assert "axis 0 (batch) of the input input" in refuse(InputError, make_graph(["batch", 3]))


def test_shapes_out_of_order_are_refused(make_graph):
    low, high = {"input": (8, 3)}, {"input": (4, 3)}
    assert "not in order" in refuse(InputError, make_graph(["batch", 3]), min_shapes=low, max_shapes=high)


def test_a_size_past_the_runtime_is_refused(make_graph):
    refuse(S2MLPDeployError, make_graph(["batch", 3]), max_shapes={"input": (10**25, 3)})


def test_the_graph_is_never_replaced_by_its_engine(graph):
    assert "model.fp32.onnx is no file that a build has made" in refuse(OutputError, graph, output=graph)


def test_an_output_that_cannot_be_written_leaves_nothing(graph, tmp_path):
    (tmp_path / "taken").mkdir()
    assert "a directory" in refuse(OutputError, graph, output=tmp_path / "taken")
    assert graph.name in refuse(OutputError, graph, output=graph / "below a file.engine")


def test_a_network_of_another_precision_writes_no_engine(tmp_path):
    path = og.save(og.perceptron(metadata={"precision": "fp16"}), tmp_path / "model.fp16.onnx")
    text = refuse(CheckFailedError, path)
    assert "fc1/MatMul: fp32" in text


def no_object(*_):
    """What the bindings do where the library returns none."""
    raise TypeError("pybind11::init(): factory function returned nullptr")


def test_a_builder_that_cannot_start_is_told(graph, monkeypatch):
    monkeypatch.setattr(trt, "Builder", no_object)
    text = refuse(BuildError, graph)
    assert "TensorRT-RTX cannot start" in text
    assert "doctor" in text


def test_a_runtime_that_cannot_start_costs_the_inspection_alone(graph, monkeypatch, caplog):
    here = cuda.Device(0, "NVIDIA L4", "sm89", "GPU-1")
    monkeypatch.setattr(builder, "gpus", lambda: (here,))
    monkeypatch.setattr(cuda, "use_device", lambda _: here)
    monkeypatch.setattr(trt, "Runtime", no_object)
    assert api.build(graph, targets=["sm89"]).engine_contents is None
    assert "the engine was not inspected: TensorRT-RTX cannot start" in caplog.text


def test_a_target_that_is_not_the_gpu_at_hand_is_refused_with_what_builds_for_others(monkeypatch):
    monkeypatch.setattr(cuda, "use_device", lambda _: cuda.Device(0, "NVIDIA A100", "sm80", "GPU-1"))
    options = BuildOptions(hardware_compatible="ampere+")
    with pytest.raises(TargetError, match="leave --target out"):
        plan._gpu_here(flavour("tensorrt"), ("sm89",), options)
    assert plan._gpu_here(flavour("tensorrt"), (), options).capability == "sm80"


@pytest.mark.skipif(bool(gpus()), reason="this machine has a GPU")
@pytest.mark.parametrize("option", ["refit", "strip_plan"])
def test_options_that_need_a_gpu_say_so(graph, option):
    assert "GPU" in refuse(TargetError, graph, options=BuildOptions(**{option: True}))


def test_without_the_package_the_extra_is_named(graph):
    code = (
        "import sys; sys.modules['tensorrt_rtx'] = None; "
        f"sys.argv = ['s2mlp-deploy', 'build', {str(graph)!r}, '--target', 'sm89']; "
        "from s2mlp_deploy.cli.main import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": nano_artifact.PACKAGE_ROOT}, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert "s2mlp-deploy[rtx]" in result.stderr
    assert "Traceback" not in result.stderr
    assert nano_artifact.snapshot(graph.parent).keys() == {graph.name}


def test_a_version_of_the_library_nobody_knows_is_refused(graph, monkeypatch):
    monkeypatch.setattr(trt, "__version__", "2.0.0.1")
    assert "TensorRT-RTX 2.0.0.1 is not known" in refuse(TargetError, graph)


def test_a_target_that_the_installed_version_has_not_is_refused(graph, monkeypatch):
    monkeypatch.setattr(trt, "__version__", "1.4.0.76")
    said = refuse(TargetError, graph, targets=["sm121"])
    assert "TensorRT-RTX 1.4.0.76 has no target 'sm121'" in said


def test_a_disk_that_fills_up_during_serialization_leaves_nothing(graph):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        assert "File too large" in refuse(OutputError, graph)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
