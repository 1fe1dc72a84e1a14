"""OpenVINO as an engine: what it computes with, what it says when something does not fit, and that it tells nobody."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import nano_artifact
import numpy as np
import onnx_graphs as og
import pytest
from onnx_graphs import FLOAT, HALF, constant, node, value

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.errors import ArtifactError, BuildError, InputError, MissingDependencyError, TargetError

pytest.importorskip("openvino")
from s2mlp_deploy import api
from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine
from s2mlp_deploy.engines.openvino import library, runtime
from s2mlp_deploy.engines.openvino.builder import contents_of
from s2mlp_deploy.engines.openvino.runtime import OpenVinoEngine
from s2mlp_deploy.engines.openvino.saturation import may_saturate
from s2mlp_deploy.processor import Processor
from s2mlp_deploy.serving.predictor import Predictor

ONE = np.ones((2, 3), np.float32)


@pytest.fixture(scope="module")
def nano():
    return OpenVinoEngine(nano_artifact.read_only() / "model.fp32.onnx", threads=1)


def test_it_computes_and_tells_names_types_sizes_and_metadata(make_graph):
    engine = OpenVinoEngine(make_graph(["batch", 3]), threads=1)
    assert engine.inputs == (TensorInfo("input", "float32", ("batch", 3)),)
    assert engine.outputs == (TensorInfo("output", "float32", ("batch", 3)),)
    assert engine.name == "openvino (CPU)"
    assert engine.metadata == {"who": "a test"}
    result = engine.run({"input": np.array([[-1, 0, 2]], np.float32)})
    assert list(result) == ["output"]
    np.testing.assert_array_equal(result["output"], [[0, 0, 2]])


def test_batches_of_every_size_are_what_onnx_runtime_computes(nano):
    other = OnnxRuntimeEngine(nano_artifact.read_only() / "model.fp32.onnx", threads=1)
    assert (nano.inputs, nano.outputs, nano.limits) == (other.inputs, other.outputs, other.limits)
    generator = np.random.default_rng(0)
    for batch in (1, 3):
        feeds = {"input": generator.standard_normal((batch, 3, 32, 32)).astype(np.float32)}
        np.testing.assert_allclose(nano.run(feeds)["logits"], other.run(feeds)["logits"], atol=1e-4)


def test_what_was_returned_stays_when_the_next_run_comes(nano):
    generator = np.random.default_rng(1)
    feeds = [{"input": generator.standard_normal((1, 3, 32, 32)).astype(np.float32)} for _ in range(4)]
    alone = [nano.run(item)["logits"] for item in feeds]
    kept = [array.copy() for array in alone]
    with ThreadPoolExecutor(4) as pool:
        together = [found["logits"] for found in pool.map(nano.run, feeds)]
    np.testing.assert_array_equal(alone, kept)
    np.testing.assert_array_equal(together, kept)


def test_the_precision_is_never_left_to_openvino(nano):
    # By itself it takes bfloat16 where the processor has it, and quantizes activations.
    told = nano.properties
    assert "float32" in told["INFERENCE_PRECISION_HINT"]
    assert "ACCURACY" in told["EXECUTION_MODE_HINT"]
    assert told["DYNAMIC_QUANTIZATION_GROUP_SIZE"] == "0"
    assert (told["NUM_STREAMS"], told["INFERENCE_NUM_THREADS"]) == ("1", "1")


@pytest.mark.parametrize(
    ("device", "half", "precision"), [("CPU", True, "f32"), ("GPU.0", True, "f16"), ("GPU", False, "f32")]
)
def test_only_what_is_no_cpu_computes_a_float16_file_in_float16(device, half, precision):
    config = library.configuration(device, half=half, threads=2, throughput=False, flush_denormals=False, profile=False)
    assert config["INFERENCE_PRECISION_HINT"] == precision


def test_another_precision_than_the_one_asked_for_is_refused(make_graph):
    # What is asked for is no promise: asked for bfloat16, a processor without it computes in float32 and says so.
    core = library.shared_core()
    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has bfloat16")
    path = make_graph(["batch", 3])
    with pytest.raises(TargetError, match="computes in f32 instead of bf16"):
        runtime.compiled_of(core, path, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})


def test_many_runs_are_runs(make_graph):
    engine = OpenVinoEngine(make_graph(["batch", 3]), threads=1, throughput=True)
    engine.run_many({"input": ONE}, 5)
    with pytest.raises(BuildError, match="refused the inputs"):
        engine.run_many({"input": ONE[:, :2]}, 2)


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({"input": ONE.astype(np.float64)}, "input is float64"),
        ({"input": ONE[:, :2]}, "shape"),
        ({}, "inputs are missing"),
        ({"input": ONE, "more": ONE}, "of other names"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_with_what_fits(make_graph, feeds, words):
    engine = OpenVinoEngine(make_graph(["batch", 3]), threads=1)
    with pytest.raises(BuildError, match="OpenVINO refused the inputs") as caught:
        engine.run(feeds)
    assert words in str(caught.value)
    assert "input ['batch', 3] float32" in str(caught.value)
    # Nothing of a refused run is left for the next.
    np.testing.assert_array_equal(engine.run({"input": ONE})["output"], ONE)


def test_sizes_that_the_graph_was_not_made_for_are_refused(tmp_path):
    limits = [{"input": "input", "axis": 0, "name": "batch", "max": 4}]
    engine = OpenVinoEngine(og.save(og.perceptron(metadata={"limits": limits}), tmp_path / "a.onnx"), threads=1)
    (info,) = engine.inputs
    with pytest.raises(InputError, match="at most 4"):
        engine.run({info.name: np.zeros((5, *info.shape[1:]), np.float32)})


@pytest.mark.parametrize("device", ["NPU", "gpu", "CPU.7", ""])
def test_a_device_that_is_not_here_is_refused_and_those_here_are_named(make_graph, device):
    there = library.shared_core().available_devices
    if any(name.startswith(device.upper() or "-") for name in there):
        pytest.skip(f"this machine has {there}")
    with pytest.raises(TargetError, match="has no device") as caught:
        OpenVinoEngine(make_graph(["batch", 3]), device=device)
    assert "CPU" in str(caught.value)


def test_a_device_is_known_by_its_name_in_any_case_and_the_first_without_its_number():
    there = ["CPU", "GPU.0", "GPU.1"]
    assert [library.find_device(name, there) for name in ("cpu", "gpu", "GPU.1")] == ["CPU", "GPU.0", "GPU.1"]


def test_operators_that_it_does_not_know_are_named(make_graph):
    with pytest.raises(BuildError, match=r"OpenVINO cannot load the model: .*com\.example\.Foo"):
        OpenVinoEngine(make_graph(["batch", 3], op="Foo", domain="com.example"))


def test_what_is_no_model_is_refused_before_openvino_tries_all_its_readers(tmp_path, capfd):
    path = tmp_path / "junk.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(ArtifactError, match="not an ONNX file"):
        OpenVinoEngine(path)
    assert capfd.readouterr() == ("", "")


def test_files_that_onnx_runtime_optimized_for_itself_are_refused(make_graph):
    with pytest.raises(ArtifactError, match="optimized for ONNX Runtime"):
        OpenVinoEngine(make_graph(["batch", 3], name="a.onnxruntime.cpu.onnx"))


def test_without_the_package_the_extra_is_named(make_graph, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingDependencyError, match=r"s2mlp-deploy\[openvino\]"):
        OpenVinoEngine(make_graph(["batch", 3]))


def test_status_names_version_and_devices():
    found = library.status()
    assert found.available
    assert found.version
    assert "CPU" in found.detail


def test_inputs_may_be_numbers_without_axes_read_only_and_in_any_order(tmp_path):
    inputs = [value("x", FLOAT, ["batch", 3]), value("s", FLOAT, [])]
    made = og.model([node("Add", ["x", "s"], ["y"])], inputs, [value("y", FLOAT, ["batch", 3])])
    engine = OpenVinoEngine(og.save(made, tmp_path / "a.onnx"), threads=1)
    x = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    x.flags.writeable = False
    np.testing.assert_array_equal(engine.run({"x": x, "s": np.array(2, np.float32)})["y"], x + 2)


def test_a_package_or_a_device_that_does_not_load_is_told_and_ends_nothing(monkeypatch):
    class Core:
        available_devices = ("CPU", "GPU")

        def get_property(self, device, _):
            if device == "GPU":
                raise RuntimeError("the driver fails")
            return "A processor"

    with monkeypatch.context() as patched:
        patched.setattr(library, "shared_core", Core)
        assert library.status().detail == "CPU (A processor), GPU"
    # Not the cached one: no other core may come beside it.
    monkeypatch.setattr(library, "shared_core", library.shared_core.__wrapped__)
    monkeypatch.setitem(sys.modules, "openvino", None)
    told = library.status()
    assert not told.available
    assert "is there and cannot be loaded: import of openvino halted" in told.missing


def test_reasons_are_what_openvino_says_without_places_in_its_source():
    text = "Exception from src/a.cpp:1:\nCheck 'x' failed at src/b.cpp:2:\nSummary:\n-- the reason\n\n"
    assert library.reason_of(RuntimeError(text)) == "the reason"
    assert library.reason_of(RuntimeError("plain")) == "plain"


def test_predictions_are_those_of_onnx_runtime():
    images = [np.full((32, 32, 3), level, np.uint8) for level in (0, 90, 255)]
    ours, other = (
        Predictor(nano_artifact.read_only(), engine=engine, threads=1, allow_unproven=True).predict(images)
        for engine in ("openvino", "onnxruntime")
    )
    assert [item.classes for item in ours] == [item.classes for item in other]
    np.testing.assert_allclose([i.probabilities for i in ours], [i.probabilities for i in other], atol=1e-5)


def test_a_service_needs_neither_torch_nor_onnx_nor_onnx_runtime_and_tells_nobody(tmp_path):
    code = f"""
import sys, json
for name in ("torch", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "jinja2", "safetensors"):
    sys.modules[name] = None
import socket
def refuse(*arguments): raise AssertionError("a connection")
socket.socket.connect = refuse
import numpy as np
from s2mlp_deploy import api
(item,) = api.predict(
    {str(nano_artifact.read_only())!r}, np.zeros((32, 32, 3), np.uint8), engine="openvino", allow_unproven=True
)
import openvino.tools.ovc as tools
print(json.dumps([item.classes[0], tools.telemetry.__class__.__module__, "openvino_telemetry" in sys.modules]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": nano_artifact.PACKAGE_ROOT, "HOME": str(tmp_path), "PATH": ""},
        check=True,
        capture_output=True,
        text=True,
    )
    best, telemetry, loaded = json.loads(done.stdout)
    assert best
    assert telemetry == "openvino.tools.ovc.telemetry_stub"
    assert not loaded
    assert list(tmp_path.iterdir()) == []


def test_layers_are_looked_into(tmp_path):
    artifact = nano_artifact.copy_to(tmp_path / "artifact")
    pytest.importorskip("torch")
    (report,) = api.parity_per_layer(
        nano_artifact.captured(), [artifact / "model.fp32.onnx"], samples=2, engine="openvino"
    )
    assert report.candidate == "openvino (CPU)"
    assert report.passed
    assert len(report.layers) > 50
    assert all(change is not None and change < 1e-3 for change in report.tapping.values())


@pytest.mark.parametrize("antialias", [0, 1])
def test_images_are_resized_as_the_file_says_or_not_at_all(tmp_path, antialias):
    # OpenVINO takes the attribute and leaves it out.
    nodes = [
        node("Cast", ["image"], ["f"], to=FLOAT),
        node("Transpose", ["f"], ["t"], perm=[0, 3, 1, 2]),
        node("Resize", ["t", "", "", "sizes"], ["y"], "small/Resize", mode="linear", antialias=antialias),
    ]
    made = og.model(
        nodes,
        [value("image", og.onnx.TensorProto.UINT8, ["batch", "height", "width", 3])],
        [value("y", FLOAT, ["batch", 3, 8, 8])],
        [constant("sizes", [1, 3, 8, 8], "int64")],
    )
    path = og.save(made, tmp_path / "a.onnx")
    if antialias:
        with pytest.raises(BuildError, match="without antialiasing, which the file asks for in small/Resize"):
            OpenVinoEngine(path, threads=1)
        return
    feeds = {"image": np.random.default_rng(0).integers(0, 256, (1, 37, 23, 3), np.uint8)}
    ours, other = (engine(path, threads=1).run(feeds)["y"] for engine in (OpenVinoEngine, OnnxRuntimeEngine))
    np.testing.assert_allclose(ours, other, atol=1e-2)


def quantized(tmp_path, kind, weight, factor="integers", between=()):
    """A product of 64 ones by 64 ones, in 8 bits at full range.

    The second factor is integers, or float32 or float16 with Q and DQ, as TensorRT's tools write it; or it is computed.
    Nodes between make its ``wd`` of what its DQ gives, ``raw``.
    """
    most = np.iinfo(kind).max
    nodes = [
        node("QuantizeLinear", ["x", "sx", "zx"], ["xq"], "x/Q"),
        node("DequantizeLinear", ["xq", "sx", "zx"], ["xd"], "x/DQ"),
        node("DequantizeLinear", ["wq", "sw", "zw"], ["raw" if between else "wd"], "w/DQ"),
        *between,
        node("MatMul", ["xd", "wd"], ["y"], "fc/MatMul"),
    ]
    constants = [
        constant("sx", 1 / most, "float32"),
        constant("zx", 0, kind),
        constant("sw", 1 / weight, "float32"),
        constant("zw", 0, "int8"),
        constant("one", 1, "float32"),
    ]
    inputs = [value("x", FLOAT, ["batch", 64])]
    if factor == "integers":
        constants.append(constant("wq", np.full((64, 8), weight), "int8"))
    else:
        nodes.insert(0, node("QuantizeLinear", ["w", "sw", "zw"], ["wq"], "w/Q"))
    if factor == "computed":
        inputs.append(value("w", FLOAT, [64, 8]))
    elif factor == "float32":
        constants.append(constant("w", np.ones((64, 8)), "float32"))
    elif factor == "float16":
        nodes.insert(0, node("Cast", ["wh"], ["w"], "w/Cast", to=FLOAT))
        constants.append(constant("wh", np.ones((64, 8)), "float16"))
    made = og.model(nodes, inputs, [value("y", FLOAT, ["batch", 8])], constants)
    return og.save(made, tmp_path / "a.onnx")


@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize("factor", ["integers", "float32", "float16", "computed"])
def test_int8_is_exact_on_processors_that_would_saturate_too(tmp_path, kind, factor):
    engine = OpenVinoEngine(quantized(tmp_path, kind, 127, factor), threads=1)
    feeds = {info.name: np.ones((64, 8) if info.name == "w" else (2, 64), np.float32) for info in engine.inputs}
    np.testing.assert_allclose(engine.run(feeds)["y"], 64, rtol=1e-5)


@pytest.mark.parametrize("between", [("Identity", "raw"), ("Mul", "one", "raw")], ids=lambda between: between[0])
def test_what_stands_between_a_quantized_factor_and_its_product_hides_nothing(tmp_path, between):
    path = quantized(tmp_path, "uint8", 127, "computed", [node(between[0], between[1:], ["wd"])])
    assert may_saturate(library.shared_core().read_model(str(path)))


def in_front_of_a_q(tmp_path, kind, dtype, numbers, rows=("batch", 64)):
    """A product or sum per channel, and Q and DQ, in float16 or with float32 around that."""
    half = dtype == HALF
    nodes = [
        *([] if half else [node("Cast", ["given"], ["x"], "in/Cast", to=HALF)]),
        node(kind, ["x", "w"], ["v"], "m/Op", **({"axis": -1} if kind == "LayerNormalization" else {})),
        node("QuantizeLinear", ["v", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["y" if half else "d"]),
        *([] if half else [node("Cast", ["d"], ["y"], "out/Cast", to=FLOAT)]),
    ]
    constants = [constant("w", numbers, "float16"), constant("s", 0.0263, "float16"), constant("z", 0, "int8")]
    given = value("x" if half else "given", dtype, rows)
    return og.save(og.model(nodes, [given], [value("y", dtype, rows)], constants), tmp_path / "a.onnx")


@pytest.mark.parametrize("integers", [True, False], ids=["integer kernels", "none"])
@pytest.mark.parametrize("dtype", [HALF, FLOAT], ids=["float16 in and out", "float32 in and out"])
@pytest.mark.parametrize("kind", ["LayerNormalization", "Mul", "Add"])
def test_a_channels_own_number_in_front_of_a_q_counts_in_float16_too(tmp_path, monkeypatch, kind, dtype, integers):
    monkeypatch.setattr(runtime, "processor", lambda: Processor("x86_64", "", ("avx512_vnni",) * integers))
    monkeypatch.setattr(runtime, "may_saturate", lambda _: True)
    generator = np.random.default_rng(0)
    path = in_front_of_a_q(tmp_path, kind, dtype, np.linspace(0.2, 2, 64))
    x = generator.standard_normal((8, 64)).astype("float16" if dtype == HALF else "float32")
    name = "x" if dtype == HALF else "given"
    ours, wanted = (engine(path, threads=1).run({name: x})["y"] for engine in (OpenVinoEngine, OnnxRuntimeEngine))
    assert (ours.dtype, ours.shape) == (wanted.dtype, wanted.shape)
    # Rounding in float16 may decide by a step where a value lies between two.
    error = np.abs(ours.astype(np.float32) - wanted.astype(np.float32))
    assert error.max() < 0.03
    assert np.median(error) < 1e-3


def test_products_that_openvino_computes_as_others_are_refused(tmp_path):
    numbers = np.linspace(-1, 2, 64)
    with pytest.raises(BuildError, match=r"factors below 0 .* m/Op"):
        OpenVinoEngine(in_front_of_a_q(tmp_path, "Mul", HALF, numbers))
    for kind, rows in (("Add", ("batch", 64)), ("Mul", ("batch", 3, 64))):
        OpenVinoEngine(in_front_of_a_q(tmp_path, kind, HALF, numbers, rows))


@pytest.mark.parametrize("reshaped", ["before its Q", "behind its DQ"])
def test_weights_of_a_convolution_may_be_reshaped(tmp_path, reshaped):
    before = reshaped == "before its Q"
    nodes = [
        node("QuantizeLinear", ["x", "s", "zx"], ["xq"]),
        node("DequantizeLinear", ["xq", "s", "zx"], ["xd"]),
        node("Reshape", ["w" if before else "dq", "shape"], ["r"]),
        node("QuantizeLinear", ["r" if before else "w", "s", "zw"], ["wq"]),
        node("DequantizeLinear", ["wq", "s", "zw"], ["dq"]),
        node("Conv", ["xd", "dq" if before else "r"], ["y"]),
    ]
    if not before:
        nodes[2:5] = [*nodes[3:5], nodes[2]]
    constants = [constant("s", 1 / 127, "float32"), constant("zx", 0, "uint8"), constant("zw", 0, "int8")]
    constants += [constant("w", np.ones((8, 64)), "float32"), constant("shape", [8, 64, 1, 1], "int64")]
    inputs, results = [value("x", FLOAT, ["batch", 64, 4, 4])], [value("y", FLOAT, ["batch", 8, 4, 4])]
    path = og.save(og.model(nodes, inputs, results, constants), tmp_path / "a.onnx")
    assert may_saturate(library.shared_core().read_model(str(path)))
    ones = np.ones((1, 64, 4, 4), np.float32)
    np.testing.assert_allclose(OpenVinoEngine(path, threads=1).run({"x": ones})["y"], 64, rtol=1e-5)


@pytest.mark.parametrize("factor", ["integers", "float32"])
@pytest.mark.parametrize("saturates", [False, True])
@pytest.mark.parametrize("weight", [64, 65])
def test_only_weights_that_may_saturate_are_kept_from_int8_kernels(
    tmp_path, monkeypatch, caplog, saturates, weight, factor
):
    here = Processor("x86_64", "", () if saturates else ("avx512_vnni",))
    monkeypatch.setattr(runtime, "processor", lambda: here)
    runtime._warn.cache_clear()
    path = quantized(tmp_path, "uint8", weight, factor)
    compiled, notes = runtime.compiled_of(library.shared_core(), path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    kinds = {op.precision for op in contents_of(compiled).matrix_ops}
    expected = saturates and weight > 64
    assert kinds == ({"fp32"} if expected else {"int8"})
    assert bool(notes) == expected
    assert OpenVinoEngine(path, threads=1).notes == notes
    assert ("--reduce-range" in caplog.text) == expected


def test_a_graph_in_memory_and_its_outputs(tmp_path):
    onnx_ir = pytest.importorskip("onnx_ir")
    from s2mlp_deploy.engines.of_graph import open_graph

    made = og.model(
        [node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"], ["y"])],
        [value("x", FLOAT, ["batch", 3])],
        [value("y", FLOAT, ["batch", 3]), value("h", FLOAT, ["batch", 3])],
        [constant("w", -np.eye(3), "float32")],
    )
    found = open_graph(onnx_ir.from_proto(made), engine="openvino", threads=1).run({"x": ONE})
    np.testing.assert_array_equal(found["h"], -ONE)
    np.testing.assert_array_equal(found["y"], 0 * ONE)


def test_a_signal_after_engines_were_closed_reaches_python(make_graph):
    # In a process of its own: where it does not, the process ends by SIGSEGV.
    code = (
        "import os, pathlib, signal\n"
        "from s2mlp_deploy.engines.openvino.runtime import OpenVinoEngine\n"
        f"path = pathlib.Path({str(make_graph(['batch', 3]))!r})\n"
        "first, second = OpenVinoEngine(path), OpenVinoEngine(path)\n"
        "del first\n"
        "del second\n"
        "signal.signal(signal.SIGINT, lambda *_: print('interrupted'))\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
    )
    environment = {"PYTHONPATH": nano_artifact.PACKAGE_ROOT}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
