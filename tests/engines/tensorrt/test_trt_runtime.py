"""Running engines: what is refused without a GPU, and on one, whether the outputs are those of ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import nano_artifact
import numpy as np
import onnx_graphs as og
import pytest
from fake_tensorrt import Library
from recording_gpu import Gpu

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.engines import cuda
from s2mlp_deploy.engines.record import read_engine, read_sidecar, write_sidecar
from s2mlp_deploy.engines.sidecar import runtime_cache_of
from s2mlp_deploy.engines.tensorrt import runtime
from s2mlp_deploy.engines.tensorrt.context import TensorRTContext, output_allocator
from s2mlp_deploy.engines.tensorrt.runtime import TensorRTEngine
from s2mlp_deploy.errors import ArtifactError, BuildError, InputError, OutputError, TargetError
from s2mlp_deploy.gpu import gpus

pytest.importorskip("tensorrt_rtx")
pytest.importorskip("cuda.bindings.runtime")
from s2mlp_deploy import api


@pytest.fixture
def engine(tmp_path):
    graph = og.save(og.perceptron(metadata={"precision": "fp32"}), tmp_path / "model.fp32.onnx")
    here = gpus()
    target = here[0].capability if here else "sm89"
    return tmp_path / api.build(graph, targets=[target]).engine


@pytest.mark.skipif(bool(gpus()), reason="this machine has a GPU")
def test_without_a_gpu_one_line_says_so(engine):
    with pytest.raises(TargetError) as caught:
        TensorRTEngine(engine)
    assert "needs an NVIDIA GPU, and there is none here" in str(caught.value).splitlines()[0]


def test_an_engine_is_checked_before_anything_is_loaded(engine):
    record = read_engine(engine)
    write_sidecar(engine, replace(record, version="1.0.0.1"))
    with pytest.raises(ArtifactError, match=r"version: built for 1\.0\.0\.1"):
        TensorRTEngine(engine)
    engine.write_bytes(b"something else")
    with pytest.raises(ArtifactError, match="not the one its sidecar describes"):
        TensorRTEngine(engine)


def test_a_number_without_axes_stays_one():
    info = TensorInfo("s", "float32", ())
    assert runtime._fitting(info, {"s": np.array(2, np.float32)}).shape == ()


# On a stand-in for the library and the GPU: what is called, in which order


H100 = cuda.Device(0, "NVIDIA H100", "sm90", "GPU-1")


class Fakes:
    """A built engine of any flavour, and a library and a GPU that only note what is asked of them."""

    def __init__(self, engine, monkeypatch):
        self.engine, self._patch, self.gpu = engine, monkeypatch, Gpu()

    def open(self, flavour: str, version: str, *, refuse=(), changes=None, device=H100, **options) -> TensorRTEngine:
        changes = dict(changes or {})
        flags = read_sidecar(self.engine).flags | changes.pop("flags", {})
        record = replace(read_sidecar(self.engine), flavour=flavour, version=version, targets=("sm90",), flags=flags)
        write_sidecar(self.engine, replace(record, **changes))
        self.library = Library(version, refuse=refuse)
        self._patch.setattr(runtime.library, "load", lambda _: self.library)
        self._patch.setattr(runtime.library, "version_here", lambda _: version)
        made = SimpleNamespace(
            **{
                name: getattr(self.gpu, name) for name in ("make_current", "make_stream", "make_buffer", "make_staging")
            },
            name=device.name,
            capability=device.capability,
        )
        self._patch.setattr(runtime.cuda, "use_device", lambda _: made)
        return TensorRTEngine(self.engine, **options)

    def asked(self) -> list:
        return self.library.calls


@pytest.fixture
def fakes(engine, monkeypatch):
    return Fakes(engine, monkeypatch)


X = np.ones((2, 8), np.float32)


def names_of(calls) -> list[str]:
    return [call[0] for call in calls]


@pytest.mark.parametrize("compatible", [False, True])
def test_plugins_come_first_and_host_code_is_allowed_only_where_the_engine_needs_it(fakes, compatible):
    with fakes.open("tensorrt", "11.4.0", changes={"flags": {"version_compatible": compatible}}) as engine:
        size = engine.record.bytes
        assert fakes.asked()[:2] == [
            ("init_libnvinfer_plugins", ""),
            ("deserialize_cuda_engine", size, compatible),
        ]
        engine.run({"input": X})
    assert names_of(fakes.asked())[2:] == [
        "create_execution_context",
        "set_input_shape",
        "set_tensor_address",
        "set_tensor_address",
        "execute_async_v3",
    ]


def test_a_version_compatible_engine_of_10_loads_in_11(fakes):
    flags = {"flags": {"version_compatible": True}}
    fakes.open("tensorrt", "11.4.0", changes={**flags, "version": "10.16.1"}).close()
    with pytest.raises(ArtifactError, match=r"version: built for 10\.16\.1, here is 11\.4\.0"):
        fakes.open("tensorrt", "11.4.0", changes={"flags": {"version_compatible": False}, "version": "10.16.1"})


def test_an_engine_that_does_not_load_says_why(fakes):
    with pytest.raises(BuildError, match="cannot load the engine: the plan is of another version"):
        fakes.open("tensorrt", "11.4.0", refuse=("deserialize_cuda_engine",))


def test_a_library_that_cannot_start_says_why(fakes):
    with pytest.raises(BuildError, match="TensorRT cannot start: CUDA initialization failure with error: 35"):
        fakes.open("tensorrt", "11.4.0", refuse=("Runtime",))


def test_a_type_that_numpy_has_not_is_refused_before_anything_is_loaded(fakes):
    with pytest.raises(InputError, match="y of the engine is float7, which NumPy has not"):
        fakes.open("tensorrt", "11.4.0", changes={"outputs": (TensorInfo("y", "float7", (2,)),)})
    assert fakes.asked() == []


def test_another_gpu_of_the_same_capability_warns(fakes, caplog):
    fakes.open("tensorrt", "11.4.0", changes={"gpu": "NVIDIA GH200"}).close()
    assert "chosen on NVIDIA GH200; on this NVIDIA H100" in caplog.text


def test_an_engine_for_another_gpu_is_refused(fakes):
    with pytest.raises(ArtifactError, match="targets: built for sm90, here is sm75"):
        fakes.open("tensorrt", "11.4.0", device=replace(H100, capability="sm75"))


@pytest.mark.parametrize("call", ["set_input_shape", "set_tensor_address", "execute_async_v3"])
def test_whatever_the_library_refuses_is_an_error_of_ours(fakes, call):
    with fakes.open("tensorrt", "11.4.0", refuse=(call,)) as engine, pytest.raises(BuildError):
        engine.run({"input": X})


def test_inputs_that_do_not_fit_are_refused_before_the_library_is_asked(fakes):
    with fakes.open("tensorrt", "11.4.0") as engine:
        before = len(fakes.asked())
        for feeds in ({}, {"input": X.astype(np.float64)}, {"input": np.ones((33, 8), np.float32)}):
            with pytest.raises(InputError):
                engine.run(feeds)
        assert len(fakes.asked()) == before
    with pytest.raises(InputError, match="the engine is closed"):
        engine.run({"input": X})


# Weights


STRIPPED = {"flags": {"strip_plan": True}}


def test_a_stripped_engine_takes_its_weights_from_the_graph_beside_it_before_anything_runs(fakes):
    fakes.open("tensorrt", "11.4.0", changes=STRIPPED).close()
    graph = str(fakes.engine.with_name("model.fp32.onnx"))
    assert fakes.asked()[2:] == [
        ("refit_from_file", graph),
        ("refit_cuda_engine",),
        ("create_execution_context",),
    ]


def test_a_stripped_engine_without_its_graph_is_refused(fakes, tmp_path):
    graph = fakes.engine.with_name("model.fp32.onnx")
    graph.write_bytes(graph.read_bytes() + b"\0")
    with pytest.raises(ArtifactError, match="needs the weights that it was built with"):
        fakes.open("tensorrt", "11.4.0", changes=STRIPPED)
    graph.unlink()
    with pytest.raises(ArtifactError, match=r"built without weights[\s\S]*put model\.fp32\.onnx beside the engine"):
        fakes.open("tensorrt", "11.4.0", changes=STRIPPED)


@pytest.mark.parametrize("refit", [False, True])
def test_a_graph_that_was_replaced_since_gives_a_stripped_engine_no_weights_unless_it_is_named(fakes, caplog, refit):
    flags = {"flags": {"strip_plan": True, "refit": refit}}
    graph = fakes.engine.with_name("model.fp32.onnx")
    fakes.open("tensorrt", "11.4.0", changes=flags, weights=graph).close()
    assert "weights" not in caplog.text
    graph.write_bytes(b"trained again")
    with pytest.raises(ArtifactError, match="needs the weights that it was built with"):
        fakes.open("tensorrt", "11.4.0", changes=flags)
    if refit:
        fakes.open("tensorrt", "11.4.0", changes=flags, weights=graph).close()
        assert "runs with the weights of model.fp32.onnx, which are not those" in caplog.text


def test_other_weights_need_an_engine_that_takes_them(fakes, tmp_path):
    other = tmp_path / "other.onnx"
    with pytest.raises(InputError, match="takes no other weights"):
        fakes.open("tensorrt", "11.4.0", weights=other)
    refittable = {"flags": {"refit": True, "strip_plan": False}}
    with pytest.raises(InputError, match="no such file"):
        fakes.open("tensorrt", "11.4.0", changes=refittable, weights=other)
    other.write_bytes(b"onnx")
    fakes.open("tensorrt", "11.4.0", changes=refittable, weights=other).close()
    assert ("refit_from_file", str(other)) in fakes.asked()
    fakes.open("tensorrt", "11.4.0", changes=refittable).close()
    assert "refit_from_file" not in names_of(fakes.asked())
    with pytest.raises(BuildError, match=r"weights of other\.onnx do not fit.*fc1\.weight"):
        fakes.open("tensorrt", "11.4.0", changes=refittable, weights=other, refuse=("refit_cuda_engine",))


# TensorRT-RTX: kernels are compiled on the user's GPU


def test_kernels_are_kept_beside_the_engine_and_found_again(fakes):
    cache = runtime_cache_of(fakes.engine)
    with fakes.open("tensorrt-rtx", "1.7.1") as engine:
        engine.run({"input": X})
        assert fakes.library.runtime_config.cuda_graph_strategy == "whole"
        assert fakes.library.runtime_config.dynamic_shapes_kernel_specialization_strategy == "lazy"
    assert cache.read_bytes() == b"+"
    fakes.open("tensorrt-rtx", "1.7.1", cuda_graph=False, kernels="eager").close()
    assert ("set_runtime_cache", b"+") in fakes.asked()
    assert cache.read_bytes() == b"++"
    assert fakes.library.runtime_config.cuda_graph_strategy == "disabled"
    assert fakes.library.runtime_config.dynamic_shapes_kernel_specialization_strategy == "eager"
    # Contexts are made of the configuration that holds all that.
    assert ("create_execution_context", fakes.library.runtime_config) in fakes.asked()


def test_kernels_of_another_gpu_are_replaced(fakes):
    cache = runtime_cache_of(fakes.engine)
    cache.write_bytes(b"of another GPU")
    fakes.open("tensorrt-rtx", "1.7.1").close()
    assert ("set_runtime_cache", b"") in fakes.asked()
    assert cache.read_bytes() == b"+"


def test_a_folder_that_cannot_be_written_costs_only_the_kernels(fakes, caplog, monkeypatch):
    def read_only(*_):
        raise OutputError("cannot write: Read-only file system")

    monkeypatch.setattr("s2mlp_deploy.engines.tensorrt.runtime_cache.write_file", read_only)
    fakes.open("tensorrt-rtx", "1.7.1").close()
    assert "compiled again next time: cannot write" in caplog.text


def test_rtx_captures_itself_and_nothing_is_captured_twice(fakes):
    with fakes.open("tensorrt-rtx", "1.7.1") as engine:
        for _ in range(4):
            engine.run({"input": X})
    assert "begin capture" not in fakes.gpu.take()
    with fakes.open("tensorrt", "11.4.0") as engine:
        for _ in range(4):
            engine.run({"input": X})
    assert fakes.gpu.take().count("begin capture") == 1


def test_an_output_is_allocated_while_it_is_computed_and_no_exception_passes_the_library():
    library = Library("11.4.0")
    context = TensorRTContext(library, library.engine.create_execution_context(), ("unknown",), Silent(), "e")
    assert context.set_shapes(0, {"input": (2, 8)}, 7) == {"unknown": None}
    sizes = []
    context.bind_allocator("unknown", lambda size: sizes.append(size) or 4096)
    ((_, _, allocator),) = [call for call in library.calls if call[0] == "set_output_allocator"]
    assert allocator.reallocate_output_async("unknown", 0, 64, 256, 7) == 4096
    allocator.notify_shape("unknown", (3, 8))
    context.enqueue(7)
    assert (sizes, context.shape_of("unknown")) == ([64], (3, 8))

    def full(_: int) -> int:
        raise TargetError("CUDA: out of memory")

    failing = output_allocator(library, full)
    assert failing.reallocate_output("unknown", 0, 64, 256) == 0
    context._allocators["unknown"] = failing
    with pytest.raises(TargetError, match="out of memory"):
        context.enqueue(7)
    context.enqueue(7)


class Silent:
    def begin(self) -> None:
        pass

    def reason(self) -> str:
        return "it gave no reason"


@pytest.mark.gpu
@pytest.mark.parametrize("cuda_graph", [True, False])
def test_outputs_are_those_of_onnx_runtime_at_every_batch_and_again(tmp_path, cuda_graph):
    from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine

    graph = nano_artifact.copy_to(tmp_path / "artifact") / "model.fp32.onnx"
    engine = TensorRTEngine(
        graph.parent / api.build(graph, targets=[gpus()[0].capability]).engine, cuda_graph=cuda_graph
    )
    reference = OnnxRuntimeEngine(graph)
    rng = np.random.default_rng(0)
    for batch in (1, 8, 3, 8, 8, 32, 1, 1):
        feeds = {"input": rng.standard_normal((batch, 3, 32, 32)).astype(np.float32)}
        # TF32 is off: fp32 is fp32, on ONNX Runtime's CPU and here.
        np.testing.assert_allclose(engine.run(feeds)["logits"], reference.run(feeds)["logits"], atol=1e-4, rtol=1e-4)
    with pytest.raises(InputError, match="outside the engine's profiles"):
        engine.run({"input": np.zeros((33, 3, 32, 32), np.float32)})
    with pytest.raises(InputError, match="float32"):
        engine.run({"input": np.zeros((1, 3, 32, 32))})
