"""``bench`` from the command line: figures, files, exit statuses, and what is refused before anything is measured."""

from __future__ import annotations

import csv
import errno
import json
import os
from pathlib import Path

import pytest
from plain_artifact import write_plain

from s2mlp_deploy import api
from s2mlp_deploy.bench import process
from s2mlp_deploy.evidence.bench import BenchReport
from s2mlp_deploy.evidence.store import read_evidence

pytest.importorskip("onnxruntime")

QUICK = ("--launches", 1, "--rounds", 2, "--warmup", 0)


@pytest.fixture
def artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("s2mlp_deploy.bench.options.ROUND_MS", 2.0)
    write_plain(tmp_path / "a b ü")
    return tmp_path / "a b ü"


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))


def test_a_run_is_printed_saved_and_kept_as_evidence(cli, artifact, tmp_path):
    saved, table = tmp_path / "run.json", tmp_path / "run.csv"
    result = cli("bench", artifact, *QUICK, "--json", "--save", saved, "--csv", table)
    assert result.code == 0, result.err
    document = json.loads(result.out)
    assert (document["kind"], document["scenario"]) == ("bench", "single-stream")
    assert json.loads(saved.read_bytes()) == document
    (row,) = csv.DictReader(table.read_text().splitlines())
    assert row["file"] == str(artifact / "model.fp32.onnx")
    assert float(row["p50_ms"]) == document["results"][0]["latency"]["p50"]
    (kept,) = read_evidence(artifact).of(BenchReport)
    assert kept.name == "bench-single-stream.json"
    # A report that is sent around says nothing of the machine's folders.
    assert kept.record.results[0].candidate.file == "model.fp32.onnx"
    assert kept.record.results[0].candidate.sha256 == api.read_manifest(artifact).files[0].sha256
    assert str(tmp_path) not in (artifact / "evidence" / kept.name).read_text()
    again = cli("bench", artifact, *QUICK, "--compare", saved, "--save", saved, "--csv", table)
    assert again.code == 0, again.err
    assert "the run of" in again.out


def test_evidence_of_each_artifact_is_of_its_own_files(cli, artifact, tmp_path):
    write_plain(tmp_path / "other", seed=1)
    result = cli("bench", artifact, tmp_path / "other", artifact / "model.fp32.onnx", *QUICK, "--scenario", "offline")
    assert result.code == 0, result.err
    (mine,), (theirs,) = (read_evidence(place).of(BenchReport) for place in (artifact, tmp_path / "other"))
    assert [len(kept.record.results) for kept in (mine, theirs)] == [2, 1]
    assert mine.record.results[1].ratio.over == "model.fp32.onnx on onnxruntime, batch 1"
    # What it is over lies in the other artifact.
    assert theirs.record.results[0].ratio is None


def test_a_regression_is_a_failed_check(cli, artifact, tmp_path):
    saved = tmp_path / "run.json"
    assert cli("bench", artifact, *QUICK, "--save", saved).code == 0
    document = json.loads(saved.read_text())
    for launch in document["results"][0]["launches"]:
        launch["wall_ms"] = [time / 50 for time in launch["wall_ms"]]
    saved.write_text(json.dumps(document))
    result = cli("bench", artifact, *QUICK, "--compare", saved, "--max-slowdown", 1.5)
    assert result.code == 1
    assert "slower than 1.5 times the run of" in result.text
    assert "candidate" in result.out
    assert cli("bench", artifact, *QUICK, "--compare", saved).code == 0


def test_a_failed_candidate_is_shown_and_only_all_of_them_are_an_error(cli, artifact, tmp_path, monkeypatch):
    fault = "import os, s2mlp_deploy.bench.worker as w; real = w.open_engine; " + (
        "w.open_engine = lambda path, *a, **k: os.abort() if 'bad' in path.name else real(path, *a, **k); "
    )
    monkeypatch.setattr(process, "PROGRAM", fault + process.PROGRAM)
    bad = tmp_path / "bad.onnx"
    bad.write_bytes((artifact / "model.fp32.onnx").read_bytes())
    result = cli("bench", bad, artifact, *QUICK)
    assert result.code == 0, result.err
    assert "FAILED" in result.out
    assert "it ended with status" in result.out or "SIGABRT" in result.out
    result = cli("bench", bad, *QUICK, "--save", tmp_path / "run.json")
    assert result.code == 1
    assert "no candidate could be measured" in result.text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--batch", 0), "--batch"),
        (("--engine", "warp"), "there is no engine 'warp'"),
        (("--engine", "tensorrt-rtx"), "nothing of it runs on tensorrt-rtx"),
        (("--scenario", "burst"), "there is no 'burst' here"),
        (("--scenario", "server"), "needs a bound of the latency"),
        (("--p99", 5), "has no bound of the latency"),
        (("--queries", 5), "leave --queries out"),
        (("--scenario", "server", "--p99", 5, "--rounds", 3), "leave --rounds out"),
        (("--max-slowdown", 1.1), "nothing to compare with"),
        (("--max-slowdown", 0.5, "--compare", "run.json"), "no factor of at least 1"),
        (("--compare", "nope.json"), "the saved run cannot be read"),
        (("--shape", "input:axb"), "is not a shape"),
        (("--shape", "input:1x5x9"), "does not fit the input input"),
        (("--shape", "other:1x5x8"), "there is no input 'other'"),
        (("--engine", "openvino:GPU"), "no device 'GPU' here"),
        (("--engine", "onnxruntime:cuda"), "no cuda here"),
        (("--time-limit", 0), "time-limit is 0"),
        (("--time-limit", 1e300), "time-limit is 1e+300"),
        (("--threads", 10**30), "threads is 1000"),
        (("--batch", 10**30), "give numbers from 1 to 2147483647"),
        (("--shape", f"input:1x{10**30}"), "is not a shape"),
        (("--save", "text.txt/run.json"), "run.json cannot be written"),
        (("--csv", "text.txt/a/run.csv"), "run.csv cannot be written"),
        (("--save", "text.txt"), "no saved run is not replaced"),
        (("--csv", "text.txt"), "no table of a benchmark is not replaced"),
    ],
)
def test_what_is_wrong_is_refused_before_a_process_starts(
    refused, artifact, nothing_runs, tmp_path, monkeypatch, arguments, says
):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("mine")
    assert says in refused("bench", artifact, *arguments)
    assert Path("text.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a b ü", "text.txt"]
    assert not list((artifact / "evidence").glob("bench-*"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
@pytest.mark.parametrize("option", ["--save", "--csv", "--compare"])
def test_a_pipe_is_no_place_for_a_run(refused, artifact, nothing_runs, tmp_path, option):
    os.mkfifo(tmp_path / "pipe")
    refused("bench", artifact, option, tmp_path / "pipe")


def test_inputs_that_differ_are_refused_and_nothing_is_written(refused, artifact, nothing_runs, tmp_path):
    import onnx

    made = onnx.load(artifact / "model.fp32.onnx")
    made.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 7
    onnx.save(made, tmp_path / "wide.onnx")
    assert "inputs of different shapes" in refused("bench", artifact, tmp_path / "wide.onnx", *QUICK)
    assert not list((artifact / "evidence").glob("bench-*"))


def test_a_full_disk_leaves_the_figures_and_nothing_half_written(cli, artifact, tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    result = cli("bench", artifact, *QUICK, "--save", tmp_path / "run.json")
    assert result.code == 2
    assert "No space left" in result.text
    assert "p50 ms" in result.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a b ü"]


def test_it_needs_neither_torch_nor_onnx(process, artifact):
    heavy = ("torch", "onnx", "onnx_ir", "onnxscript", "safetensors", "tensorrt_rtx", "jinja2")
    result = process("bench", artifact / "model.fp32.onnx", *QUICK, "--json", blocked=heavy)
    assert result.code == 0, result.err
    assert "report was not written anew" in result.text
    assert read_evidence(artifact).of(BenchReport)
    assert json.loads(result.out)["results"][0]["failure"] == ""


def test_a_profile_that_a_runtime_wrote_is_inspected(cli, refused, tmp_path):
    layer = {"name": "fc1/MatMul", "timeMs": 3.0, "averageMs": 1.5, "medianMs": 1.5, "percentage": 100}
    (tmp_path / "profile.json").write_text(json.dumps([{"count": 2}, layer]))
    result = cli("inspect", tmp_path / "profile.json")
    assert result.code == 0, result.err
    assert "Where the time goes in profile.json" in result.out
    document = json.loads(cli("inspect", tmp_path / "profile.json", "--json").out)
    assert document["nodes"] == [{"name": "fc1/MatMul", "op": "MatMul", "module": "fc1", "ms": 1.5}]
    (tmp_path / "other.json").write_text("{}")
    assert "no profile of ONNX Runtime, OpenVINO or TensorRT" in refused("inspect", tmp_path / "other.json")
