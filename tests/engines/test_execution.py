"""The order of calls for every change of what runs on a GPU, with a device that notes them and computes on the CPU."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from recording_gpu import Doubling, Gpu

from s2mlp_deploy.engines import execution
from s2mlp_deploy.engines.execution import Execution
from s2mlp_deploy.errors import BuildError, InputError


@pytest.fixture
def gpu():
    return Gpu()


def make(gpu: Gpu, *, unknown: bool = False, **options) -> Execution:
    made = Execution(lambda: Doubling(gpu, unknown=unknown), gpu, ("x",), {"y": np.dtype(np.float32)}, **options)
    gpu.take()
    return made


def run(made: Execution, batch: int, profile: int = 0, start: float = 0.0) -> None:
    """A run whose result must be right: a graph that runs over old addresses or shapes gives another one."""
    x = np.arange(start, start + batch, dtype=np.float32)
    np.testing.assert_array_equal(made.run(profile, {"x": x})["y"], 2 * x)


def test_the_first_run_settles_shapes_makes_room_and_queues_plainly(gpu):
    made = make(gpu)
    run(made, 2)
    assert gpu.take() == [
        "context1 profile 0 shape 2",
        "reserve 8",
        "reserve 8",
        "in 8",
        "context1 enqueue",
        "out 8",
        "wait",
    ]


def test_the_second_run_is_captured_in_a_context_of_its_own_after_a_run_that_is_not(gpu):
    made = make(gpu)
    run(made, 2)
    gpu.take()
    run(made, 2, start=5)
    assert gpu.take() == [
        "in 8",
        "make context2",
        "context2 profile 0 shape 2",
        "context2 enqueue",
        "wait",
        "begin capture",
        "context2 enqueue",
        "end capture",
        "out 8",
        "wait",
    ]


def test_the_third_run_replays_the_graph_and_nothing_else(gpu):
    made = make(gpu)
    for start in (0, 5):
        run(made, 2, start=start)
    gpu.take()
    run(made, 2, start=9)
    assert gpu.take() == ["in 8", "launch graph1", "out 8", "wait"]


def test_other_shapes_in_between_leave_the_graph_and_its_context_alone(gpu):
    made = make(gpu)
    for _ in range(3):
        run(made, 4)
    gpu.take()
    run(made, 2, start=1)
    assert gpu.take() == ["context1 profile 0 shape 2", "in 8", "context1 enqueue", "out 8", "wait"]
    run(made, 4, start=2)
    assert gpu.take() == ["in 16", "launch graph1", "out 16", "wait"]


def test_a_profile_is_part_of_what_a_graph_belongs_to(gpu):
    made = make(gpu)
    for _ in range(2):
        run(made, 4)
    gpu.take()
    run(made, 4, profile=1)
    assert gpu.take()[0] == "context1 profile 1 shape 4"
    run(made, 4, profile=1)
    assert "context3 profile 1 shape 4" in gpu.take()


def test_before_a_buffer_moves_the_graphs_go_and_they_are_captured_again_at_the_new_place(gpu):
    made = make(gpu)
    for _ in range(3):
        run(made, 2)
    gpu.take()
    run(made, 4)
    calls = gpu.take()
    assert calls.index("close graph1") < calls.index("reserve 16")
    run(made, 2, start=3)
    calls = gpu.take()
    # The context keeps its shapes; the addresses are new, so it runs once before it is captured.
    assert calls[:6] == ["in 8", "context2 enqueue", "wait", "begin capture", "context2 enqueue", "end capture"]
    run(made, 2, start=4)
    assert gpu.take() == ["in 8", "launch graph2", "out 8", "wait"]


def test_nothing_moves_while_something_is_queued(gpu):
    made = make(gpu)
    for _ in range(2):
        made.upload(0, {"x": np.zeros(2, np.float32)})
        made.launch()
    gpu.take()
    made.launch()
    made.upload(0, {"x": np.zeros(4, np.float32)})
    calls = gpu.take()
    assert calls[:3] == ["launch graph1", "wait", "context1 profile 0 shape 4"]
    assert calls.index("close graph1") < calls.index("reserve 16")


def test_what_cannot_be_captured_is_queued_plainly_from_then_on(gpu, caplog):
    made = make(gpu)
    gpu.capture_fails = True
    run(made, 2)
    run(made, 2, start=1)
    calls = gpu.take()
    assert calls[-5:] == ["end capture", "close graph1", "close context2", "out 8", "wait"]
    assert "cannot be captured" in caplog.text
    for start in (2, 3):
        run(made, 2, start=start)
        assert gpu.take() == ["in 8", "context1 enqueue", "out 8", "wait"]
    gpu.capture_fails = False
    run(made, 4)
    run(made, 4)
    assert "begin capture" in gpu.take()


def test_where_memory_is_short_for_one_more_context_the_one_that_is_there_runs(gpu, caplog, monkeypatch):
    made = make(gpu)
    run(made, 2)

    def full():
        raise BuildError("the engine has no context: out of memory")

    monkeypatch.setattr(made, "_make_context", full)
    run(made, 2, start=1)
    assert "out of memory" in caplog.text
    gpu.take()
    run(made, 2, start=2)
    assert gpu.take() == ["in 8", "context1 enqueue", "out 8", "wait"]


def test_where_memory_is_short_at_the_first_run_of_one_more_context_that_is_given_back(gpu, caplog, monkeypatch):
    made = make(gpu)
    run(made, 2)
    enqueue = Doubling.enqueue

    def full(self, stream):
        if self.name != "context1":
            raise BuildError("the engine did not run: out of memory")
        enqueue(self, stream)

    monkeypatch.setattr(Doubling, "enqueue", full)
    for start in (1, 2):
        run(made, 2, start=start)
    assert caplog.text.count("out of memory") == 1
    assert "context2" not in gpu.alive
    assert gpu.take()[-4:] == ["in 8", "context1 enqueue", "out 8", "wait"]


def test_a_library_that_refuses_during_the_capture_leaves_no_graph(gpu):
    made = make(gpu)
    run(made, 2)
    enqueue = Doubling.enqueue
    count = []

    def refusing(self, stream):
        count.append(1)
        if gpu.capturing is not None:
            raise BuildError("the engine did not run")
        enqueue(self, stream)

    Doubling.enqueue = refusing
    try:
        run(made, 2, start=1)
    finally:
        Doubling.enqueue = enqueue
    assert not {name for name in gpu.alive if name.startswith("graph")}
    run(made, 2, start=2)


def test_without_capture_everything_is_queued_in_one_context(gpu):
    made = make(gpu, capture=False)
    for start in range(4):
        run(made, 2, start=start)
    assert [call for call in gpu.take() if "context" in call] == [
        "context1 profile 0 shape 2",
        *["context1 enqueue"] * 4,
    ]


def test_launching_again_without_uploading_replays_too(gpu):
    made = make(gpu)
    made.upload(0, {"x": np.ones(2, np.float32)})
    for _ in range(4):
        made.launch()
    assert [call for call in gpu.take() if call.startswith("launch")] == ["launch graph1"] * 2
    np.testing.assert_array_equal(made.download()["y"], [2, 2])


def test_more_shapes_than_graphs_keep_the_graphs_that_are_used(gpu, monkeypatch):
    made = make(gpu, max_graphs=2)
    run(made, 8)
    for _ in range(5):
        for batch in (2, 3, 4):
            run(made, batch)
    calls = gpu.take()
    assert calls.count("begin capture") == 2
    assert not [call for call in calls if call.startswith("close")]
    # Shapes that do not come any more give way.
    monkeypatch.setattr(execution, "_IDLE", 3)
    for _ in range(6):
        run(made, 4)
    calls = gpu.take()
    first = calls.index("close graph1")
    assert calls[first - 1] == "wait"
    assert calls[first + 1 : first + 3] == ["close context2", "make context4"]
    assert calls[-4:] == ["in 16", "launch graph3", "out 16", "wait"]


def test_an_output_whose_size_depends_on_values_is_allocated_while_it_runs_and_never_captured(gpu):
    made = make(gpu, unknown=True)
    for start in range(3):
        run(made, 2, start=start)
    assert "begin capture" not in gpu.take()
    run(made, 4)
    calls = gpu.take()
    assert calls[-6:] == ["context1 enqueue", "wait", "reserve 16", "wait", "out 16", "wait"]


def test_a_shape_that_the_library_refuses_leaves_the_next_run_whole(gpu):
    made = make(gpu)
    run(made, 2)
    with pytest.raises(BuildError, match="refuses the shape"):
        made.run(0, {"x": np.zeros(13, np.float32)})
    with pytest.raises(InputError, match="nothing was uploaded"):
        made.launch()
    run(made, 2, start=1)
    assert "context1 profile 0 shape 2" in gpu.take()


def test_a_run_that_fails_leaves_the_next_one_whole(gpu):
    made = make(gpu)
    gpu.launch_fails = True
    with pytest.raises(BuildError):
        made.run(0, {"x": np.zeros(2, np.float32)})
    gpu.launch_fails = False
    for start in range(3):
        run(made, 2, start=start)


def test_everything_is_given_back_once_in_order_and_used_no_more(gpu):
    made = make(gpu)
    for _ in range(3):
        run(made, 2)
    gpu.take()
    made.close()
    assert gpu.take() == ["wait", "close graph1", "close context2", "close context1"]
    assert gpu.alive == set()
    made.close()
    assert gpu.take() == []
    for call in (made.launch, made.download, lambda: run(made, 2)):
        with pytest.raises(InputError, match="the engine is closed"):
            call()


def test_every_call_makes_its_device_the_threads_own_first(gpu):
    made = make(gpu)
    run(made, 2)
    gpu.calls.clear()
    for call in (lambda: made.upload(0, {"x": np.zeros(2, np.float32)}), made.launch, made.download, made.close):
        call()
        assert gpu.calls[0] == "current"
        gpu.calls.clear()


def test_threads_take_turns_and_each_gets_its_own_result(gpu):
    made, wrong = make(gpu), []

    def work(batch: int) -> None:
        for start in range(50):
            x = np.arange(start, start + batch, dtype=np.float32)
            if not np.array_equal(made.run(0, {"x": x})["y"], 2 * x):
                wrong.append((batch, start))

    threads = [threading.Thread(target=work, args=(batch,)) for batch in (2, 3, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    # No call of one run lies between those of another: each begins with its copy in and ends with a wait.
    runs = " ".join(gpu.take()).split("out ")
    assert len(runs) == 151


def test_empty_arrays_have_an_address_too(gpu):
    made = make(gpu)
    run(made, 0)
    assert "reserve 1" in gpu.take()
