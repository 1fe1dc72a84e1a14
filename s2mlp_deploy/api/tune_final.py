"""The last measurement of a tuning: those that lead beside what ran before, in several processes each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from s2mlp_deploy.api.tune_heats import Course
from s2mlp_deploy.api.tune_state import Entrant
from s2mlp_deploy.bench.run import measure
from s2mlp_deploy.evidence.tune import Trial
from s2mlp_deploy.progress import ProgressCallback

_LAUNCHES, _ROUNDS = 3, 6


def last_trials(course: Course, leaders: Sequence[Entrant], progress: ProgressCallback) -> tuple[Trial, ...]:
    """All trials as they end: the leaders' have won, or have not kept in the last measurement what the races told.

    Args:
        course: What all measurements have in common.
        leaders: Of each number type.
        progress: Told what is being done.

    Returns:
        What ran before first, the others in the order in which they were tried.
    """
    first, trials = course.first.name, dict(course.place.state.trials)
    trials |= _measured(course, list(dict.fromkeys([course.first, *leaders])), progress)
    for entrant in leaders:
        trial = trials[entrant.name]
        failed = trial.outcome == "failed"
        # In float32 what ran before competes: it stays where nothing is faster, or what was has failed.
        competes = entrant != course.first and trial.number_type == "fp32"
        if competes and (failed or trial.ratio is None or trial.ratio.high >= 1):
            if not failed:
                told = trial.ratio.verdict if trial.ratio is not None else "not measured"
                reason = f"{told} beside what ran before, measured once more"
                trial = replace(trial, outcome="slower", reason=reason)
            if trials[first].outcome != "failed":
                trials[first] = replace(trials[first], outcome="won", reason="nothing was faster")
        elif not failed:
            trial = replace(trial, outcome="won", reason=f"the fastest in {trial.number_type}")
        trials[entrant.name] = trial
    return trials.pop(first), *trials.values()


def _measured(course: Course, entered: Sequence[Entrant], progress: ProgressCallback) -> dict[str, Trial]:
    """Trials by name, measured side by side; none where what ran before is alone."""
    if len(entered) == 1:
        return {}
    progress("measuring the winners", 0, None)
    options = replace(course.bench, launches=_LAUNCHES, rounds=_ROUNDS)
    result = measure([course.job(item) for item in entered], options, progress=progress)
    for warning in result.warnings:
        course.place.note(f"the last measurement is in doubt: {warning}")
    found = {}
    for entrant, measured in zip(entered, result.results, strict=True):
        trial = course.place.state.trials[entrant.name]
        if measured.failure:
            trial = replace(trial, outcome="failed", reason=measured.failure)
        else:
            ms, ratio = measured.wall_ms, measured.ratio
            if course.clock == "cpu":
                ms, ratio = measured.cpu_ms, measured.cpu_ratio
            if result.results[0].failure:
                ratio = trial.ratio  # What ran before has failed: the race has told how they compare.
            elif ratio is not None:
                ratio = replace(ratio, over=course.first.name)
            rounds = sum(len(launch.wall_ms) for launch in measured.launches)
            trial = replace(trial, ms=ms, ratio=ratio, rounds=rounds)
        found[entrant.name] = trial
    return found
