"""Bound inputs and outputs, on the CPU: ONNX Runtime binds its memory in the same way."""

from __future__ import annotations

import threading

import numpy as np
import onnx_graphs as og
import pytest

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
from s2mlp_deploy.engines.io_binding import BoundSession  # noqa: E402
from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine, captures_graph, provider_settings  # noqa: E402
from s2mlp_deploy.errors import InputError  # noqa: E402


class Counting:
    """A session that counts what is bound."""

    def __init__(self, session) -> None:
        self._session, self.bindings = session, 0

    def io_binding(self):
        self.bindings += 1
        return self._session.io_binding()

    def run_with_iobinding(self, binding) -> None:
        self._session.run_with_iobinding(binding)


@pytest.fixture
def bound(tmp_path):
    def make(model, **options) -> tuple[BoundSession, Counting]:
        path = og.save(model, tmp_path / "graph.onnx")
        engine = OnnxRuntimeEngine(path, threads=1)
        session = Counting(ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]))
        return BoundSession(ort, session, engine.inputs, engine.outputs, kind="cpu", device=0, **options), session

    return make


def doubled(batch: object = "batch"):
    node = og.node("Add", ["x", "x"], ["y"])
    return og.model([node], [og.value("x", og.FLOAT, [batch, 2])], [og.value("y", og.FLOAT, [batch, 2])])


def test_memory_stays_while_the_shapes_do_and_results_are_the_callers_own(bound):
    session, counting = bound(doubled())
    results = []
    for start in range(3):
        x = np.arange(start, start + 4, dtype=np.float32).reshape(2, 2)
        results.append((x, session.run({"x": x})[0]))
    assert counting.bindings == 1
    for x, y in results:
        np.testing.assert_array_equal(y, 2 * x)
    for batch in (3, 2):
        x = np.ones((batch, 2), np.float32)
        np.testing.assert_array_equal(session.run({"x": x})[0], 2 * x)
    assert counting.bindings == 3


def test_a_number_without_axes_stays_one(bound):
    nodes, inputs = [og.node("Neg", ["s"], ["y"])], [og.value("s", og.FLOAT, [])]
    session, _ = bound(og.model(nodes, inputs, [og.value("y", og.FLOAT, [])]))
    for number in (1, 2):
        (found,) = session.run({"s": np.array(number, np.float32)})
        assert (found.shape, float(found)) == ((), -number)


def test_an_output_whose_size_depends_on_values_is_allocated_at_every_run(bound):
    node = og.node("NonZero", ["x"], ["y"])
    session, _ = bound(og.model([node], [og.value("x", og.FLOAT, [4])], [og.value("y", og.INT64, [1, "found"])]))
    for x, found in (([1, 0, 0, 0], [0]), ([1, 0, 1, 1], [0, 2, 3]), ([0, 0, 0, 0], [])):
        assert session.run({"x": np.array(x, np.float32)})[0].tolist() == [found]


def test_a_run_that_fails_leaves_the_next_one_whole(bound):
    session, _ = bound(doubled(2))
    x = np.ones((2, 2), np.float32)
    session.run({"x": x})
    for wrong in ({"z": x}, {"x": np.ones((3, 2), np.float32)}, {"x": x.astype(np.float64)}):
        with pytest.raises(Exception):  # noqa: B017, PT011 - ONNX Runtime's own types.
            session.run(wrong)
        np.testing.assert_array_equal(session.run({"x": x})[0], 2 * x)


class Replaying(Counting):
    """A session with a CUDA graph: from the second run on it computes over the bindings of the first, in silence."""

    first = None

    def run_with_iobinding(self, binding) -> None:
        self.first = self.first or binding
        if self.first is not binding:
            raise AssertionError("replayed over bindings of other shapes")
        super().run_with_iobinding(binding)


def test_a_captured_graph_runs_its_own_shapes_alone(bound):
    session, counting = bound(doubled(), captures=True)
    session._session = counting = Replaying(counting._session)
    x = np.ones((2, 2), np.float32)
    for start in range(2):
        np.testing.assert_array_equal(session.run({"x": x + start})[0], 2 * (x + start))
        for other in (np.ones((3, 2), np.float32), x.astype(np.float64)):
            with pytest.raises(InputError, match=r"other shapes[\s\S]*at first x \[2, 2\] float32"):
                session.run({"x": other})
    session._shapes = {}  # As after a run that failed: what was captured must not be bound anew.
    session.run({"x": x})
    assert counting.bindings == 1


@pytest.mark.parametrize(
    ("settings", "captures"),
    [
        ({}, False),
        ({"enable_cuda_graph": "0"}, False),
        ({"enable_cuda_graph": "1"}, True),
        ({"trt_cuda_graph_enable": "True"}, True),
        ({"enable_cuda_graph": True}, True),
    ],
)
def test_whether_a_provider_captures_is_read_from_its_options(settings, captures):
    assert captures_graph(settings) == captures


@pytest.mark.parametrize("dtype", ["float16", "float64", "uint8", "int8", "int32", "int64", "bool"])
def test_inputs_of_any_type_are_written_into_what_is_bound(bound, dtype):
    kind = og.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    node = og.node("Identity", ["x"], ["y"])
    session, counting = bound(og.model([node], [og.value("x", kind, ["n"])], [og.value("y", kind, ["n"])]))
    for start in range(2):
        x = np.arange(start, start + 3).astype(dtype)
        (found,) = session.run({"x": x})
        np.testing.assert_array_equal(found, x)
        assert found.dtype == x.dtype
    assert counting.bindings == 1


def test_threads_take_turns(bound):
    session, _ = bound(doubled())
    right = []

    def work(batch: int) -> None:
        for start in range(30):
            x = np.full((batch, 2), start, np.float32)
            np.testing.assert_array_equal(session.run({"x": x})[0], 2 * x)
        right.append(batch)  # What is raised in a thread ends that alone.

    threads = [threading.Thread(target=work, args=(batch,)) for batch in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(right) == [1, 2, 3]


def test_fp32_is_fp32_on_cuda_unless_the_user_says_otherwise():
    cuda = "CUDAExecutionProvider"
    assert provider_settings(cuda, 1, None) == {"device_id": "1", "use_tf32": "0"}
    assert provider_settings(cuda, 0, {"use_tf32": "1"}) == {"device_id": "0", "use_tf32": "1"}
    assert provider_settings("CPUExecutionProvider", 0, None) == {}
    assert provider_settings("TensorrtExecutionProvider", 0, {"trt_fp16_enable": "0"}) == {
        "device_id": "0",
        "trt_fp16_enable": "0",
    }


def test_options_of_a_provider_reach_it(make_graph):
    engine = OnnxRuntimeEngine(make_graph(["batch", 3]), provider_options={"arena_extend_strategy": "kSameAsRequested"})
    np.testing.assert_array_equal(engine.run({"input": np.ones((1, 3), np.float32)})["output"], np.ones((1, 3)))
