"""What trtexec measured, beside a benchmark of our own: never as if it were of the same run."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from report_samples import FILE, SHA, artifact, bench, page_of

from s2mlp_deploy import api
from s2mlp_deploy.api import benchmarking
from s2mlp_deploy.bench.elsewhere import beside, read_elsewhere
from s2mlp_deploy.errors import ArtifactError, InputError
from s2mlp_deploy.evidence.bench import BenchReport
from s2mlp_deploy.evidence.store import decode, encode, read_record

FILES = Path(__file__).parents[1] / "engines" / "tensorrt" / "layer_files"
TIMES, PROFILE = FILES / "times.json", FILES / "profile-10.json"


def test_times_and_profiles_are_read_with_what_they_do_not_tell() -> None:
    times, profile = read_elsewhere(TIMES), read_elsewhere(PROFILE)
    rows = json.loads(TIMES.read_text())
    assert times.runs == len(rows)
    assert times.gpu_ms < times.p50 <= times.p90 <= times.p99
    assert times.profile is None
    assert (profile.p50, profile.p90) == (pytest.approx(0.8), None)
    assert "no machine" in times.doubt
    assert "p99 of 10 runs is the slowest of them" in times.doubt
    assert "p99" not in replace(times, runs=100).doubt
    assert "p99" not in profile.doubt
    assert profile.doubt.startswith("a sum of layers")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (TIMES.read_text()[:200], "no times of trtexec"),
        ((FILES / "objects-10.json").read_text(), "it has layers"),
        (encode(bench()).decode(), "--compare"),
        ('{"a": 1}', "of another tool"),
        ("[]", "it is empty"),
        ('[{"computeMs": 1.0}, {"latencyMs": 1.0}]', "run 1 has no computeMs"),
        ('[{"computeMs": -1.0}]', "no time"),
        ('[{"count": 3}, {"name": "a", "averageMs": -1.0}]', "are none"),
        ('[{"count": 3}, {"name": "a"}]', "averageMs"),
    ],
)
def test_what_holds_no_times_of_trtexec_is_refused(tmp_path, text, told) -> None:
    path = tmp_path / "times.json"
    path.write_text(text)
    with pytest.raises(ArtifactError) as caught:
        read_elsewhere(path)
    assert told in str(caught.value)
    assert caught.value.fix


def test_its_share_is_of_the_first_candidate_and_only_where_there_is_one_batch() -> None:
    report, times = bench(), read_elsewhere(TIMES)
    (item,) = beside(report, (times,)).elsewhere
    assert (item.over, item.ratio) == (report.results[0].candidate.name, pytest.approx(times.p50 / 2.0))
    assert "of runs with their copies" in item.doubt
    (item,) = beside(report, (read_elsewhere(PROFILE),)).elsewhere
    assert (item.over, item.ratio) == ("", None), "layers of a GPU, and runs of a CPU"
    launches = tuple(replace(run, gpu_ms=(0.5,) * len(run.wall_ms)) for run in report.results[0].launches)
    on_gpu = replace(report.results[0], launches=launches)
    for first, found, mine, time, of in (
        (on_gpu, TIMES, "p50", 2.0, "runs"),
        (on_gpu, PROFILE, "gpu_ms", 0.5, "computing"),
        (replace(on_gpu, latency=None), TIMES, "gpu_ms", 0.5, "computing"),
    ):
        (item,) = beside(replace(report, results=(first,)), (read_elsewhere(found),)).elsewhere
        assert (item.of, item.ratio) == (of, pytest.approx(getattr(item, mine) / time))
        assert f"the ratio is of {of}" in item.doubt
    other = replace(report.results[1], candidate=replace(report.results[1].candidate, batch=8))
    (item,) = beside(replace(report, results=(report.results[0], other)), (times,)).elsewhere
    assert (item.over, item.ratio) == ("", None)


@pytest.fixture
def measured(monkeypatch) -> None:
    """A benchmark that takes no time."""
    own = bench()

    def measure(jobs, *_, **__):
        names = [replace(result.candidate, file=str(job.path)) for job, result in zip(jobs, own.results, strict=False)]
        results = [replace(own.results[0], candidate=candidate, profile=None, ratio=None) for candidate in names]
        return replace(own, results=tuple(results))

    monkeypatch.setattr(benchmarking, "measure", measure)
    monkeypatch.setattr(benchmarking, "jobs_of", lambda files, *_: [_Job(Path(file)) for file in files])


class _Job:
    sha256 = SHA

    def __init__(self, path: Path) -> None:
        self.path = path


def test_it_stands_in_evidence_page_and_table_without_its_folder(measured, tmp_path) -> None:
    out = artifact(tmp_path / "out")
    report = api.bench([out / FILE, TIMES, PROFILE])
    assert [item.file for item in report.elsewhere] == [str(TIMES), str(PROFILE)]
    kept = read_record(out, BenchReport, "single-stream")
    assert kept is not None
    assert [item.file for item in kept.elsewhere] == ["times.json", "profile-10.json"]
    assert kept.elsewhere[0].over == kept.results[0].candidate.name
    assert decode(encode(kept), BenchReport) == kept
    body = page_of(out).body
    assert "measured elsewhere" in body
    assert "not of one run" in body
    assert str(TIMES.parent) not in (out / "report.html").read_text()
    rows = list(csv.DictReader(api.save_bench_csv(report, tmp_path / "t.csv").read_text().splitlines()))
    assert [row["engine"] for row in rows] == ["onnxruntime", "trtexec", "trtexec"]
    assert float(rows[1]["ratio"]) == pytest.approx(report.elsewhere[0].ratio)
    assert rows[2]["ratio"] == "", "layers of a GPU have nothing to compare with here"
    with pytest.raises(InputError, match="nothing to measure beside it"):
        api.bench([TIMES])
