"""Which file to take: every reason for and against one, on records alone."""

from __future__ import annotations

from dataclasses import replace

from report_samples import FILE, INT8, accuracy, bench, on_noise, quantized_manifest, tune
from two_files import BOTH, TUNED, evidence, int8, timed, tuned_on_noise, with_tuned

from s2mlp_deploy.evidence.accuracy import AGREEMENT
from s2mlp_deploy.evidence.bench import BenchReport, Ratio
from s2mlp_deploy.evidence.choice import Choice, choose, every_timings, tuned
from s2mlp_deploy.evidence.standing import comparisons, standings

MANIFEST = quantized_manifest()


def chosen(*records: object) -> Choice:
    known = evidence(*records)
    return choose(MANIFEST, known, standings(MANIFEST, comparisons(MANIFEST, known)))


def test_the_fastest_that_holds_is_taken() -> None:
    choice = chosen(*BOTH, accuracy(), bench())
    assert (choice.file, choice.objections, choice.tied) == (INT8, {}, ())
    assert choice.timed is not None
    assert choice.timed.candidate.sha256 == "b" * 64


def test_inside_the_noise_the_more_precise_file_is_taken() -> None:
    close = timed(Ratio("first", 0.98, 0.95, 1.01))
    choice = chosen(*BOTH, close)
    assert (choice.file, choice.tied) == (FILE, close.results[1:])


def test_a_slower_file_is_not_taken() -> None:
    assert chosen(*BOTH, timed(Ratio("first", 1.2, 1.1, 1.3))).file == FILE


def test_what_does_not_hold_is_not_taken_however_fast() -> None:
    failing = replace(BOTH[1], failures=("far off",))
    for records, reason in (
        ((BOTH[0], failing), "parity FAILS on onnxruntime"),
        ((BOTH[0],), "parity was not measured"),
        ((BOTH[0], replace(BOTH[1], file_sha256="9" * 64)), "parity was not measured"),
        ((BOTH[0], replace(BOTH[1], images=0)), "parity is unclear"),
        ((BOTH[0], int8(on_noise())), "compared on noise alone"),
    ):
        choice = chosen(*records, bench())
        assert (choice.file, choice.objections) == (FILE, {INT8: reason})
    assert chosen(bench()).file == ""


def test_a_file_whose_accuracy_does_not_hold_is_not_taken() -> None:
    first, second = accuracy().rows
    below = replace(accuracy(), rows=(first, replace(second, failures=("cosine 0.9 < 0.99",))))
    over = replace(accuracy(), rows=(first, replace(second, score=81.0)))
    unasked = replace(over, searches={})
    alike = replace(unasked, metric=AGREEMENT, rows=(first, replace(second, score=77.0)))
    for scores, reason in (
        (below, "cosine 0.9 < 0.99"),
        (over, "loses 2.00 points, and 0.5 are allowed"),
        (unasked, "loses 2.00 points, and nobody said how many it may"),
        (alike, "loses 6.00 points, and nobody said how many it may"),
    ):
        choice = chosen(*BOTH, scores, bench())
        assert (choice.file, choice.objections) == (FILE, {INT8: reason})
    for fine in (replace(over, searches={}, rows=accuracy().rows), replace(alike, rows=over.rows)):
        assert chosen(*BOTH, fine, bench()).file == INT8
    # Scores of other bytes say nothing of these.
    assert chosen(*BOTH, replace(below, sha256={}), bench()).file == INT8


def test_parity_on_one_engine_says_nothing_of_another() -> None:
    first, second, _ = bench().results
    elsewhere = replace(second, candidate=replace(second.candidate, engine="openvino:CPU"))
    both = replace(bench(), results=(first, elsewhere))
    choice = chosen(*BOTH, both)
    assert (choice.file, choice.unproven) == (FILE, (elsewhere,))
    there = replace(BOTH[1], candidate="openvino (CPU)")
    choice = chosen(*BOTH, there, both)
    assert (choice.file, choice.unproven) == (INT8, ())
    alone = chosen(*BOTH, replace(bench(), results=(elsewhere,)))
    assert (alone.file, alone.timed, alone.unproven) == (FILE, None, (elsewhere,))


def test_a_file_that_fails_on_one_engine_is_taken_on_another() -> None:
    wrong = replace(BOTH[1], candidate="openvino (CPU)", failures=("far off",))
    choice = chosen(*BOTH, wrong, bench())
    assert (choice.file, choice.objections) == (INT8, {})
    assert choice.timed is not None
    first, second, _ = bench().results
    elsewhere = replace(second, candidate=replace(second.candidate, engine="openvino:CPU"))
    choice = chosen(*BOTH, wrong, replace(bench(), results=(first, elsewhere)))
    assert (choice.file, choice.objections) == (FILE, {INT8: "parity FAILS on openvino"})
    assert choice.unproven == ()


def test_without_times_the_file_that_changed_least_is_taken() -> None:
    choice = chosen(*BOTH)
    assert (choice.file, choice.timed) == (FILE, None)


def test_times_are_of_files_that_are_there_and_of_the_least_batch() -> None:
    first, second, crashed = bench().results
    larger = replace(first, candidate=replace(first.candidate, batch=8))
    older = replace(second, candidate=replace(second.candidate, sha256="9" * 64))
    (timings,) = every_timings(MANIFEST, evidence(replace(bench(), results=(larger, first, older, crashed))))
    assert timings.results == (first,)
    assert timings.doubtful == ("other programs kept 1.5 processors busy",)
    assert every_timings(MANIFEST, evidence(replace(bench(), results=(older,)))) == ()
    offline = replace(bench(), scenario="offline", environment=replace(bench().environment, time="2027"))
    found = every_timings(MANIFEST, evidence(offline, bench()))
    assert found[0].report.scenario == "single-stream"


def later(*milliseconds: float, time: str = "2027") -> BenchReport:
    """The float32 file alone on OpenVINO, timed after :func:`bench`."""
    first = bench().results[0]
    launches = tuple(replace(launch, wall_ms=milliseconds) for launch in first.launches)
    there = replace(first, candidate=replace(first.candidate, engine="openvino"), launches=launches)
    return replace(bench(), results=(there,), environment=replace(bench().environment, time=time))


def test_every_benchmark_of_the_machine_is_looked_at() -> None:
    there = replace(BOTH[0], candidate="openvino (CPU)")
    for slow, taken in ((later(3.0, 4.0), "onnxruntime"), (later(0.9, 4.0), "openvino")):
        choice = chosen(*BOTH, there, bench(), slow)
        assert choice.timed is not None
        # What was not measured side by side is faster where no round of the other one was as fast.
        assert choice.timed.candidate.engine == taken
    machine = replace(bench().environment.machine, memory=1)
    elsewhere = replace(bench(), environment=replace(bench().environment, machine=machine))
    assert chosen(*BOTH, there, elsewhere, later(3.0, 4.0)).file == FILE
    again = replace(later(3.0), results=bench().results[:1])
    first, second = every_timings(MANIFEST, evidence(bench(), again))
    assert (first.results, second.results) == (again.results, bench().results[:2]), "the ratio is over the first one"
    (once,) = every_timings(
        MANIFEST,
        evidence(replace(again, environment=bench().environment), replace(bench(), environment=later(3.0).environment)),
    )
    assert once.results == bench().results[:2]


def test_a_benchmark_with_other_threads_does_not_compare() -> None:
    faster = later(0.1, time="2020")
    (only,) = faster.results
    there = replace(BOTH[0], candidate="openvino (CPU)")
    assert chosen(*BOTH, there, faster, bench()).file == FILE
    more = replace(faster, results=(replace(only, candidate=replace(only.candidate, threads=8)),))
    assert chosen(*BOTH, there, more, bench()).file == INT8


def test_a_faster_result_of_an_older_benchmark_without_parity_there_is_named() -> None:
    old = later(0.5, time="2020")
    assert chosen(*BOTH, old, bench()).unproven == old.results
    assert chosen(*BOTH, later(0.5, 1.5, time="2020"), bench()).unproven == ()


def test_what_tune_chose_is_taken_where_nothing_is_objected() -> None:
    first, other, int8, *_ = tune().trials
    int8 = replace(int8, engine="onnxruntime")
    report = replace(tune(), trials=(first, other, int8))

    def found(*records: object, alone: bool = False) -> object:
        known = evidence(*records)
        return tuned(MANIFEST, known, standings(MANIFEST, comparisons(MANIFEST, known)), parity_alone=alone)

    assert found(report, *BOTH) == int8
    wrong = replace(BOTH[1], failures=("far off",))
    assert found(report, BOTH[0], wrong) is None, "the other winner's file is not there"
    assert found(report, *BOTH, replace(wrong, candidate="openvino (CPU)")) == int8, "it is another engine that fails"
    rows = accuracy().rows
    below = replace(accuracy(), rows=(rows[0], replace(rows[1], failures=("cosine 0.9 < 0.99",))))
    assert (found(report, *BOTH, below), found(report, *BOTH, below, alone=True)) == (None, int8)
    assert found(*BOTH) is None


def test_a_file_that_nobody_scored_rests_on_the_scores_of_the_one_it_was_compared_with() -> None:
    described = with_tuned()

    def objection(*records: object) -> str | None:
        known = evidence(*records)
        found = choose(described, known, standings(described, comparisons(described, known)))
        return found.objections.get(TUNED)

    assert objection(*BOTH, accuracy(), tuned_on_noise()) is None
    assert objection(*BOTH, tuned_on_noise()) == "compared on noise alone"
    rows = accuracy().rows
    over = replace(accuracy(), rows=(rows[0], replace(rows[1], score=81.0)))
    told = f"{INT8}, which it was compared with, loses 2.00 points, and 0.5 are allowed"
    assert objection(*BOTH, over, tuned_on_noise()) == told
    # float32 has no ranges, whose scores would tell of these.
    alone = replace(tuned_on_noise(), rests_on=tuned_on_noise().rests_on[:1])
    assert objection(*BOTH, accuracy(), alone) == "compared on noise alone"
    # Images tell more than noise, and need no other file.
    images = replace(BOTH[1], file=TUNED, file_sha256="d" * 64)
    assert objection(*BOTH, over, tuned_on_noise(), images) is None
