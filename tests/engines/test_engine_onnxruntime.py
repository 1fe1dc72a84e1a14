"""ONNX Runtime as an engine: what it says when something does not fit."""

from __future__ import annotations

import os
import subprocess
import sys

import nano_artifact
import numpy as np
import onnx_graphs as og
import pytest

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.errors import BuildError, InputError, TargetError

ort = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
from s2mlp_deploy import api  # noqa: E402
from s2mlp_deploy.engines import onnxruntime as module  # noqa: E402
from s2mlp_deploy.engines import optimized  # noqa: E402
from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine, check_provider, status  # noqa: E402
from s2mlp_deploy.processor import Processor  # noqa: E402

ONE = np.ones((2, 3), np.float32)


def test_it_computes_and_tells_names_types_and_shapes(make_graph):
    engine = OnnxRuntimeEngine(make_graph(["batch", 3]), threads=1)
    assert engine.inputs == (TensorInfo("input", "float32", ("batch", 3)),)
    assert engine.outputs == (TensorInfo("output", "float32", ("batch", 3)),)
    assert engine.name == "onnxruntime (CPU)"
    result = engine.run({"input": np.array([[-1, 0, 2]], np.float32)})
    assert list(result) == ["output"]
    np.testing.assert_array_equal(result["output"], [[0, 0, 2]])


def test_a_file_and_its_bytes_are_the_same_model(make_graph):
    path = make_graph(["batch", 3])
    engines = [OnnxRuntimeEngine(model, threads=1) for model in (path, path.read_bytes())]
    assert engines[0].inputs == engines[1].inputs
    np.testing.assert_array_equal(*(engine.run({"input": -ONE})["output"] for engine in engines))


def test_metadata_of_the_file_is_read(make_graph):
    assert OnnxRuntimeEngine(make_graph([1, 3])).metadata["who"] == "a test"


def test_an_axis_without_a_name_is_still_dynamic(make_graph):
    assert OnnxRuntimeEngine(make_graph([None, 3])).inputs[0].shape == ("?", 3)


@pytest.mark.parametrize("provider", ["CPUExecutionProvider", "cpu", "CPU", "cpuexecutionprovider"])
def test_a_provider_is_known_by_its_short_name_too(make_graph, provider):
    assert OnnxRuntimeEngine(make_graph(["batch", 3]), provider=provider).name == "onnxruntime (CPU)"


@pytest.mark.parametrize("arguments", [{"arena": False}, {"spin": False}, {"threads": 2, "spin": False}])
def test_options_of_services_change_no_output(make_graph, arguments):
    engine = OnnxRuntimeEngine(make_graph(["batch", 3]), **arguments)
    np.testing.assert_array_equal(engine.run({"input": -ONE})["output"], np.zeros_like(ONE))


@pytest.mark.gpu
def test_on_a_gpu_inputs_and_outputs_are_bound_there(make_graph):
    engine = OnnxRuntimeEngine(make_graph(["batch", 3]), provider="cuda")
    assert engine.name == "onnxruntime (CUDA)"
    np.testing.assert_array_equal(engine.run({"input": ONE})["output"], ONE)


@pytest.mark.parametrize("provider", ["NoSuchExecutionProvider", "cuda", "tensorrt", ""])
def test_a_provider_that_is_missing_is_refused_and_those_there_are_named(make_graph, provider):
    with pytest.raises(TargetError) as caught:
        OnnxRuntimeEngine(make_graph(["batch", 3]), provider=provider)
    assert f"no {provider} here" in str(caught.value)
    assert all(name in str(caught.value) for name in ort.get_available_providers())
    assert "CPUExecutionProvider" in str(caught.value)


def test_a_provider_that_comes_with_cudas_libraries_is_there_once_they_are(monkeypatch):
    there = ["CPUExecutionProvider"]
    monkeypatch.setattr(ort, "preload_dlls", lambda: there.append("CUDAExecutionProvider"), raising=False)
    monkeypatch.setattr(ort, "get_available_providers", lambda: there)
    check_provider("CPU")
    assert len(there) == 1
    for name in ("cuda", "CUDAExecutionProvider"):
        del there[1:]
        check_provider(name)
    monkeypatch.setattr(ort, "preload_dlls", lambda: print("Failed to load libcublas.so.13"), raising=False)
    del there[1:]
    with pytest.raises(TargetError, match=r"has no cuda here: Failed to load libcublas\.so\.13"):
        check_provider("cuda")


@pytest.mark.parametrize(("wheel", "gpus", "listed"), [("-gpu", 1, True), ("-gpu", 0, False), ("", 1, False)])
def test_the_status_lists_a_provider_that_comes_with_cudas_libraries(monkeypatch, wheel, gpus, listed):
    there = ["CPUExecutionProvider"]
    monkeypatch.setattr(ort, "preload_dlls", lambda: there.append("CUDAExecutionProvider"), raising=False)
    monkeypatch.setattr(ort, "get_available_providers", lambda: there)
    monkeypatch.setattr(module, "version_of", {f"onnxruntime{wheel}": "1.33"}.get)
    monkeypatch.setattr(module, "gpus", lambda: (None,) * gpus)
    assert ("CUDAExecutionProvider" in status().detail) == listed


def test_a_session_that_falls_back_to_another_provider_is_refused(make_graph, monkeypatch, capsys):
    # As when the CUDA provider is in the wheel and its libraries are not on the machine.
    there = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: there)
    real = ort.InferenceSession
    monkeypatch.setattr(
        ort, "InferenceSession", lambda model, options, **_: real(model, options, ["CPUExecutionProvider"])
    )
    # NVIDIA's packages may have them: ONNX Runtime is told to look there, and prints what it did not find.
    monkeypatch.setattr(ort, "preload_dlls", lambda: print("Failed to load libcudnn.so.9"), raising=False)
    with pytest.raises(TargetError, match=r"fell back to CPU\w+ instead of CUDA\w+: Failed to load libcudnn\.so\.9"):
        OnnxRuntimeEngine(make_graph(["batch", 3]), provider="CUDAExecutionProvider")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"not an ONNX file", bytes(range(256)) * 40])
def test_a_file_that_is_not_onnx_is_named(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(BuildError, match=r"cannot load the model[\s\S]*model\.onnx[\s\S]*fix:"):
        OnnxRuntimeEngine(path)


def test_an_operator_nobody_knows_is_refused_when_loading(make_graph):
    with pytest.raises(BuildError, match="NoSuchOperator"):
        OnnxRuntimeEngine(make_graph([1, 3], op="NoSuchOperator"))


@pytest.mark.parametrize(
    "feeds",
    [
        {"input": np.ones((2, 4), np.float32)},
        {"input": np.ones((2, 3, 1), np.float32)},
        {"input": np.ones((2, 3), np.float64)},
        {"input": np.ones((2, 3), np.int64)},
        {},
        {"inptu": ONE},
        {"input": ONE, "other": ONE},
    ],
)
def test_inputs_that_do_not_fit_say_what_the_graph_takes(make_graph, feeds):
    engine = OnnxRuntimeEngine(make_graph(["batch", 3]), threads=1)
    with pytest.raises(BuildError, match=r"refused the inputs[\s\S]*the graph takes input \['batch', 3\] float32"):
        engine.run(feeds)


def test_the_engine_works_on_after_a_refusal(make_graph):
    engine = OnnxRuntimeEngine(make_graph(["batch", 3]), threads=1)
    with pytest.raises(BuildError):
        engine.run({})
    assert engine.run({"input": ONE})["output"].sum() == 6


ONES, WIDTH = 64, 16


def at_full_range(op: str) -> onnx.ModelProto:
    """A sum of products of uint8 255 and int8 127, the largest there are, quantized for ONNX Runtime's CPU kernels."""
    weight = np.full((ONES, WIDTH), 127, np.int8)
    image = [4, 4] if op == "Conv" else []
    pairs = [("x", "xq", "xd", "xs", "u0"), ("y0", "yq", "y", "ys", "u0")]
    nodes = [
        node
        for source, quantized, result, scale, zero in pairs
        for node in (
            og.node("QuantizeLinear", [source, scale, zero], [quantized], f"{source}/Q"),
            og.node("DequantizeLinear", [quantized, scale, zero], [result], f"{source}/DQ"),
        )
    ]
    nodes[2:2] = [
        og.node("DequantizeLinear", ["w", "ws", "i0"], ["wd"], "w/DQ"),
        og.node(op, ["xd", "wd"], ["y0"], f"layer/{op}"),
    ]
    return og.model(
        nodes,
        [og.value("x", og.FLOAT, ["batch", ONES, *image])],
        [og.value("y", og.FLOAT, ["batch", WIDTH, *image])],
        [
            og.constant("w", weight.T.reshape(WIDTH, ONES, 1, 1) if op == "Conv" else weight),
            og.constant("xs", 1 / 255, np.float32),
            og.constant("ws", 1 / 127, np.float32),
            og.constant("ys", ONES / 255, np.float32),
            og.constant("u0", 0, np.uint8),
            og.constant("i0", 0, np.int8),
        ],
    )


@pytest.mark.parametrize("op", ["MatMul", "Conv"])
def test_int8_products_at_full_range_do_not_saturate(op, tmp_path):
    # Two products are 64,770: x86 without VNNI adds them in 16 bits, and the sum came out as half of what it is.
    path = og.save(at_full_range(op), tmp_path / "model.int8.onnx")
    feeds = {"x": np.ones((2, ONES, 4, 4) if op == "Conv" else (2, ONES), np.float32)}
    ahead = tmp_path / api.optimize(path).optimized
    for model in (path, path.read_bytes(), ahead):
        np.testing.assert_allclose(OnnxRuntimeEngine(model, threads=1).run(feeds)["y"], ONES, rtol=1e-5)


@pytest.mark.parametrize(
    ("instructions", "entry"), [(("avx2",), "1"), (("avx2", "avx512_vnni"), "0"), (("avx2", "avx_vnni"), "0")]
)
def test_slower_exact_kernels_are_asked_for_only_where_the_fast_ones_saturate(
    make_graph, monkeypatch, instructions, entry
):
    seen = []
    real = ort.InferenceSession

    def session(model, options, **arguments):
        seen.append(options.get_session_config_entry("session.x64quantprecision"))
        return real(model, options, **arguments)

    monkeypatch.setattr(ort, "InferenceSession", session)
    monkeypatch.setattr(optimized, "processor", lambda: Processor("x86_64", "", instructions))
    path = make_graph(["batch", 3])
    OnnxRuntimeEngine(path)
    api.optimize(path)
    assert seen == [entry, entry]


def test_status_names_version_and_providers():
    assert status().available
    assert status().version == ort.__version__
    assert "CPUExecutionProvider" in status().detail


def run_python(code: str) -> str:
    env = {"PYTHONPATH": nano_artifact.PACKAGE_ROOT, "PATH": "/usr/bin:/bin"}
    return subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True).stdout


def test_a_missing_package_names_the_extra():
    text = run_python(
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine\n"
        "from s2mlp_deploy.errors import MissingDependencyError\n"
        "try: OnnxRuntimeEngine(b'')\n"
        "except MissingDependencyError as error: print(error)\n"
    )
    assert "s2mlp-deploy[cpu]" in text


@pytest.mark.parametrize(
    ("installed", "available", "hint"),
    [((), False, "[cpu]"), (("onnxruntime", "onnxruntime-gpu"), True, "uninstall")],
)
def test_status_tells_of_none_and_of_both_builds(monkeypatch, installed, available, hint):
    from s2mlp_deploy.engines import onnxruntime as module

    monkeypatch.setattr(module, "version_of", lambda name: "1.0" if name in installed else None)
    told = module.status()
    assert told.available == available
    assert told.missing
    assert hint in told.install_hint


@pytest.mark.parametrize("threads", [-1, 10**12])
def test_a_number_of_threads_that_is_none_is_refused(make_graph, threads):
    from s2mlp_deploy.engines.registry import open_graph_file

    with pytest.raises(InputError, match=f"an engine with {threads} threads"):
        open_graph_file(make_graph(["batch", 3]), threads=threads)


def test_a_package_that_does_not_load_is_told_and_ends_nothing(monkeypatch):
    from s2mlp_deploy.engines import onnxruntime as module

    def load():
        raise ImportError("libsomething.so.1: cannot open shared object file")

    monkeypatch.setattr(module, "load_onnxruntime", load)
    told = module.status()
    assert not told.available
    assert "cannot be loaded: libsomething.so.1" in told.missing


def test_running_a_file_writes_nothing_below_the_users_home(tmp_path):
    """ONNX Runtime's telemetry would: as soon as it is imported."""
    code = (
        "import sys; from pathlib import Path\n"
        "from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine\n"
        "OnnxRuntimeEngine(Path(sys.argv[1]))"
    )
    (tmp_path / "home").mkdir()
    path = og.save(og.perceptron(), tmp_path / "model.onnx")
    kept = {
        name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    }
    env = kept | {"PYTHONPATH": nano_artifact.PACKAGE_ROOT, "HOME": str(tmp_path / "home")}
    subprocess.run([sys.executable, "-B", "-c", code, str(path)], env=env, check=True)
    assert list((tmp_path / "home").iterdir()) == []
