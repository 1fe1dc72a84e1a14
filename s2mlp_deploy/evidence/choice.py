"""Which file to take: the fastest of those whose parity holds and whose accuracy does, as far as it was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from s2mlp_deploy.artifact import Manifest
from s2mlp_deploy.evidence.accuracy import AGREEMENT, AccuracyReport, AccuracyRow
from s2mlp_deploy.evidence.bench import BenchReport, BenchResult
from s2mlp_deploy.evidence.labels import saved_path
from s2mlp_deploy.evidence.standing import Standing, hashes_of
from s2mlp_deploy.evidence.store import Evidence
from s2mlp_deploy.evidence.tune import Trial, TuneReport

_SCENARIOS = ("single-stream", "offline")
_UNASKED, _UNASKED_AGREEMENT = 1.0, 5.0
"""Points that a file may lose where nobody set a budget: a hundredth, as in MLPerf Inference. Without labels it is the
agreement with float32 that falls, also where float32 is wrong or undecided."""
UNMEASURED = "parity was not measured"
_NOISE_WILL_DO = ("fp32", "fp16")
"""Precisions without ranges: noise tells as much of them as images do."""


@dataclass(frozen=True)
class Timings:
    """Results that were measured side by side: of one benchmark and one batch, of files that are there.

    Attributes:
        report: The benchmark.
        results: Its results of one batch; the first is what the ratios of the others are over.
    """

    report: BenchReport
    results: tuple[BenchResult, ...]

    @property
    def doubtful(self) -> tuple[str, ...]:
        """Why its figures are not to be trusted."""
        return (*self.report.warnings, *(text for result in self.results for text in result.warnings))


@dataclass(frozen=True)
class Choice:
    """A file and why it.

    Attributes:
        file: Its name; empty where none is to be taken yet.
        timed: Its time; None where that was not measured.
        tied: Results that are as fast within the noise, of files that were changed more.
        unproven: Faster results on engines on which nobody measured parity of the file.
        objections: By file, why it is not to be taken.
    """

    file: str
    timed: BenchResult | None
    tied: tuple[BenchResult, ...]
    unproven: tuple[BenchResult, ...]
    objections: dict[str, str]


def choose(
    manifest: Manifest,
    evidence: Evidence,
    files: Sequence[Standing],
    *,
    runs: Callable[[BenchResult], bool] = lambda _: True,
) -> Choice:
    """Chooses one of an artifact's files.

    Args:
        manifest: Of the artifact.
        evidence: Of the artifact.
        files: What is known of each file.
        runs: Whether what was timed can run where the file is to run.
    """
    precisions = {record.path: record.precision for record in manifest.files}
    own = [item for item in files if item.file in precisions]
    objections = {item.file: _objection(manifest, evidence, item, precisions[item.file]) for item in own}
    sound = [name for name, objection in objections.items() if not objection]
    objections = {name: text for name, text in objections.items() if text}
    known = {item.file: item for item in own}

    def fit(result: BenchResult) -> bool:
        there = known[file_of(result)].on(_runtime(result)) if file_of(result) in known else None
        return there is not None and not _objection(manifest, evidence, there, precisions[there.file])

    proven = {(item.file, engine) for item in own for engine in _engines(item)}
    taken: BenchResult | None = None
    tied: tuple[BenchResult, ...] = ()
    others: list[BenchResult] = []
    for timings in every_timings(manifest, evidence):
        results = [result for result in timings.results if runs(result) and fit(result)]
        timed = [result for result in results if (file_of(result), _runtime(result)) in proven]
        others += [result for result in results if result not in timed]
        if timed:
            best, as_fast = _fastest(timed)
            if taken is None or _clearly_faster(best, taken):
                taken, tied = best, as_fast
    if taken is None:
        return Choice(next(iter(sound), ""), None, (), tuple(others), objections)
    beside = next(item.results for item in every_timings(manifest, evidence) if taken in item.results)
    faster = tuple(
        result
        for result in others
        if (_share(result) < _share(taken) if result in beside else _clearly_faster(result, taken))
    )
    objections.pop(file_of(taken), None)  # Of another engine.
    return Choice(file_of(taken), taken, tied, faster, objections)


def _fastest(timed: Sequence[BenchResult]) -> tuple[BenchResult, tuple[BenchResult, ...]]:
    """Of results that were measured side by side, and what is as fast within the noise."""
    taken = min(timed, key=_share)
    # The manifest names float32 first: of two that are as fast, what was changed less is taken.
    baseline = next((result for result in timed if result.ratio is None), None)
    if baseline is None or taken.ratio is None or taken.ratio.differs:
        return taken, ()
    return baseline, tuple(result for result in timed if result.ratio is not None and not result.ratio.differs)


def _clearly_faster(result: BenchResult, other: BenchResult) -> bool:
    """Whether its slowest round was faster than the other's fastest: they were not measured side by side."""
    own, others = _rounds(result), _rounds(other)
    return bool(own and others) and max(own) < min(others)


def _rounds(result: BenchResult) -> list[float]:
    return [time for launch in result.launches for time in launch.wall_ms]


def tuned(
    manifest: Manifest, evidence: Evidence, files: Sequence[Standing], *, parity_alone: bool = False
) -> Trial | None:
    """What is to be taken because ``tune`` chose it: its fastest winner that is there and that nothing speaks against.

    Args:
        manifest: Of the artifact.
        evidence: Of the artifact.
        files: What is known of each file.
        parity_alone: Whether accuracy does not matter.
    """
    precisions = {record.path: record.precision for record in manifest.files}
    known = {item.file: item for item in files if item.file in precisions}
    report, present = evidence.one(TuneReport), hashes_of(manifest, evidence)
    for trial in report.winners if report is not None else ():
        if present.get(trial.file) != trial.sha256 or trial.file not in known:
            continue
        there = known[trial.file].on(trial.engine.partition(":")[0])
        told = _objection(manifest, evidence, there, precisions[trial.file])
        if there.state == "holds" and (parity_alone or not told):
            return trial
    return None


def time_of(result: BenchResult) -> float | None:
    """Milliseconds a run took: the median of single runs, else of the rounds."""
    return result.latency.p50 if result.latency is not None else result.wall_ms


def file_of(result: BenchResult) -> str:
    """The name of the file that was timed."""
    return saved_path(result.candidate.file).name


def every_timings(manifest: Manifest, evidence: Evidence) -> tuple[Timings, ...]:
    """The newest benchmark of files that are there, and those of the same scenario, batch, inputs, threads and machine.

    The newest is the first: of single runs, else of throughput, at the least batch.

    A file on an engine that was measured again counts as it was measured last.

    Args:
        manifest: Of the artifact.
        evidence: Of the artifact.
    """
    present = hashes_of(manifest, evidence)
    for scenario in _SCENARIOS:
        found: list[Timings] = []
        seen: set[tuple[str, str]] = set()
        for report in evidence.newest(BenchReport):
            known = [item for item in report.measured if item.candidate.sha256 == present.get(file_of(item))]
            if report.scenario != scenario or not known:
                continue
            if not found:
                batch = min(item.candidate.batch for item in known)
                alike = [item for item in known if item.candidate.batch == batch]
            elif report.environment.machine != found[0].report.environment.machine:
                continue
            else:
                how = _opened(found[0].results[0])
                alike = [item for item in known if _opened(item) == how]
            new = [item for item in alike if (file_of(item), item.candidate.engine) not in seen]
            if new:
                # The ratios are over the first one, which may have been measured again.
                found.append(Timings(report, tuple(item for item in alike if item in new or item.ratio is None)))
                seen |= {(file_of(item), item.candidate.engine) for item in new}
        if found:
            return tuple(found)
    return ()


def current_score(
    manifest: Manifest, evidence: Evidence, file: str
) -> tuple[AccuracyReport | None, AccuracyRow | None]:
    """What a file scored last, where that is of the file that is there."""
    for scores in evidence.newest(AccuracyReport):
        row = next((row for row in scores.rows if row.file == file), None)
        if row is not None and not {file, scores.rows[0].file} & scores.outdated(manifest):
            return scores, row
    return None, None


def _opened(result: BenchResult) -> tuple[object, ...]:
    """What must be equal for times of two benchmarks to compare."""
    candidate = result.candidate
    return candidate.batch, candidate.inputs, candidate.threads, candidate.flush_denormals


def scored_beside(manifest: Manifest, standing: Standing) -> str:
    """The file whose scores tell most of one that nobody scored: of its precision, and what it was compared with.

    ``tune`` compares the files that it makes with the artifact's own, and scores none.

    Args:
        manifest: Of the artifact.
        standing: Of the file.

    Returns:
        Its name; empty where there is none that is still there.
    """
    precisions = {record.path: record.precision for record in manifest.files}
    own = precisions.get(standing.file)
    for item in standing.judged:
        for name, _ in item.report.rests_on if item.report.passed else ():
            if name != standing.file and own is not None and precisions.get(name) == own:
                return name
    return ""


def _runtime(result: BenchResult) -> str:
    """``onnxruntime`` of ``onnxruntime:cuda``."""
    return result.candidate.engine.partition(":")[0]


def _engines(standing: Standing) -> set[str]:
    """On which its parity holds."""
    found = {item.engine: standing.on(item.engine) for item in standing.judged}
    return {engine for engine, there in found.items() if there.state == "holds" and engine in there.engines}


def _share(result: BenchResult) -> float:
    """Of the time of the first: measured side by side, which two medians of noisy runs are not."""
    return result.ratio.value if result.ratio is not None else 1.0


def _objection(manifest: Manifest, evidence: Evidence, standing: Standing, precision: str) -> str:
    """Why a file is not to be taken; empty where nothing speaks against it."""
    if standing.state != "holds":
        where = " and ".join(standing.engines)
        return {"fails": f"parity FAILS on {where}", "unclear": "parity is unclear"}.get(standing.state, UNMEASURED)
    told = accuracy_objection(manifest, evidence, standing.file)
    if told is not None:
        return told
    if not standing.on_noise or precision in _NOISE_WILL_DO:
        return ""
    beside = scored_beside(manifest, standing)
    told = accuracy_objection(manifest, evidence, beside) if beside else None
    if told is None:
        return "compared on noise alone"
    return f"{beside}, which it was compared with, {told}" if told else ""


def accuracy_objection(manifest: Manifest, evidence: Evidence, file: str) -> str | None:
    """What the saved scores of a file speak against it; empty for nothing, None where it was never scored."""
    scores, row = current_score(manifest, evidence, file)
    if row is None or scores is None:
        return None
    if row.failures:
        return "; ".join(row.failures)
    search, drop = scores.searches.get(row.precision), scores.drop(row)
    allowed = search.max_drop if search is not None else None
    if drop is None:
        return ""
    if allowed is not None:
        return "" if drop <= allowed + 1e-9 else f"loses {drop:.2f} points, and {allowed:g} are allowed"
    free = _UNASKED_AGREEMENT if scores.metric == AGREEMENT else _UNASKED
    return "" if drop <= free + 1e-9 else f"loses {drop:.2f} points, and nobody said how many it may"
