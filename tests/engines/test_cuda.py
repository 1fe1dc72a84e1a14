"""The buffer, stream and graph layer. On a GPU its results are compared with NumPy's; without one, what it says."""

from __future__ import annotations

from types import SimpleNamespace

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


class Recorded:
    """A stand-in for ``cudart`` that notes what is asked of captures."""

    class cudaStreamCaptureMode:  # noqa: N801 - CUDA's names.
        cudaStreamCaptureModeThreadLocal = 1  # noqa: N815

    cudaStreamNonBlocking = 1  # noqa: N815

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.status = dict.fromkeys(("cudaStreamEndCapture", "cudaGraphInstantiate"), 0)

    def __getattr__(self, name: str):
        def call(*_):
            self.calls.append(name)
            made = {"cudaStreamCreateWithFlags": 7, "cudaStreamEndCapture": "recorded", "cudaGraphInstantiate": "exec"}
            return (self.status.get(name, 0), made[name]) if name in made else (0,)

        return call

    def cudaGetErrorName(self, _):  # noqa: N802
        return 0, b"cudaErrorStreamCaptureInvalidated"

    def cudaGetErrorString(self, _):  # noqa: N802
        return 0, b"operation failed due to a previous error during capture"


@pytest.fixture
def recorded(monkeypatch):
    made = Recorded()
    monkeypatch.setattr(cuda, "runtime", lambda: made)
    return made


CREATE = "cudaStreamCreateWithFlags"


def test_a_capture_becomes_a_graph_and_the_recording_is_given_back(recorded):
    stream = cuda.Stream()
    with stream.capture() as graph:
        pass
    graph.close()
    assert recorded.calls == [
        *(CREATE, "cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate", "cudaGraphDestroy"),
        "cudaGraphExecDestroy",
    ]


def test_a_body_that_raises_ends_the_capture_and_gives_the_recording_back(recorded):
    stream = cuda.Stream()
    with pytest.raises(KeyboardInterrupt), stream.capture():
        raise KeyboardInterrupt
    assert recorded.calls == [CREATE, "cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphDestroy"]


def test_a_capture_that_cuda_gave_up_has_nothing_to_give_back(recorded):
    stream = cuda.Stream()
    recorded.status["cudaStreamEndCapture"] = 901
    with pytest.raises(ValueError, match="the body"), stream.capture():
        raise ValueError("the body")
    with pytest.raises(TargetError, match="cudaErrorStreamCaptureInvalidated"), stream.capture():
        pass
    assert recorded.calls == [CREATE, *["cudaStreamBeginCapture", "cudaStreamEndCapture"] * 2]


def test_a_graph_that_cannot_be_instantiated_leaves_no_recording(recorded):
    stream = cuda.Stream()
    recorded.status["cudaGraphInstantiate"] = 2
    with pytest.raises(TargetError), stream.capture():
        pass
    assert recorded.calls[-2:] == ["cudaGraphInstantiate", "cudaGraphDestroy"]


def test_a_device_is_known_by_cudas_number_and_its_uuid(recorded):
    recorded.cudaGetDeviceCount = lambda: (0, 2)
    found = SimpleNamespace(name=b"NVIDIA L4", major=8, minor=9, uuid=SimpleNamespace(bytes=bytes(range(16))))
    recorded.cudaGetDeviceProperties = lambda number: (0, found)
    uuid = "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert cuda.use_device(1) == cuda.Device(1, "NVIDIA L4", "sm89", uuid)
    assert recorded.calls == ["cudaSetDevice"]
    for number in (2, -1):
        with pytest.raises(TargetError, match=r"there is no GPU -?\d[\s\S]*choose 0 to 1; CUDA counts"):
            cuda.use_device(number)


@pytest.mark.parametrize(
    ("status", "driver", "says"),
    [
        (35, "12.4", r"the driver here is for CUDA 12\.4[\s\S]*pip install 'cuda-bindings==12\.\*'"),
        (802, "13.0", r"no GPU can be used: CUDA: [\s\S]*nvidia-smi"),
        (35, None, "there is none here"),
        (100, "13.0", "there is none here"),
    ],
)
def test_a_gpu_that_cuda_cannot_use_is_not_called_missing(recorded, monkeypatch, status, driver, says):
    recorded.cudaGetDeviceCount = lambda: (status, 0)
    monkeypatch.setattr(cuda, "cuda_version", lambda: driver)
    with pytest.raises(TargetError, match=says):
        cuda.use_device(0)


def test_a_staging_buffer_holds_arrays_of_any_type_and_shape(monkeypatch):
    memory = np.zeros(64, np.uint8)
    staging = cuda.PinnedBuffer()
    monkeypatch.setattr(staging, "_destroy", lambda _: None)
    staging._handle, staging.size = memory.ctypes.data, 64
    for array in (np.arange(6, dtype=np.float16).reshape(2, 3), np.array(3.5, np.float32), np.zeros((0, 4), np.int8)):
        staging.write(array)
        found = staging.view(array.shape, array.dtype)
        np.testing.assert_array_equal(found, array)
        assert (found.dtype, found.shape) == (array.dtype, array.shape)


# As in test_execution_on_gpu.py, which runs on a bare machine with nothing of the tests beside it.
@pytest.fixture(params=["double", pytest.param("gpu", marks=pytest.mark.gpu)])
def world(request):
    """A GPU; without one its double, which takes what the real bindings take."""
    if request.param == "gpu":
        yield
        return
    if gpus():
        pytest.skip("this machine has a GPU")
    from cuda_double import in_place_of_cuda

    with in_place_of_cuda():
        yield


@pytest.mark.usefixtures("world")
def test_a_round_trip_through_the_device_changes_nothing():
    cuda.use_device(0)
    given = np.random.default_rng(0).standard_normal((3, 5, 7)).astype(np.float32)
    with (
        cuda.Stream() as stream,
        cuda.Buffer(given.nbytes) as buffer,
        cuda.PinnedBuffer() as source,
        cuda.PinnedBuffer() as target,
    ):
        for staging in (source, target):
            staging.reserve(given.nbytes)
        source.write(given)
        buffer.fill_from(source, given.nbytes, stream)
        buffer.copy_to(target, given.nbytes, stream)
        stream.wait()
        np.testing.assert_array_equal(target.view(given.shape, given.dtype), given)


@pytest.mark.usefixtures("world")
def test_a_buffer_grows_and_keeps_its_place_while_it_is_large_enough():
    cuda.use_device(0)
    with cuda.Buffer(1024) as buffer:
        place = buffer.address
        assert not buffer.reserve(512)
        assert buffer.address == place
        assert buffer.reserve(1 << 20)
        assert buffer.size == 1 << 20
        with pytest.raises(TargetError, match=r"CUDA: out of memory \(cudaErrorMemoryAllocation\)"):
            buffer.reserve(1 << 50)
        assert (buffer.address, buffer.size) == (0, 0)


@pytest.mark.gpu
def test_a_device_has_the_uuid_that_nvidia_smi_shows():
    found = cuda.use_device(0)
    assert found.uuid in {gpu.uuid for gpu in gpus()}
    assert (found.name, found.capability) in {(gpu.name, gpu.capability) for gpu in gpus()}


@pytest.mark.usefixtures("world")
def test_events_measure_gpu_time():
    cuda.use_device(0)
    size = 1 << 26
    with (
        cuda.Stream() as stream,
        cuda.Event() as start,
        cuda.Event() as end,
        cuda.Buffer(size) as buffer,
        cuda.PinnedBuffer() as host,
    ):
        host.reserve(size)
        start.record(stream)
        buffer.fill_from(host, size, stream)
        end.record(stream)
        end.wait()
        assert 0 < end.milliseconds_since(start) < 10_000
