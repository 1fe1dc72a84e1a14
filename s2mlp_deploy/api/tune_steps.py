"""The steps of a tuning: what races against what, and in which order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

from s2mlp_deploy.api.tune_final import last_trials
from s2mlp_deploy.api.tune_gates import Gates
from s2mlp_deploy.api.tune_heats import Course, Heats
from s2mlp_deploy.api.tune_options import TuneOptions
from s2mlp_deploy.api.tune_state import Entrant, Workplace
from s2mlp_deploy.api.variants import Variant, Variants
from s2mlp_deploy.artifact import Manifest
from s2mlp_deploy.bench.options import BenchOptions
from s2mlp_deploy.choices import GRAPH_ENGINE
from s2mlp_deploy.engines.registry import kind_of, statuses
from s2mlp_deploy.errors import ExportError, S2MLPDeployError
from s2mlp_deploy.evidence.machine import environment_here, this_machine
from s2mlp_deploy.evidence.parity import ParityReport
from s2mlp_deploy.evidence.tune import EngineSettings, GraphPasses, TuneReport
from s2mlp_deploy.graph.loading import load_graph
from s2mlp_deploy.precision.carried import has_reduced_range
from s2mlp_deploy.progress import ProgressCallback

_RESERVE = 0.2
"""Share of the time that is kept for measuring the winners once more, beside what ran before."""

_FORMS = ("grouped-conv", "pad-slice", "slice-concat", "row-gather")
"""Forms of shifts in the order in which they are tried; ``gather`` was never the fastest (docs/reference/forms.md)."""


_EXACT_KERNELS = (
    "int8 with weights of 8 bits takes exact, slower kernels here, because this processor has no VNNI: `quantize` with "
    "--reduce-range gives them 7 bits, which `tune` then measures"
)


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
        self._manifest, self._options, self._engines = manifest, options, engines
        self._place, self._state, self._progress = place, place.state, progress
        cores = int(this_machine().usable_cores or 1)
        self._threads = options.threads or max(cores, 1)
        parts = (engine.partition(":")[2].lower().removesuffix("executionprovider") for engine in engines)
        on_processor = all(part in ("", "cpu") for part in parts)
        self.variants: Variants = Variants(root, manifest, place.folder, progress=self._step)
        self._gates = Gates(root, manifest, place.folder, self._state.noise)
        # What ran before tuning: the float32 file as it was exported.
        exported = next(item for item in self.variants.own if item.precision == "fp32")
        self._course = Course(
            place,
            self._entrant(exported, engines[0]),
            BenchOptions(threads=self._threads, shapes=options.shapes, seed=options.seed),
            options.batch,
            "cpu" if self._threads == 1 and on_processor else "wall",
        )
        largest = max(record.bytes for record in manifest.files)
        self._heats = Heats(self._course, self._gates, largest, lambda: self._may_go_on, self._step)

    @property
    def _may_go_on(self) -> bool:
        return self._place.seconds < (1 - _RESERVE) * self._options.minutes * 60

    def parity_of(self, entrant: Entrant, file: str, data: str) -> ParityReport | None:
        """What a winner was found to compute; None of the artifact's own files, which others are compared with."""
        if file == self._manifest.file(entrant.variant.precision).path:
            return None
        verdict = self._state.verdicts.get(entrant.name)
        images = next((shape[0] for shape in self._state.shapes if shape), 1)
        return self._gates.report(entrant.variant, file, verdict, data, images) if verdict is not None else None

    def run(self) -> tuple[TuneReport, tuple[Entrant, ...]]:
        """Everything, and then the winners once more beside what ran before."""
        own = [self._entrant(item, engine) for item in self.variants.own for engine in self._engines]
        self._heats.race("own files", own)
        self._other_layouts()
        self._other_forms()
        self._other_settings()
        self._other_passes()
        self.variants.release()
        leaders = tuple(leader for _, leader in self._heats.leaders())
        trials = last_trials(self._course, leaders, self._progress)
        environment = environment_here()
        environment.versions.update({item.name: item.version for item in statuses() if item.available and item.version})
        shapes = self._state.shapes
        won = {trial.name for trial in trials if trial.outcome == "won"}
        if any(item.name in won and _takes_exact_kernels(item.variant) for item in leaders):
            self._place.note(_EXACT_KERNELS)
        report = TuneReport(
            environment=environment,
            clock=self._course.clock,
            batch=shapes[0][0] if shapes and shapes[0] else self._options.batch or 1,
            inputs=shapes,
            data=f"seeded Gaussian noise (seed {self._options.seed})",
            minutes=self._options.minutes,
            seconds=round(self._place.seconds, 1),
            trials=trials,
            notes=tuple(dict.fromkeys(self._state.notes)),
        )
        return report, tuple(item for item in leaders if item.name in won)

    def _other_layouts(self) -> None:
        try:
            layouts = self.variants.other_layouts()
        except ExportError as error:
            self._place.note(error.problem)
            return
        for layout in layouts:
            if any(item.layout == layout for item in self._state.variants.values()):
                made = [item for item in self._state.variants.values() if item.layout == layout]
            elif not self._may_go_on:
                self._place.note(f"there was no time for {layout}")
                continue
            else:
                try:
                    files, notes = self.variants.of_layout(layout)
                except S2MLPDeployError as error:
                    self._place.note(f"{layout} was not tried: {error.problem}")
                    continue
                made = list(files)
                self._place.keep(*files)
                for note in notes:
                    self._place.note(note)
            plain = {item.precision: item for item in reversed(made)}
            self._heats.race(layout, [self._entrant(plain[p], engine) for p in plain for engine in self._engines])
        self.variants.release(keep={leader.variant.layout for _, leader in self._heats.leaders()})

    def _other_forms(self) -> None:
        if not any(shift.nodes for shift in self._manifest.shifts):
            self._place.note("there is no shift that could be written otherwise")
            return
        for group, leader in self._heats.leaders():
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
                        self._place.note(f"{name} was not tried: {error.problem}")
                        continue
                    self._place.keep(made)
                if made is not None:
                    newcomers.append(replace(leader, variant=made))
                late = late or made is None
            if late:
                self._place.note(f"there was no time for every form of the shifts in {group}")
            self._heats.race(f"forms of {group}", newcomers)

    def _other_settings(self) -> None:
        for group, leader in self._heats.leaders():
            newcomers = [replace(leader, settings=item) for item in self._settings(leader)]
            self._heats.race(f"settings of {group}", newcomers)

    def _other_passes(self) -> None:
        """Last, because it takes the longest: torch builds the network again where its passes are to be left out."""
        for group, leader in self._heats.leaders():
            of = leader.variant
            if of.passes != "as exported":
                continue  # It has won in an earlier go, or tuning.
            names = {replace(of, passes=passes).name for passes in get_args(GraphPasses)} - {of.name}
            # An earlier tuning may have left it in the artifact.
            known = (*self.variants.own, *self._state.variants.values())
            made = next((item for item in known if item.name in names), None)
            if made is None and not self._may_go_on:
                self._place.note(f"there was no time for other graph passes in {group}")
                continue
            if made is None:
                try:
                    made = self.variants.of_passes(of)
                except S2MLPDeployError as error:
                    self._place.note(f"other graph passes of {of.name} were not tried: {error.problem}")
                    continue
                self._place.keep(made)
            self._heats.race(f"graph passes of {group}", [replace(leader, variant=made)])

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

    def _entrant(self, variant: Variant, engine: str) -> Entrant:
        return Entrant(variant, engine, EngineSettings(threads=self._threads, spin=False))

    def _step(self, what: str, _: int, __: int | None) -> None:
        total = int(self._options.minutes * 60)
        self._progress(what, min(int(self._place.seconds), total), total)


def _takes_exact_kernels(variant: Variant) -> bool:
    """Whether the sums of a file would be cut off on this processor by kernels that are not exact."""
    return (
        variant.precision == "int8"
        and this_machine().processor.int8_saturates
        and not has_reduced_range(load_graph(variant.path).model)
    )
