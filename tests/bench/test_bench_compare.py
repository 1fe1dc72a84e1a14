"""A saved run is compared with on the machine it was made on, and noise is no regression."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_samples import bench, report

from s2mlp_deploy.bench.compare import check_comparable, read_saved, with_changes
from s2mlp_deploy.errors import ArtifactError, InputError
from s2mlp_deploy.evidence.bench import BenchReport, Launch, ServerResult
from s2mlp_deploy.evidence.store import encode

MACHINE = bench().environment.machine


def save(path: Path, saved: BenchReport) -> Path:
    path.write_bytes(encode(saved))
    return path


def timed(*rounds: float) -> BenchReport:
    """The sample's first result alone, with these rounds in each of three processes."""
    first = bench().results[0]
    return replace(bench(), results=(replace(first, launches=(Launch(0.1, 1, 1, rounds, rounds),) * 3),))


def test_a_run_of_this_machine_is_read(tmp_path: Path):
    path = save(tmp_path / "run.json", bench())
    assert read_saved(path, "single-stream", MACHINE) == bench()
    # A new kernel or Python is something to compare.
    assert read_saved(path, "single-stream", replace(MACHINE, system="Linux 7", python="3.99")) == bench()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"allowed_cores": 1}, "allowed cores (2, here 1)"),
        ({"cpu_quota": 1.5}, "cpu quota (none, here 1.5)"),
        ({"governor": "powersave"}, "governor (none, here powersave)"),
        ({"processor": replace(MACHINE.processor, name="Another")}, "processor (A processor, here Another)"),
    ],
)
def test_another_machine_is_refused_in_words(tmp_path: Path, change: dict[str, Any], says: str):
    path = save(tmp_path / "run.json", bench())
    with pytest.raises(InputError, match="of another machine") as caught:
        read_saved(path, "single-stream", replace(MACHINE, **change))
    assert says in caught.value.problem


def test_another_scenario_version_or_kind_is_refused(tmp_path: Path):
    path = save(tmp_path / "run.json", bench())
    with pytest.raises(InputError, match="of the scenario single-stream, this one of offline"):
        read_saved(path, "offline", MACHINE)
    document = json.loads(encode(bench()))
    path.write_text(json.dumps(document | {"schema_version": 99}))
    with pytest.raises(ArtifactError, match="schema version 99"):
        read_saved(path, "single-stream", MACHINE)
    path.write_bytes(encode(report()))
    with pytest.raises(ArtifactError, match="its kind is 'parity'"):
        read_saved(path, "single-stream", MACHINE)
    path.write_text("{")
    with pytest.raises(ArtifactError, match="damaged"):
        read_saved(path, "single-stream", MACHINE)
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_saved(tmp_path / "none.json", "single-stream", MACHINE)
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_saved(tmp_path, "single-stream", MACHINE)


def test_a_run_that_has_none_of_the_candidates_is_refused():
    candidate = bench().results[0].candidate
    check_comparable([candidate], bench())
    # The file may lie elsewhere and be another version: that is what is compared.
    check_comparable([replace(candidate, file=f"elsewhere/{candidate.file}", sha256="0" * 64)], bench())
    for change in (
        {"batch": 2},
        {"threads": 4},
        {"engine": "tensorrt"},
        {"inputs": ((1, 3, 9, 9),)},
        {"file": "b.onnx"},
    ):
        with pytest.raises(InputError, match="measured none of these"):
            check_comparable([replace(candidate, **change)], bench())
    # One that failed then has nothing to compare with.
    with pytest.raises(InputError, match="measured none of these"):
        check_comparable([bench().results[2].candidate], bench())


def test_a_slowdown_is_found_and_noise_is_none():
    before = timed(1.0, 1.0, 1.01, 0.99)
    slow = with_changes(timed(1.2, 1.21, 1.19, 1.2), before, 0)
    assert slow.compared_with == "2026-11-27T21:55:00Z"
    assert slow.results[0].change is not None
    assert slow.results[0].change.value == pytest.approx(1.2)
    assert slow.slower(1.1) == slow.results
    assert slow.slower(1.3) == ()
    noisy = with_changes(timed(0.7, 1.8, 1.6, 0.8), before, 0)
    assert noisy.results[0].change is not None
    assert noisy.results[0].change.value > 1.1
    assert noisy.slower(1.1) == ()


def test_what_failed_or_was_not_there_has_no_change():
    compared = with_changes(bench(), timed(2.0, 2.0), 0)
    assert [result.change is not None for result in compared.results] == [True, False, False]


def test_rates_are_compared_under_the_same_bound_only():
    def served(bound: float, *rates: float) -> BenchReport:
        only = replace(bench().results[0], server=ServerResult(bound, rates))
        return replace(bench(), scenario="server", results=(only,))

    (result,) = with_changes(served(5.0, 80, 81, 79), served(5.0, 100, 101, 99), 0).results
    assert result.change is not None
    assert result.change.value == pytest.approx(1.25)
    for now, then in ((served(6.0, 80), served(5.0, 100)), (served(5.0, 0.0), served(5.0, 100))):
        assert with_changes(now, then, 0).results[0].change is None
