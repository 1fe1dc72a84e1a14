"""The steps of a tuning: what races against what, in which order, and who leads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from s2mlp_deploy.api.tune_gates import Gates, Verdict
from s2mlp_deploy.api.tune_options import TuneOptions
from s2mlp_deploy.api.tune_state import Entrant, Workplace
from s2mlp_deploy.api.variants import Variant, Variants
from s2mlp_deploy.artifact import Manifest
from s2mlp_deploy.bench.candidates import Job
from s2mlp_deploy.bench.options import BenchOptions
from s2mlp_deploy.bench.race import Runner, race
from s2mlp_deploy.bench.run import measure
from s2mlp_deploy.bench.track import Track
from s2mlp_deploy.choices import GRAPH_ENGINE
from s2mlp_deploy.engines.registry import kind_of, statuses
from s2mlp_deploy.errors import ArtifactError, ExportError, S2MLPDeployError
from s2mlp_deploy.evidence.bench import Ratio
from s2mlp_deploy.evidence.machine import environment_here, this_machine
from s2mlp_deploy.evidence.parity import ParityReport
from s2mlp_deploy.evidence.tune import EngineSettings, GraphPasses, Outcome, Trial, TuneReport
from s2mlp_deploy.progress import ProgressCallback

_RESERVE = 0.2
"""Share of the time that is kept for measuring the winners once more, beside what ran before."""

_HEAT = 6
"""Newcomers in a race: each is a process with a network in it."""

_COPIES = 5
"""Times its file's size that a process with a network takes: weights packed anew, and what the runtime is itself."""

_ROUNDS, _FINAL_LAUNCHES, _FINAL_ROUNDS = 12, 3, 6
_FORMS = ("grouped-conv", "pad-slice", "slice-concat", "row-gather")
"""Forms of shifts in the order in which they are tried; ``gather`` was never the fastest (docs/reference/forms.md)."""


class Tuning:
    """One go: its steps, cheap and large wins first.

    Args:
        root: The artifact.
        manifest: Of it.
        options: How.
        engines: On which.
        place: Where files and the state lie.
        progress: Told what is being done.

    Attributes:
        variants: Makes its files.
    """

    def __init__(
        self,
        root: Path,
        manifest: Manifest,
        options: TuneOptions,
        engines: tuple[str, ...],
        place: Workplace,
        progress: ProgressCallback,
    ) -> None:
        self._root, self._manifest, self._options, self._engines = root, manifest, options, engines
        self._place, self._state, self._progress = place, place.state, progress
        cores = int(this_machine().usable_cores or 1)
        self._threads = options.threads or max(cores, 1)
        parts = (engine.partition(":")[2].lower().removesuffix("executionprovider") for engine in engines)
        on_processor = all(part in ("", "cpu") for part in parts)
        self._clock: Literal["cpu", "wall"] = "cpu" if self._threads == 1 and on_processor else "wall"
        self.variants: Variants = Variants(root, manifest, place.folder, progress=self._step)
        self._own = self.variants.own()
        self._gates = Gates(root, manifest, place.folder, self._state.noise)
        # What ran before tuning: the float32 file as it was exported.
        self._first = self._entrant(next(item for item in self._own if item.precision == "fp32"), engines[0])
        self._entrants = self._state.entrants
        self._entrants[self._first.name] = self._first

    @property
    def _left(self) -> float:
        return self._options.minutes * 60 - self._place.seconds

    @property
    def _may_go_on(self) -> bool:
        return self._left > _RESERVE * self._options.minutes * 60

    def parity_of(self, entrant: Entrant, file: str, data: str) -> ParityReport | None:
        """What a winner was found to compute; None of the artifact's own files, which others are compared with."""
        if file == self._manifest.file(entrant.variant.precision).path:
            return None
        verdict = self._state.verdicts.get(entrant.name)
        images = next((shape[0] for shape in self._state.shapes if shape), 1)
        return self._gates.report(entrant.variant, file, verdict, data, images) if verdict is not None else None

    def run(self) -> tuple[TuneReport, tuple[Entrant, ...]]:
        """Everything, and then the winners once more beside what ran before."""
        self._race("own files", [self._entrant(item, engine) for item in self._own for engine in self._engines])
        self._other_layouts()
        self._other_forms()
        self._other_settings()
        self._other_passes()
        self.variants.release()
        leaders = [self._entrants[name] for name in self._state.leaders.values() if name in self._entrants]
        trials = self._final(leaders)
        environment = environment_here()
        environment.versions.update({item.name: item.version for item in statuses() if item.available and item.version})
        shapes = self._state.shapes
        won = {trial.name for trial in trials if trial.outcome == "won"}
        report = TuneReport(
            environment=environment,
            clock=self._clock,
            batch=shapes[0][0] if shapes and shapes[0] else self._options.batch or 1,
            inputs=shapes,
            data=f"seeded Gaussian noise (seed {self._options.seed})",
            minutes=self._options.minutes,
            seconds=round(self._place.seconds, 1),
            trials=tuple(trials),
            notes=tuple(dict.fromkeys(self._state.notes)),
        )
        return report, tuple(item for item in leaders if item.name in won)

    def _other_layouts(self) -> None:
        try:
            layouts = self.variants.other_layouts()
        except ExportError as error:
            self._note(error.problem)
            return
        for layout in layouts:
            if any(item.layout == layout for item in self._state.variants.values()):
                made = [item for item in self._state.variants.values() if item.layout == layout]
            elif not self._may_go_on:
                self._note(f"there was no time for {layout}")
                continue
            else:
                try:
                    files, notes = self.variants.of_layout(layout)
                except S2MLPDeployError as error:
                    self._note(f"{layout} was not tried: {error.problem}")
                    continue
                made = list(files)
                self._keep(*files)
                for note in notes:
                    self._note(note)
            plain = {item.precision: item for item in reversed(made)}
            self._race(layout, [self._entrant(plain[p], engine) for p in plain for engine in self._engines])
        leading = {self._entrants[name].variant.layout for name in self._state.leaders.values()}
        self.variants.release(keep=leading)

    def _other_forms(self) -> None:
        if not any(shift.nodes for shift in self._manifest.shifts):
            self._note("there is no shift that could be written otherwise")
            return
        for group in list(self._state.leaders):
            leader = self._entrants[self._state.leaders[group]]
            newcomers, late = [], False
            for form in _FORMS:
                if form == leader.variant.form:
                    continue
                name = replace(leader.variant, form=form).name
                made = self._state.variants.get(name)
                if made is None and self._may_go_on:
                    self._step(f"writing shifts as {form}", 0, None)
                    try:
                        made = self.variants.of_form(leader.variant, form)
                    except S2MLPDeployError as error:
                        self._note(f"{name} was not tried: {error.problem}")
                        continue
                    self._keep(made)
                if made is not None:
                    newcomers.append(replace(leader, variant=made))
                late = late or made is None
            if late:
                self._note(f"there was no time for every form of the shifts in {group}")
            self._race(f"forms of {group}", newcomers)

    def _other_settings(self) -> None:
        for group in list(self._state.leaders):
            leader = self._entrants[self._state.leaders[group]]
            self._race(f"settings of {group}", [replace(leader, settings=item) for item in self._settings(leader)])

    def _other_passes(self) -> None:
        """Last, because it takes the longest: torch builds the network again where its passes are to be left out."""
        for group in list(self._state.leaders):
            leader = self._entrants[self._state.leaders[group]]
            of = leader.variant
            if of.passes != "as exported":
                continue  # It has won in an earlier go, or tuning.
            names = {replace(of, passes=passes).name for passes in get_args(GraphPasses)} - {of.name}
            # An earlier tuning may have left it in the artifact.
            made = next((item for item in (*self._own, *self._state.variants.values()) if item.name in names), None)
            if made is None and not self._may_go_on:
                self._note(f"there was no time for other graph passes in {group}")
                continue
            if made is None:
                try:
                    made = self.variants.of_passes(of)
                except S2MLPDeployError as error:
                    self._note(f"other graph passes of {of.name} were not tried: {error.problem}")
                    continue
                self._keep(made)
            self._race(f"graph passes of {group}", [replace(leader, variant=made)])

    def _settings(self, leader: Entrant) -> list[EngineSettings]:
        now, found = leader.settings, []
        if self._options.threads is None and self._threads > 1:
            found.append(replace(now, threads=1))
        if kind_of(leader.engine) == GRAPH_ENGINE:
            found.append(replace(now, optimize="extended"))
            if now.threads > 1:
                found.append(replace(now, spin=not now.spin))
        found.append(replace(now, flush_denormals=True))
        return found

    def _race(self, step: str, entrants: Sequence[Entrant]) -> None:
        """Races newcomers against the leaders, in heats; who is the fastest of a number type leads from then on."""
        # Another file of the same layout, form and settings, as an earlier tuning has made: one is enough.
        entrants = [item for item in entrants if self._entrants.setdefault(item.name, item) == item]
        for entrant in entrants:
            if told := self._gates.accuracy(entrant.variant):
                self._set(entrant, "accuracy", told)
        trials = self._state.trials
        new = [item for item in entrants if item.name not in trials or trials[item.name].outcome == "untried"]
        size = self._heat_size()
        for start in range(0, len(new), size):
            heat = new[start : start + size]
            if not self._may_go_on and self._state.leaders:  # The first heat runs, however little time was granted.
                for entrant in heat:
                    self._set(entrant, "untried", "there was no time left")
                continue
            self._run_heat(step, heat)
            self._state.shapes = self._gates.shapes
            self._place.save()

    def _heat_size(self) -> int:
        """Newcomers in a race, fewer where all of their networks would not be in memory at once."""
        there = this_machine().usable_memory
        largest = max(record.bytes for record in self._manifest.files)
        return _HEAT if there is None else max(1, min(_HEAT, int(there / 2 / (_COPIES * largest)) - 3))

    def _run_heat(self, step: str, newcomers: Sequence[Entrant]) -> None:
        leaders = [self._entrants[name] for name in self._state.leaders.values()]
        entered = list(dict.fromkeys([self._first, *leaders, *newcomers]))
        runners = {
            entrant.name: Runner(
                self._track(entrant), entrant.trial.number_type, entrant.name, pace=entrant in (self._first, *leaders)
            )
            for entrant in entered
        }
        verdicts: dict[str, Verdict] = {}

        def judge(runner: Runner) -> str:
            name = next(key for key, item in runners.items() if item is runner)
            verdicts[name] = self._gates.judge(self._entrants[name].variant, runner.track)
            return verdicts[name].reason if verdicts[name].outcome is not None else ""

        race(
            list(runners.values()),
            self._bench(launches=1, rounds=_ROUNDS),
            clock=self._clock,
            go_on=lambda: self._may_go_on,
            on_ready=judge,
            on_step=lambda what: self._step(f"{step}: {what}", 0, None),
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
                outcome, reason = "slower", self._behind(runner)
            self._set(entrant, outcome, reason, runner, verdict.difference)
            if verdict.outcome is None and verdict.outputs:
                self._state.verdicts[name] = verdict
        for group in dict.fromkeys(runner.group for runner in runners.values()):
            self._crown(group, [item for item in entered if runners[item.name].group == group], runners)

    def _behind(self, runner: Runner) -> str:
        if runner.behind is None:
            return "another one is faster"
        ratio = runner.behind
        return f"{ratio.verdict} as {ratio.over} ({_in_words(ratio)})"

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

    def _final(self, leaders: Sequence[Entrant]) -> list[Trial]:
        """The winners beside what ran before, in several processes each."""
        entered = list(dict.fromkeys([self._first, *leaders]))
        shares: dict[str, Trial] = {}
        if len(entered) > 1:
            self._step("measuring the winners", 0, None)
            options = self._bench(launches=_FINAL_LAUNCHES, rounds=_FINAL_ROUNDS)
            result = measure([self._job(item) for item in entered], options, progress=self._progress)
            for warning in result.warnings:
                self._note(f"the last measurement is in doubt: {warning}")
            for entrant, measured in zip(entered, result.results, strict=True):
                trial = self._state.trials[entrant.name]
                if measured.failure:
                    trial = replace(trial, outcome="failed", reason=measured.failure)
                else:
                    ratio = measured.cpu_ratio if self._clock == "cpu" else measured.ratio
                    if ratio is not None:
                        ratio = replace(ratio, over=self._first.name)
                    if result.results[0].failure:
                        ratio = trial.ratio  # What ran before has failed: the race has told how they compare.
                    ms = measured.cpu_ms if self._clock == "cpu" else measured.wall_ms
                    rounds = sum(len(launch.wall_ms) for launch in measured.launches)
                    trial = replace(trial, ms=ms, ratio=ratio, rounds=rounds)
                shares[entrant.name] = trial
        for entrant in leaders:
            trial = shares.get(entrant.name, self._state.trials[entrant.name])
            if trial.outcome != "failed":
                trial = replace(trial, outcome="won", reason=f"the fastest in {trial.number_type}")
            # In float32 what ran before competes: it stays where nothing is faster, or what was has failed.
            failed = trial.outcome == "failed"
            if (
                entrant != self._first
                and trial.number_type == "fp32"
                and (failed or trial.ratio is None or trial.ratio.high >= 1)
            ):
                told = trial.ratio.verdict if trial.ratio is not None else "not measured"
                if not failed:
                    reason = f"{told} beside what ran before, measured once more"
                    trial = replace(trial, outcome="slower", reason=reason)
                first = shares.get(self._first.name, self._state.trials[self._first.name])
                if first.outcome != "failed":
                    shares[self._first.name] = replace(first, outcome="won", reason="nothing was faster")
                    self._state.leaders["fp32"] = self._first.name
            shares[entrant.name] = trial
        self._state.trials |= shares
        order = [self._first.name, *(name for name in self._state.trials if name != self._first.name)]
        return [self._state.trials[name] for name in order]

    def _entrant(self, variant: Variant, engine: str) -> Entrant:
        return Entrant(variant, engine, EngineSettings(threads=self._threads, spin=False))

    def _job(self, entrant: Entrant) -> Job:
        of = entrant.variant
        return Job(of.path, of.sha256, entrant.engine, self._options.batch, entrant.settings)

    def _track(self, entrant: Entrant) -> Track:
        return Track(self._job(entrant), self._bench(launches=1, rounds=_ROUNDS))

    def _bench(self, *, launches: int, rounds: int) -> BenchOptions:
        return BenchOptions(
            threads=self._threads,
            launches=launches,
            rounds=rounds,
            shapes=self._options.shapes,
            seed=self._options.seed,
        )

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

    def _keep(self, *variants: Variant) -> None:
        for variant in variants:
            self._state.variants[variant.name] = variant
        self._place.save()

    def _note(self, text: str) -> None:
        if text not in self._state.notes:
            self._state.notes.append(text)

    def _step(self, what: str, _: int, __: int | None) -> None:
        total = int(self._options.minutes * 60)
        self._progress(what, min(int(self._place.seconds), total), total)


def _in_words(ratio: Ratio) -> str:
    return f"{ratio.value:.3f}, {ratio.low:.3f} to {ratio.high:.3f}"
