"""The races of a tuning: a few newcomers at a time against those that lead, and who leads from then on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from s2mlp_deploy.api.tune_gates import Gates, Verdict
from s2mlp_deploy.api.tune_state import Entrant, Workplace
from s2mlp_deploy.bench.candidates import Job
from s2mlp_deploy.bench.options import BenchOptions
from s2mlp_deploy.bench.race import Clock, Runner, race
from s2mlp_deploy.bench.track import Track
from s2mlp_deploy.errors import ArtifactError
from s2mlp_deploy.evidence.bench import Ratio
from s2mlp_deploy.evidence.machine import this_machine
from s2mlp_deploy.evidence.tune import Outcome
from s2mlp_deploy.progress import ProgressCallback

_HEAT = 6
"""Newcomers in a race: each is a process with a network in it."""

_COPIES = 5
"""Times its file's size that a process with a network takes: weights packed anew, and what the runtime is itself."""

_ROUNDS = 12


@dataclass(frozen=True)
class Course:
    """What all measurements of a tuning have in common.

    Attributes:
        place: Where files and the state lie.
        first: What ran before tuning: what all times are a share of.
        bench: How, launches and rounds apart.
        batch: Samples in a run; None for the files' own, or 1.
        clock: What counts.
    """

    place: Workplace
    first: Entrant
    bench: BenchOptions
    batch: int | None
    clock: Clock

    def job(self, entrant: Entrant) -> Job:
        """An entrant as a process runs it."""
        of = entrant.variant
        return Job(of.path, of.sha256, entrant.engine, self.batch, entrant.settings)


class Heats:
    """Races entrants; what they measured, and who leads in each number type, stands in the state afterwards.

    Args:
        course: What all measurements have in common.
        gates: What may win passes them.
        largest: Bytes of the artifact's largest file.
        go_on: Asked whether there is time for more.
        progress: Told what is being done.
    """

    def __init__(
        self, course: Course, gates: Gates, largest: int, go_on: Callable[[], bool], progress: ProgressCallback
    ) -> None:
        self._course, self._gates, self._largest = course, gates, largest
        self._go_on, self._progress = go_on, progress
        self._first, self._state = course.first, course.place.state
        self._entrants = self._state.entrants
        self._entrants[self._first.name] = self._first

    def leaders(self) -> Iterator[tuple[str, Entrant]]:
        """Each number type with the one that is the fastest in it when its turn comes."""
        for group in list(self._state.leaders):
            yield group, self._entrants[self._state.leaders[group]]

    def race(self, step: str, entrants: Sequence[Entrant]) -> None:
        """Races newcomers against the leaders; who is the fastest of a number type leads from then on.

        Args:
            step: What they differ in, in words.
            entrants: The newcomers.

        Raises:
            ArtifactError: What ran before tuning does not run.
        """
        # Another file of the same layout, form and settings, as an earlier tuning has made: one is enough.
        entrants = [item for item in entrants if self._entrants.setdefault(item.name, item) == item]
        for entrant in entrants:
            if told := self._gates.accuracy(entrant.variant):
                self._set(entrant, "accuracy", told)
        trials = self._state.trials
        new = [item for item in entrants if item.name not in trials or trials[item.name].outcome == "untried"]
        size = self._size()
        for start in range(0, len(new), size):
            heat = new[start : start + size]
            if not self._go_on() and self._state.leaders:  # The first heat runs, however little time was granted.
                for entrant in heat:
                    self._set(entrant, "untried", "there was no time left")
                continue
            self._run(step, heat)
            self._state.shapes = self._gates.shapes
            self._course.place.save()

    def _size(self) -> int:
        """Newcomers in a race, fewer where all of their networks would not be in memory at once."""
        there = this_machine().usable_memory
        return _HEAT if there is None else max(1, min(_HEAT, int(there / 2 / (_COPIES * self._largest)) - 3))

    def _run(self, step: str, newcomers: Sequence[Entrant]) -> None:
        course, options = self._course, replace(self._course.bench, launches=1, rounds=_ROUNDS)
        paces = (self._first, *(leader for _, leader in self.leaders()))
        entered = list(dict.fromkeys([*paces, *newcomers]))
        runners = {
            entrant.name: Runner(
                Track(course.job(entrant), options), entrant.trial.number_type, entrant.name, pace=entrant in paces
            )
            for entrant in entered
        }
        verdicts: dict[str, Verdict] = {}

        def judge(runner: Runner) -> str:
            verdict = self._gates.judge(self._entrants[runner.name].variant, runner.track)
            verdicts[runner.name] = verdict
            return verdict.reason if verdict.outcome is not None else ""

        race(
            list(runners.values()),
            options,
            clock=course.clock,
            go_on=self._go_on,
            on_ready=judge,
            on_step=lambda what: self._progress(f"{step}: {what}", 0, None),
        )
        if not runners[self._first.name].track.alive:
            raise ArtifactError(
                f"the artifact's own file does not run: {runners[self._first.name].track.failure}",
                where=str(self._first.variant.path),
                fix="measure it with `bench`, or name another --engine",
            )
        for name, runner in runners.items():
            entrant, verdict = self._entrants[name], verdicts.get(name, Verdict())
            if verdict.outcome is not None:
                outcome, reason = verdict.outcome, verdict.reason
            elif not runner.track.alive:
                outcome, reason = "failed", runner.track.failure
            else:
                outcome, reason = "slower", _behind(runner)
            self._set(entrant, outcome, reason, runner, verdict.difference)
            if verdict.outcome is None and verdict.outputs:
                self._state.verdicts[name] = verdict
        for group in dict.fromkeys(runner.group for runner in runners.values()):
            self._crown(group, [item for item in entered if runners[item.name].group == group], runners)

    def _crown(self, group: str, entered: Sequence[Entrant], runners: dict[str, Runner]) -> None:
        """Makes the fastest the leader; who leads stays so unless another one is faster by more than chance."""
        there = [item for item in entered if runners[item.name].running and runners[item.name].times]
        if not there:
            return
        name = self._state.leaders.get(group)
        # The first of a group is what ran before: the artifact's own file, on the first engine.
        held = self._entrants[name] if name is not None else entered[0]
        fastest = sorted(there, key=lambda item: runners[item.name].ms or np.inf)
        if held not in there:
            self._state.leaders[group] = fastest[0].name
            return
        # Not the fastest by its median alone: one whose rounds scatter would hide another that is faster beyond doubt.
        ratios = {item.name: runners[item.name].against(runners[held.name]) for item in fastest if item != held}
        best = next((item for item in fastest if item == held or ratios[item.name].high < 1), held)
        for item in fastest:
            if item not in (best, held):
                over = held if ratios[item.name].high >= 1 else best
                ratio = runners[item.name].against(runners[over.name])
                self._set(item, "slower", f"no faster than {over.name} beyond chance ({_in_words(ratio)})")
        if best != held:
            self._set(held, "slower", f"{best.name} is faster ({_in_words(ratios[best.name])})")
        self._state.leaders[group] = best.name

    def _set(
        self,
        entrant: Entrant,
        outcome: Outcome,
        reason: str,
        runner: Runner | None = None,
        difference: float | None = None,
    ) -> None:
        trial = replace(self._state.trials.get(entrant.name, entrant.trial), outcome=outcome, reason=reason)
        if runner is not None and runner.times:
            trial = replace(trial, ms=runner.ms, rounds=len(runner.times), ratio=runner.ratio)
        if difference is not None:
            trial = replace(trial, difference=difference)
        self._state.trials[entrant.name] = trial


def _behind(runner: Runner) -> str:
    if runner.behind is None:
        return "another one is faster"
    ratio = runner.behind
    return f"{ratio.verdict} as {ratio.over} ({_in_words(ratio)})"


def _in_words(ratio: Ratio) -> str:
    return f"{ratio.value:.3f}, {ratio.low:.3f} to {ratio.high:.3f}"
