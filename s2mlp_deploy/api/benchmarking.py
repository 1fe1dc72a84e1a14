"""Benchmarks: files and engines side by side, against a saved run, and kept as evidence."""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from s2mlp_deploy.api.evidence import save_evidence
from s2mlp_deploy.artifact import MANIFEST
from s2mlp_deploy.bench.candidates import jobs_of
from s2mlp_deploy.bench.compare import read_saved
from s2mlp_deploy.bench.elsewhere import beside, is_measurement, read_elsewhere
from s2mlp_deploy.bench.options import BenchOptions
from s2mlp_deploy.bench.profile import profile_of
from s2mlp_deploy.bench.run import measure
from s2mlp_deploy.errors import ArtifactError, InputError, OutputError
from s2mlp_deploy.evidence.bench import BenchReport, BenchResult
from s2mlp_deploy.evidence.profile import Profile
from s2mlp_deploy.evidence.store import decode, encode
from s2mlp_deploy.files import check_parents, is_regular, read_file, sha256_of, write_file
from s2mlp_deploy.progress import ProgressCallback, no_progress
from s2mlp_deploy.text import command_line

LOG = logging.getLogger(__name__)

_COLUMNS = (
    *("file", "sha256", "precision", "engine", "runtime", "batch", "threads", "scenario", "failure"),
    *("runs", "min_ms", "mean_ms", "p50_ms", "p90_ms", "p99_ms", "cpu_ms", "gpu_ms", "samples_per_second"),
    *("queries_per_second", "bound_ms", "load_seconds", "peak_bytes", "base_bytes"),
    *("ratio", "ratio_low", "ratio_high", "ratio_over", "cpu_ratio", "cpu_ratio_low", "cpu_ratio_high"),
    *("change", "change_low", "change_high", "change_over", "warnings"),
)


def bench(
    files: Sequence[str | Path],
    *,
    engines: Sequence[str] = (),
    batches: Sequence[int] = (),
    options: BenchOptions | None = None,
    compare: str | Path | None = None,
    progress: ProgressCallback = no_progress,
) -> BenchReport:
    """Measures files and engines side by side, each in a process of its own, in turn.

    The report is saved under ``evidence/`` of each artifact that a file lies in, with the files of that one; a later
    run of the same scenario takes its place.

    A candidate whose process crashes, hangs or cannot run the graph has ``failure`` set, and the others go on.

    Args:
        files: ONNX files, engine files, and artifacts for all their graphs that ONNX Runtime is meant to run, and for
            their engine files where ``engines`` names what runs them. What ``trtexec --exportTimes`` or
            ``--exportProfile`` wrote (.json) is shown beside what is measured here.
        engines: ``onnxruntime[:PROVIDER]``, ``openvino[:DEVICE]``, ``tensorrt``, ``tensorrt-rtx``; default: what
            fits a file.
        batches: Samples in a run; default: the files' own batch, or 1.
        options: Scenario, threads, rounds and so on.
        compare: A run that :func:`save_bench` saved on this machine.
        progress: Called with what is being done.

    Raises:
        TargetError: There is no such engine, here or at all.
        ArtifactError: A file is no ONNX or engine file and no measurement, an artifact is damaged, or the saved run
            cannot be read.
        InputError: Sources or shapes of the files differ, a batch or shape does not fit, an option is out of range,
            the saved run is of another machine or scenario, or there is nothing to measure beside a file of trtexec.
    """
    options = options or BenchOptions()
    saved_elsewhere = [Path(file) for file in files if is_measurement(file)]
    files = [file for file in files if not is_measurement(file)]
    elsewhere = tuple(map(read_elsewhere, saved_elsewhere))
    if elsewhere and not files:
        raise InputError(
            "there is nothing to measure beside it",
            where=str(saved_elsewhere[0]),
            fix=f"`{command_line('inspect', saved_elsewhere[0])}` shows it alone; or name a graph, engine or artifact",
        )
    saved = read_saved(Path(compare), options.scenario) if compare is not None else None
    jobs = jobs_of(files, engines, batches)
    report = beside(measure(jobs, options, saved=saved, progress=progress), elsewhere)
    for job in jobs:
        if sha256_of(job.path) != job.sha256:
            raise ArtifactError("the file was replaced while it was measured", where=str(job.path), fix="measure again")
    for directory in dict.fromkeys(job.path.parent for job in jobs):
        if (directory / MANIFEST).is_file():
            keep_bench(directory, report, report.scenario)
    return report


def read_profile(path: str | Path) -> Profile:
    """Reads where the time goes from what a runtime wrote.

    Args:
        path: A JSON file, of ONNX Runtime's profiling, of OpenVINO's engine or of ``trtexec --exportProfile``.

    Raises:
        ArtifactError: It is neither, or larger than 64 MiB.
    """
    return profile_of(Path(path))


def keep_bench(directory: Path, report: BenchReport, label: str) -> None:
    """Saves what was measured of an artifact's files: by their names, for a report tells no path of a machine.

    Args:
        directory: The artifact.
        report: What was measured.
        label: What distinguishes it from other benchmarks of the artifact: an earlier one of it is replaced.
    """
    own = [result for result in report.results if Path(result.candidate.file).parent == directory]
    names = {result.candidate.name: _named(result).candidate.name for result in own}
    results = [
        replace(
            _named(result),
            # What another artifact's file was faster than is of no use in this one.
            ratio=replace(result.ratio, over=names[result.ratio.over])
            if result.ratio is not None and result.ratio.over in names
            else None,
            cpu_ratio=replace(result.cpu_ratio, over=names[result.cpu_ratio.over])
            if result.cpu_ratio is not None and result.cpu_ratio.over in names
            else None,
        )
        for result in own
    ]
    elsewhere = tuple(
        replace(item, file=Path(item.file).name, over=names[item.over])
        if item.over in names
        else replace(item, file=Path(item.file).name, over="", ratio=None)
        for item in report.elsewhere
    )
    try:
        save_evidence(directory, replace(report, results=tuple(results), elsewhere=elsewhere), label=label)
    except OutputError as error:
        # The figures are printed all the same: an artifact that only others write to is no reason to lose them.
        LOG.warning("the benchmark was not saved in the artifact: %s (%s)", error.problem, error.where)


def _named(result: BenchResult) -> BenchResult:
    return replace(result, candidate=replace(result.candidate, file=Path(result.candidate.file).name))


def save_bench(report: BenchReport, path: str | Path) -> Path:
    """Saves a run that later ones can be compared with.

    Args:
        report: What :func:`bench` returned.
        path: The file; an earlier saved run is replaced, nothing else is.

    Raises:
        OutputError: It cannot be written, or something else stands there.
    """
    check_save(path)
    write_file(Path(path), encode(report))
    return Path(path)


def save_bench_csv(report: BenchReport, path: str | Path) -> Path:
    """Writes a run as a table, one line for each candidate. Milliseconds are medians over all rounds and processes.

    Args:
        report: What :func:`bench` returned.
        path: The file; an earlier table is replaced, nothing else is.

    Raises:
        OutputError: It cannot be written, or something else stands there.
    """
    check_csv(path)
    text = io.StringIO()
    table = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    table.writeheader()
    for result in report.results:
        table.writerow(_row(report.scenario, result))
    for item in report.elsewhere:
        row: dict[str, object] = {"file": item.file}
        row |= {"sha256": item.sha256, "engine": "trtexec", "scenario": report.scenario}
        row |= {"runs": item.runs, "p50_ms": item.p50, "p90_ms": item.p90, "p99_ms": item.p99, "gpu_ms": item.gpu_ms}
        table.writerow(row | {"ratio": item.ratio, "ratio_over": item.over, "warnings": item.doubt})
    write_file(Path(path), text.getvalue().encode("utf-8", "replace"))
    return Path(path)


def _row(scenario: str, result: BenchResult) -> dict[str, object]:
    candidate, latency, server = result.candidate, result.latency, result.server
    row: dict[str, object] = {
        name: getattr(candidate, name)
        for name in ("file", "sha256", "precision", "engine", "runtime", "batch", "threads")
    }
    row |= {"scenario": scenario, "failure": result.failure, "warnings": "; ".join(result.warnings)}
    if latency is not None:
        row |= {"runs": latency.runs}
        row |= {f"{name}_ms": getattr(latency, name) for name in ("min", "mean", "p50", "p90", "p99")}
    if result.launches:
        row |= {"cpu_ms": result.cpu_ms, "gpu_ms": result.gpu_ms, "samples_per_second": result.throughput}
        row |= {"load_seconds": result.load_seconds, "peak_bytes": result.peak_bytes, "base_bytes": result.base_bytes}
    if server is not None:
        row |= {"queries_per_second": server.rate, "bound_ms": server.bound_ms}
    for name in ("ratio", "cpu_ratio", "change"):
        ratio = getattr(result, name)
        if ratio is not None:
            row |= {name: ratio.value, f"{name}_low": ratio.low, f"{name}_high": ratio.high}
            row |= {f"{name}_over": ratio.over} if f"{name}_over" in _COLUMNS else {}
    return row


def check_save(path: str | Path) -> None:
    """Refuses a place for :func:`save_bench` before anything is measured.

    Raises:
        OutputError: It is no place for a file, or something else than a saved run stands there.
    """
    check_parents(Path(path))
    try:
        decode(read_file(Path(path), "evidence"), BenchReport)
    except FileNotFoundError:
        return
    except (OSError, ArtifactError) as error:
        raise _taken(Path(path), "saved run") from error


def check_csv(path: str | Path) -> None:
    """Refuses a place for :func:`save_bench_csv` before anything is measured.

    Raises:
        OutputError: It is no place for a file, or something else than such a table stands there.
    """
    check_parents(Path(path))
    if os.path.lexists(path) and not _is_table(Path(path)):
        raise _taken(Path(path), "table of a benchmark")


def _is_table(path: Path) -> bool:
    header = f"{_COLUMNS[0]},{_COLUMNS[1]},".encode()
    try:
        with path.open("rb") if is_regular(path) else io.BytesIO() as stream:
            return stream.read(len(header)) == header
    except OSError:
        return False


def _taken(path: Path, kind: str) -> OutputError:
    return OutputError(f"a file that is no {kind} is not replaced", where=str(path), fix="name another file")
