"""The order of calls with a real CUDA kernel, compiled by NVRTC: no TensorRT is needed, only cuda-python and a GPU.

Without a GPU the same tests run on a double of CUDA.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import numpy as np
import pytest

pytest.importorskip("cuda.bindings.runtime")
from s2mlp_deploy.engines import cuda
from s2mlp_deploy.engines.execution import Execution
from s2mlp_deploy.engines.gpu_protocols import Shape
from s2mlp_deploy.errors import BuildError
from s2mlp_deploy.gpu import gpus

SOURCE = b"""
extern "C" __global__ void shifted(const float* x, float* y, int size) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) y[i] = 2.0f * x[i > 0 ? i - 1 : 0];
}
"""


def check(result: tuple) -> object:
    """What a function of the driver or the compiler returns after its status."""
    status, *values = result
    assert int(status) == 0, status
    return values[0] if len(values) == 1 else values


@pytest.fixture(scope="module", params=["double", pytest.param("gpu", marks=pytest.mark.gpu)])
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


@pytest.fixture(scope="module")
def device(world: None) -> cuda.Device:
    return cuda.use_device(0)


@pytest.fixture(scope="module")
def kernel(device: cuda.Device) -> object:
    from cuda.bindings import driver, nvrtc

    try:
        program = check(nvrtc.nvrtcCreateProgram(SOURCE, b"shifted.cu", 0, None, None))
    except RuntimeError as error:  # The bindings come without the library, which is found beside torch or a toolkit.
        pytest.skip(f"no NVRTC of the bindings' version: {error}")
    # Code of this very GPU: PTX of an NVRTC that is newer than the driver would be refused.
    check(nvrtc.nvrtcCompileProgram(program, 1, [f"--gpu-architecture=sm_{device.capability[2:]}".encode()]))
    code = b" " * check(nvrtc.nvrtcGetCUBINSize(program))
    check(nvrtc.nvrtcGetCUBIN(program, code))
    # The runtime has made the device's context current in this thread.
    cuda.call(cuda.runtime().cudaFree, 0)
    module = check(driver.cuModuleLoadData(code))
    return check(driver.cuModuleGetFunction(module, b"shifted"))


class Kernel:
    """A context that runs the kernel over its input; with ``hostile`` it waits inside, which no capture survives."""

    def __init__(self, function: object, *, hostile: bool = False) -> None:
        self._function, self._hostile = function, hostile
        self._bound: dict[str, int] = {}
        self._size = 0
        self.enqueued = 0

    def set_shapes(self, _: int, shapes: Mapping[str, Shape], __: int) -> Mapping[str, Shape | None]:
        self._size = int(np.prod(shapes["x"]))
        return {"y": shapes["x"]}

    def bind(self, name: str, address: int) -> None:
        self._bound[name] = address

    def bind_allocator(self, _: str, __: Callable[[int], int]) -> None:
        raise AssertionError("every size is known")

    def enqueue(self, stream: int) -> None:
        from cuda.bindings import driver

        self.enqueued += 1
        if self._hostile:
            cuda.call(cuda.runtime().cudaStreamSynchronize, stream)
        values = (np.uint64(self._bound["x"]), np.uint64(self._bound["y"]), np.int32(self._size))
        cells = [np.array([value]) for value in values]
        pointers = np.array([cell.ctypes.data for cell in cells], np.uint64)
        blocks = (self._size + 255) // 256
        (status,) = driver.cuLaunchKernel(self._function, blocks, 1, 1, 256, 1, 1, 0, stream, pointers.ctypes.data, 0)
        if int(status) != 0:
            raise BuildError(f"the kernel did not start: {status}")

    def shape_of(self, _: str) -> Shape:
        return (self._size,)

    def close(self) -> None:
        pass


def expected(x: np.ndarray) -> np.ndarray:
    return 2 * np.concatenate([x[:1], x[:-1]])


@pytest.fixture
def make(device: cuda.Device, kernel: object):
    made: list[Execution] = []
    contexts: list[Kernel] = []

    def build(*, hostile: bool = False, **options) -> tuple[Execution, list[Kernel]]:
        def context() -> Kernel:
            contexts.append(Kernel(kernel, hostile=hostile))
            return contexts[-1]

        made.append(Execution(context, device, ("x",), {"y": np.dtype(np.float32)}, **options))
        return made[-1], contexts

    yield build
    for execution in made:
        execution.close()


def test_shapes_that_come_and_go_and_buffers_that_grow_give_right_results_all_the_time(make):
    execution, contexts = make()
    rng = np.random.default_rng(0)
    for size in (1000, 1000, 1000, 500, 1000, 70_000, 1000, 1000, 1000, 70_000, 70_000, 70_000, 500, 500, 500, 1):
        x = rng.standard_normal(size).astype(np.float32)
        np.testing.assert_array_equal(execution.run(0, {"x": x})["y"], expected(x))
    # Three of the sizes came back, and were replayed: fewer launches went through a context than there were runs and
    # captures.
    assert len(contexts) == 4


def test_a_replay_goes_through_no_context(make):
    execution, contexts = make()
    x = np.arange(64, dtype=np.float32)
    for _ in range(2):
        execution.run(0, {"x": x})
    before = sum(context.enqueued for context in contexts)
    for start in range(10):
        np.testing.assert_array_equal(execution.run(0, {"x": x + start})["y"], expected(x + start))
    assert sum(context.enqueued for context in contexts) == before


def test_what_cannot_be_captured_runs_on(make, caplog):
    execution, _ = make(hostile=True)
    x = np.arange(64, dtype=np.float32)
    for start in range(5):
        np.testing.assert_array_equal(execution.run(0, {"x": x + start})["y"], expected(x + start))
    assert caplog.text.count("cannot be captured") == 1


def test_threads_get_their_own_results(make):
    execution, _ = make()
    sizes = (100, 3000, 50_000)
    right: list[int] = []

    def work(size: int) -> None:
        rng = np.random.default_rng(size)
        for _ in range(50):
            x = rng.standard_normal(size).astype(np.float32)
            np.testing.assert_array_equal(execution.run(0, {"x": x})["y"], expected(x))
        right.append(size)  # What is raised in a thread ends that alone.

    threads = [threading.Thread(target=work, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(right) == [*sizes]
