"""A benchmark against a saved one of the same machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from s2mlp_deploy.bench.statistics import gaps_of, unpaired_ratio
from s2mlp_deploy.errors import ArtifactError, InputError
from s2mlp_deploy.evidence.bench import BenchReport, BenchResult, Candidate, Ratio
from s2mlp_deploy.evidence.machine import Machine, this_machine
from s2mlp_deploy.evidence.store import decode
from s2mlp_deploy.files import read_file
from s2mlp_deploy.text import join_names

_MAY_DIFFER = frozenset(("python", "system"))
"""Of a machine: a new kernel or Python is a thing to compare, not another machine."""


def read_saved(path: Path, scenario: str, machine: Machine | None = None) -> BenchReport:
    """Reads a saved run that can be compared with.

    Args:
        path: What ``--save`` wrote.
        scenario: Of the run that is compared with it.
        machine: Where that runs; default: this one.

    Raises:
        ArtifactError: It is not there, no saved run, damaged, or of another version.
        InputError: It is of another scenario or machine; says what differs.
    """
    try:
        saved = decode(read_file(path, "evidence"), BenchReport)
    except OSError as error:
        raise ArtifactError(
            f"the saved run cannot be read: {error.strerror or error}",
            where=str(path),
            fix="check the path; `bench` makes one with --save FILE",
        ) from error
    except ArtifactError as error:
        raise ArtifactError(
            f"the saved run cannot be compared with: {error.problem}",
            where=str(path),
            fix="measure it again with this version and --save",
        ) from error
    if saved.scenario != scenario:
        raise InputError(
            f"the saved run is of the scenario {saved.scenario}, this one of {scenario}",
            where=str(path),
            fix=f"--scenario {saved.scenario}",
        )
    here = machine or this_machine()
    then = saved.environment.machine
    differing = [
        f"{item.name.replace('_', ' ')} ({_shown(getattr(then, item.name))}, here {_shown(getattr(here, item.name))})"
        for item in dataclasses.fields(Machine)
        if item.name not in _MAY_DIFFER and getattr(then, item.name) != getattr(here, item.name)
    ]
    if differing:
        raise InputError(
            f"the saved run is of another machine: {join_names(differing)}",
            where=str(path),
            fix="compare with a run of this machine, or measure several files in one run",
        )
    return saved


def _shown(value: object) -> str:
    name = getattr(value, "name", value)
    return str(name) if name not in (None, "", ()) else "none"


def check_comparable(candidates: Sequence[Candidate], saved: BenchReport) -> None:
    """Refuses a comparison in which nothing would be compared.

    Raises:
        InputError: No candidate was measured in the saved run with the same engine, batch, threads and shapes.
    """
    there = {_key(result.candidate): result for result in saved.measured}
    if not any(_key(candidate) in there for candidate in candidates):
        raise InputError(
            "the saved run has measured none of these",
            where="; ".join(candidate.name for candidate in candidates),
            fix="it has "
            + join_names((f"{name.name} ({name.threads} threads)" for name in _of(saved)), separator="; "),
        )


def with_changes(report: BenchReport, saved: BenchReport, seed: int) -> BenchReport:
    """A run with its ratios to a saved one.

    Args:
        report: The run.
        saved: What :func:`read_saved` gives.
        seed: Of the resampling.
    """
    there = {_key(result.candidate): result for result in saved.measured}
    results = tuple(
        result
        if result.failure or (then := there.get(_key(result.candidate))) is None
        else replace(result, change=_change(result, then, saved.environment.time, seed))
        for result in report.results
    )
    return replace(report, results=results, compared_with=saved.environment.time)


def _change(result: BenchResult, then: BenchResult, time: str, seed: int) -> Ratio | None:
    over = f"the run of {time}"
    if result.server is not None and then.server is not None:
        same = result.server.bound_ms == then.server.bound_ms
        gaps, others = gaps_of(result.server), gaps_of(then.server)
        return unpaired_ratio(gaps, others, over=over, seed=seed) if same and gaps and others else None
    now, before = ([launch.wall_ms for launch in item.launches] for item in (result, then))
    return unpaired_ratio(now, before, over=over, seed=seed)


def _key(candidate: Candidate) -> tuple[object, ...]:
    return Path(candidate.file).name, candidate.engine, candidate.batch, candidate.threads, candidate.inputs


def _of(saved: BenchReport) -> list[Candidate]:
    return [result.candidate for result in saved.measured]
