"""Which files are measured with which inputs, and what is refused before or as soon as they are loaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import report_samples
from plain_artifact import write_plain

from s2mlp_deploy.artifact import SizeLimit, TensorInfo
from s2mlp_deploy.bench import candidates
from s2mlp_deploy.bench.candidates import MAX_CANDIDATES, Graph, jobs_of, shapes_of
from s2mlp_deploy.bench.options import BenchOptions
from s2mlp_deploy.errors import ArtifactError, InputError, TargetError
from s2mlp_deploy.evidence.build import InputProfile
from s2mlp_deploy.files import to_json


def graph(
    name: str = "a", shape: tuple[int | str, ...] = ("batch", 8), *, source: str = "", dtype: str = "float32"
) -> Graph:
    description = to_json({"source": {"reference": source}}).decode() if source else ""
    return Graph(name, (TensorInfo("x", dtype, shape),), (), description)


def test_an_artifact_stands_for_its_graphs(tmp_path: Path):
    write_plain(tmp_path / "art")
    (job,) = jobs_of([tmp_path / "art"], [], [])
    assert (job.path.name, job.engine, job.batch) == ("model.fp32.onnx", "onnxruntime", None)


def test_batches_files_and_engines_are_multiplied_in_order(perceptron: Callable[..., Path]):
    a, b = perceptron("a.onnx"), perceptron("b.onnx")
    jobs = jobs_of([a, b], ["onnxruntime", "onnxruntime:cpu"], [1, 8, 1])
    assert [(job.batch, job.path.name, job.engine) for job in jobs] == [
        (batch, name, engine)
        for batch in (1, 8)
        for name in ("a.onnx", "b.onnx")
        for engine in ("onnxruntime", "onnxruntime:cpu")
    ]


@pytest.mark.parametrize("engine", ["nope", "tensorrt:cuda", "onnxruntime:", ""])
def test_an_unknown_engine_is_refused(perceptron: Callable[..., Path], engine: str):
    with pytest.raises(TargetError, match="there is no engine"):
        jobs_of([perceptron()], [engine], [])


def test_what_cannot_be_measured_is_refused(perceptron: Callable[..., Path], tmp_path: Path):
    path = perceptron()
    with pytest.raises(InputError, match="no files"):
        jobs_of([], [], [])
    with pytest.raises(InputError, match="a batch of 0 is none"):
        jobs_of([path], [], [1, 0])
    with pytest.raises(InputError, match="runs on tensorrt-rtx") as caught:
        jobs_of([path], ["tensorrt-rtx"], [])
    assert f"build {path} --engine tensorrt-rtx --target sm89" in (caught.value.fix or "")
    with pytest.raises(InputError, match="candidates at once"):
        jobs_of([path], [], range(1, MAX_CANDIDATES + 2))
    with pytest.raises(ArtifactError, match="no such ONNX file"):
        jobs_of([tmp_path / "nope.onnx"], [], [])
    (tmp_path / "text.onnx").write_text("not a graph")
    with pytest.raises(ArtifactError):
        jobs_of([tmp_path / "text.onnx"], [], [])
    (tmp_path / "folder").mkdir()
    with pytest.raises(ArtifactError, match="not an artifact"):
        jobs_of([tmp_path / "folder"], [], [])
    (tmp_path / "a.engine").write_bytes(b"plan")
    with pytest.raises(ArtifactError, match="sidecar"):
        jobs_of([tmp_path / "a.engine"], [], [])


def test_an_engine_on_another_one_is_not_advised_to_be_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(candidates, "read_engine", lambda _: report_samples.build())
    with pytest.raises(InputError, match="nothing of it runs on onnxruntime") as caught:
        jobs_of([tmp_path / "a.engine"], ["onnxruntime"], [])
    assert "name the ONNX file that it was built from" in (caught.value.fix or "")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_is_no_file(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(ArtifactError, match="regular file"):
        jobs_of([tmp_path / "pipe.onnx"], [], [])


def test_a_file_of_an_artifact_that_was_changed_is_refused(tmp_path: Path):
    write_plain(tmp_path / "art")
    with (tmp_path / "art" / "model.fp32.onnx").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(ArtifactError, match="not the one its manifest describes"):
        jobs_of([tmp_path / "art"], [], [])


def test_the_batch_is_the_one_asked_for_or_the_files_own():
    assert shapes_of([graph()], [3], {}) == ({"x": (3, 8)},)
    assert shapes_of([graph()], [None], {}) == ({"x": (1, 8)},)
    assert shapes_of([graph(), graph("b", (4, 8))], [None, None], {}) == ({"x": (4, 8)}, {"x": (4, 8)})
    free = graph(shape=("batch", 3, "height", "width"))
    assert shapes_of([free], [2], {"x": (1, 3, 16, 16)}) == ({"x": (2, 3, 16, 16)},)
    assert shapes_of([free], [None], {"x": (5, 3, 16, 16)}) == ({"x": (5, 3, 16, 16)},)
    limited = Graph("a", graph().inputs, (SizeLimit("x", 0, "batch", min=2),), "")
    assert shapes_of([limited], [None], {}) == ({"x": (2, 8)},)
    built = Graph("e", graph().inputs, (), "", ({"x": InputProfile((1, 8), (4, 8), (4, 8))},))
    assert shapes_of([built], [4], {}) == ({"x": (4, 8)},)
    with pytest.raises(InputError, match="outside the engine's profiles"):
        shapes_of([graph(), built], [5, 5], {})
    scalar = Graph("a", (TensorInfo("x", "float32", ("batch", 8)), TensorInfo("s", "int64", ())), (), "")
    assert shapes_of([scalar], [2], {}) == ({"x": (2, 8), "s": ()},)


@pytest.mark.parametrize(
    ("graphs", "batches", "given", "says"),
    [
        ([graph(source="net_a"), graph("b", source="net_b")], [1, 1], {}, "exported from different models"),
        ([graph(), graph("b", ("batch", 9))], [1, 1], {}, "inputs of different shapes"),
        ([graph(shape=(2, 8)), graph("b", (4, 8))], [None, None], {}, "different fixed batches: 2, 4"),
        ([graph(shape=(2, 8))], [4], {}, "fixed at 2, and 4 was asked for"),
        ([graph(shape=("batch", 3, "height", "width"))], [1], {}, "free sizes besides its batch"),
        ([graph()], [1], {"y": (1, 8)}, "there is no input 'y'"),
        ([graph()], [1], {"x": (1, 9)}, "does not fit the input x"),
        ([graph()], [1], {"x": (1, 8, 1)}, "does not fit the input x"),
        ([Graph("a", graph().inputs, (SizeLimit("x", 0, "batch", multiple=2),), "")], [3], {}, "a multiple of 2"),
    ],
)
def test_what_does_not_belong_together_or_fit_is_refused(graphs, batches, given, says):
    with pytest.raises(InputError, match=says) as caught:
        shapes_of(graphs, batches, given)
    assert caught.value.fix


def test_a_foreign_file_beside_one_of_ours_is_measured():
    # A stock exporter's file does not say where it comes from.
    assert len(shapes_of([graph(source="net_a"), graph("b")], [1, 1], {})) == 2


@pytest.mark.parametrize(
    "description", ["", "{", "[]", '{"source": 3}', '{"source": {"reference": 3}, "precision": 1}']
)
def test_a_description_that_is_damaged_says_nothing(description: str):
    damaged = Graph("a", (), (), description)
    assert (damaged.source, damaged.precision) == ("", "")


@pytest.mark.parametrize(
    "options",
    [
        {"scenario": "burst"},
        {"threads": -1},
        {"launches": 0},
        {"rounds": 0},
        {"queries": 0},
        {"warmup": -1.0},
        {"warmup": float("nan")},
        {"time_limit": 0.0},
        {"scenario": "server"},
        {"bound_ms": 5.0},
        {"scenario": "server", "bound_ms": 0.0},
        {"scenario": "server", "bound_ms": float("inf")},
    ],
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(InputError) as caught:
        BenchOptions(**options)
    assert caught.value.fix


def test_rounds_are_long_enough_and_not_endless():
    options = BenchOptions(launches=2, rounds=5)
    assert options.runs_for(1.0) == 100
    assert options.runs_for(0.001) == 2000
    # 100 runs in all make a 99th percentile; where they would take long, a warning has to do.
    assert options.runs_for(60.0) == 10
    assert options.runs_for(500.0) == 1
