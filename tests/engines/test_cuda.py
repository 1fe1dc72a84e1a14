"""The buffer, stream and graph layer. On a GPU its results are compared with NumPy's; without one, what it says."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("cuda.bindings.runtime")
from s2mlp_deploy.engines import cuda
from s2mlp_deploy.errors import TargetError
from s2mlp_deploy.gpu import gpus


def test_every_name_of_the_bindings_that_is_used_exists():
    import ast
    import inspect

    tree = ast.parse(inspect.getsource(cuda))
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr.startswith("cuda")}
    names |= {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and str(node.value)[:10] == "cudaMemcpy"
    }
    assert "cudaMalloc" in names
    module = cuda.runtime()
    known = {*dir(module), *dir(module.cudaMemcpyKind), *dir(module.cudaDeviceAttr), *dir(module.cudaStreamCaptureMode)}
    assert names <= known


@pytest.mark.skipif(bool(gpus()), reason="this machine has a GPU")
def test_without_a_gpu_one_line_says_so():
    with pytest.raises(TargetError) as caught:
        cuda.use_device(0)
    assert "needs an NVIDIA GPU, and there is none here" in str(caught.value).splitlines()[0]


@pytest.mark.skipif(bool(gpus()), reason="this machine has a GPU")
def test_an_error_of_cuda_is_told_in_its_words():
    with pytest.raises(TargetError, match=r"CUDA: .*\(cudaErrorInsufficientDriver\)|CUDA: .*\(cudaErrorNoDevice\)"):
        cuda.Stream()


@pytest.mark.gpu
def test_a_round_trip_through_the_device_changes_nothing():
    cuda.use_device(0)
    given = np.random.default_rng(0).standard_normal((3, 5, 7)).astype(np.float32)
    got = np.zeros_like(given)
    with cuda.Stream() as stream, cuda.Buffer(given.nbytes) as buffer:
        buffer.fill_from(given, stream)
        buffer.copy_to(got, stream)
        stream.wait()
        np.testing.assert_array_equal(got, given)


@pytest.mark.gpu
def test_a_buffer_grows_and_keeps_its_place_while_it_is_large_enough():
    cuda.use_device(0)
    with cuda.Buffer(1024) as buffer:
        place = buffer.address
        assert not buffer.reserve(512)
        assert buffer.address == place
        assert buffer.reserve(1 << 20)
        assert buffer.size == 1 << 20


@pytest.mark.gpu
def test_a_graph_replays_a_copy_with_what_is_in_the_source_then():
    cuda.use_device(0)
    module = cuda.runtime()
    with cuda.Stream() as stream, cuda.Buffer(64) as source, cuda.Buffer(64) as target:
        with stream.capture() as graph:
            kind = module.cudaMemcpyKind.cudaMemcpyDeviceToDevice
            cuda.call(module.cudaMemcpyAsync, target.address, source.address, 64, kind, stream.handle)
        for value in (1.0, 2.0):
            given, got = np.full(16, value, np.float32), np.zeros(16, np.float32)
            source.fill_from(given, stream)
            graph.launch(stream)
            target.copy_to(got, stream)
            stream.wait()
            np.testing.assert_array_equal(got, given)


@pytest.mark.gpu
def test_events_measure_gpu_time():
    cuda.use_device(0)
    with cuda.Stream() as stream, cuda.Event() as start, cuda.Event() as end, cuda.Buffer(1 << 26) as buffer:
        host = np.zeros(1 << 26, np.uint8)
        start.record(stream)
        buffer.fill_from(host, stream)
        end.record(stream)
        end.wait()
        assert 0 < end.milliseconds_since(start) < 10_000
