"""Candidates are measured in processes of their own: what one does is nothing to the others."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from s2mlp_deploy.bench import messages
from s2mlp_deploy.bench.arrivals import RateSearch
from s2mlp_deploy.bench.candidates import jobs_of
from s2mlp_deploy.bench.engines import open_engine
from s2mlp_deploy.bench.options import BenchOptions
from s2mlp_deploy.bench.process import WorkerProcess
from s2mlp_deploy.bench.run import _own_seconds, measure
from s2mlp_deploy.bench.track import Track
from s2mlp_deploy.errors import InputError, TargetError
from s2mlp_deploy.evidence.bench import BenchReport, RateTrial
from s2mlp_deploy.evidence.store import decode, encode
from s2mlp_deploy.evidence.tune import EngineSettings

pytest.importorskip("onnxruntime")

QUICK = {"launches": 1, "rounds": 2, "warmup": 0.0, "time_limit": 30.0}


def quick(**changes: object) -> BenchOptions:
    return BenchOptions(**(QUICK | changes))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s2mlp_deploy.bench.options.ROUND_MS", 2.0)


def test_candidates_are_measured_side_by_side(perceptron: Callable[..., Path]):
    files = [perceptron("a.onnx", precision="fp32"), perceptron("b.onnx")]
    report = measure(jobs_of(files, [], [1, 4]), quick(launches=2))
    assert [(Path(r.candidate.file).name, r.candidate.batch) for r in report.results] == [
        ("a.onnx", 1),
        ("b.onnx", 1),
        ("a.onnx", 4),
        ("b.onnx", 4),
    ]
    first, second, third, fourth = report.results
    assert first.candidate.precision == "fp32"
    assert first.candidate.runtime.startswith("onnxruntime 1.")
    assert third.candidate.inputs == ((4, 8),)
    # Ratios are within a batch.
    assert first.ratio is third.ratio is None
    assert second.ratio is not None
    assert second.ratio.over == first.candidate.name
    assert fourth.ratio is not None
    assert fourth.ratio.over == third.candidate.name
    for result in report.results:
        assert not result.failure
        assert [len(launch.wall_ms) for launch in result.launches] == [2, 2]
        assert result.latency is not None
        assert result.latency.min <= result.latency.p50 <= result.latency.p90 <= result.latency.p99
        assert result.throughput == pytest.approx(result.candidate.batch / result.latency.p50 * 1e3)
        # Python with this package before, and ONNX Runtime besides after.
        assert 10e6 < result.base_bytes < result.peak_bytes < 500e6
        assert 0 < (result.load_seconds or 0) < 30
    assert decode(encode(report), BenchReport) == report


def test_offline_times_runs_together(perceptron: Callable[..., Path]):
    (result,) = measure(jobs_of([perceptron()], [], [2]), quick(scenario="offline")).results
    assert result.latency is None
    assert result.throughput == pytest.approx(2 / (result.wall_ms or 0) * 1e3)


def test_the_server_holds_a_rate(perceptron: Callable[..., Path]):
    options = quick(scenario="server", bound_ms=4.0, queries=20)
    (result,) = measure(jobs_of([perceptron()], [], []), options).results
    assert result.server is not None
    assert result.server.bound_ms == 4.0
    assert len(result.server.rates) == 1
    assert all(trial.p99 <= 4.0 for trial in result.server.trials if trial.holds)
    # With a bound far below one run nothing holds, and it is told.
    options = quick(scenario="server", bound_ms=1e-4, queries=20)
    (result,) = measure(jobs_of([perceptron()], [], []), options).results
    assert result.throughput is None
    assert any("no rate keeps" in warning for warning in result.warnings)


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("crash", "it was ended by SIGSEGV: the last words"),
        ("noload", "it was ended by SIGSEGV"),
        ("abort", "it was ended by SIGABRT"),
        ("leave", "it ended with status 3"),
    ],
)
def test_an_engine_that_crashes_fails_alone(faults: None, perceptron: Callable[..., Path], fault: str, says: str):
    files = [perceptron(f"{fault}.onnx"), perceptron("sound.onnx")]
    failed, sound = measure(jobs_of(files, [], []), quick()).results
    assert failed.failure.startswith(says)
    assert failed.launches == ()
    assert sound.latency is not None
    # It is the first that was measured: there is nothing to compare it with.
    assert sound.ratio is None


def test_an_engine_that_hangs_is_ended(faults: None, perceptron: Callable[..., Path]):
    files = [perceptron("sound.onnx"), perceptron("hang.onnx")]
    start = time.monotonic()
    sound, failed = measure(jobs_of(files, [], []), quick(time_limit=3.0)).results
    assert failed.failure == "it did not answer within 3 s and was ended"
    assert sound.latency is not None
    assert time.monotonic() - start < 30


def test_what_a_library_prints_is_no_answer(faults: None, perceptron: Callable[..., Path]):
    (result,) = measure(jobs_of([perceptron("chatter.onnx")], [], []), quick()).results
    assert not result.failure


def test_a_graph_that_the_runtime_refuses_is_a_failure(tmp_path: Path, perceptron: Callable[..., Path]):
    import onnx

    made = onnx.load(perceptron("strange.onnx"))
    made.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(made, tmp_path / "strange.onnx")
    failed, sound = measure(jobs_of([tmp_path / "strange.onnx", perceptron()], [], []), quick()).results
    assert "ONNX Runtime cannot load the model" in failed.failure
    assert sound.latency is not None


def test_a_provider_that_is_not_here_is_the_users_to_mend(perceptron: Callable[..., Path]):
    with pytest.raises(TargetError, match="ONNX Runtime has no mars here") as caught:
        measure(jobs_of([perceptron()], ["onnxruntime:mars"], []), quick())
    assert "CPUExecutionProvider" in (caught.value.fix or "")


def test_a_size_that_the_graph_was_not_made_for_is_refused(perceptron: Callable[..., Path]):
    limits = [{"input": "input", "axis": 0, "name": "batch", "multiple": 4}]
    with pytest.raises(InputError, match="a multiple of 4"):
        measure(jobs_of([perceptron(limits=limits)], [], [2]), quick())
    # Without a batch the smallest allowed one is taken.
    (result,) = measure(jobs_of([perceptron(limits=limits)], [], []), quick()).results
    assert result.candidate.batch == 4


def test_a_worker_ends_with_its_parent_also_while_it_hangs(faults: None, perceptron: Callable[..., Path]):
    worker = WorkerProcess(30.0)
    worker.ask(messages.Open(str(perceptron("hang.onnx")), "onnxruntime", EngineSettings(1)), messages.Opened)
    assert worker._process.stdin is not None
    worker._process.stdin.write(messages.encode(messages.Warm({"input": (1, 8)}, 0, 0.0)))
    worker._process.stdin.close()  # As the kernel does for a parent that was killed.
    assert worker._process.wait(20) == 0
    worker.close()


def test_a_trial_may_take_as_long_as_its_queries_arrive(perceptron: Callable[..., Path]):
    (job,) = jobs_of([perceptron()], [], [])
    track = Track(job, BenchOptions(scenario="server", bound_ms=20.0, time_limit=1.0))
    track.search = RateSearch(1.0)
    asked: list[float] = []

    class Slow:
        def ask(self, command: messages.Serve, _: type, *, longer: float) -> messages.Served:
            asked.append(longer - command.queries / command.rate)
            return messages.Served(RateTrial(command.rate, command.queries, 0, 1.0, holds=True))

    track._process = Slow()  # type: ignore[assignment]
    track.try_rate()
    # 200 queries at less than one a second: minutes, with a limit of a second for what is no waiting.
    assert asked
    assert asked[0] > 200


def test_processor_time_of_workers_is_no_other_load(faults: None, perceptron: Callable[..., Path]):
    before = _own_seconds()
    (failed,) = measure(jobs_of([perceptron("spin.onnx")], [], []), quick(time_limit=2.0)).results
    assert failed.failure
    # It span for two seconds before it was ended.
    assert _own_seconds() - before > 1.0


def test_all_flush_where_that_is_asked_for_also_while_nodes_are_timed(faults: None, perceptron: Callable[..., Path]):
    jobs = jobs_of([perceptron("flushes.onnx"), perceptron()], [], [])
    flushing, other = measure(jobs, quick(flush_denormals=True), look_into=lambda results: [0]).results
    assert not flushing.failure
    assert flushing.candidate.flush_denormals
    assert flushing.profile is not None
    assert other.profile is None
    assert decode(encode(measure(jobs[:1], quick())), BenchReport).results[0].failure == "it ended with status 4"


def test_an_engine_file_flushes_as_it_was_built(tmp_path: Path):
    with pytest.raises(InputError, match="decided when it was built"):
        open_engine(tmp_path / "a.engine", "openvino", settings=EngineSettings(1, flush_denormals=True))
