"""What a candidate of a tuning must pass: it computes the same, and nothing speaks against its accuracy."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.api.variants import Variant
from s2mlp_deploy.artifact import Manifest
from s2mlp_deploy.bench.track import Track
from s2mlp_deploy.evidence.choice import accuracy_objection
from s2mlp_deploy.evidence.machine import environment_here
from s2mlp_deploy.evidence.parity import OutputParity, ParityReport, Tolerances, Weights, unmet_limits
from s2mlp_deploy.evidence.store import read_evidence
from s2mlp_deploy.evidence.tune import Outcome
from s2mlp_deploy.parity.compare import compare_arrays
from s2mlp_deploy.parity.tolerances import default_tolerances

MARGIN = 3.0
"""Decibels that a quantized file may be farther from float32 than the one whose accuracy was measured. Engines round
sums of integers otherwise: the same file differs by up to 1.4 between two of them (benchmarks/tune.md)."""

_CAREFUL = "run `quantize` again: it scores what it makes"

_ANY = 2.0
"""Share of the peak that a value of a quantized file may differ by: the ratio of signal and noise judges it."""

_EXACT = 200.0
"""Decibels that stand for a file that does not differ at all."""

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Verdict:
    """What a candidate computes.

    Attributes:
        outcome: What speaks against it; None for nothing.
        reason: That in words.
        difference: Its largest difference from the float32 file; None where they were not compared.
        outputs: The figures with their limits; none of the float32 file itself.
        runtime: What ran it, with its version.
    """

    outcome: Outcome | None = None
    reason: str = ""
    difference: float | None = None
    outputs: tuple[OutputParity, ...] = ()
    runtime: str = ""


class Gates:
    """Judges candidates by what they compute of the inputs that they are timed with.

    Args:
        root: The artifact.
        manifest: Of it.
        work: Where outputs are saved.
        noise: By precision, the ratio of signal and noise of the artifact's own file: kept with what was judged by it.

    Attributes:
        shapes: Of the inputs that candidates are timed with; none before the first one is judged.
    """

    def __init__(self, root: Path, manifest: Manifest, work: Path, noise: MutableMapping[str, float]) -> None:
        self._manifest, self._evidence, self._work = manifest, read_evidence(root), work
        self._reference: Arrays | None = None
        self._noise = noise
        self.shapes: tuple[tuple[int, ...], ...] = ()

    def judge(self, variant: Variant, track: Track) -> Verdict:
        """Whether a candidate that is warm may win.

        The first one that is judged is float32 as it was exported; all others are compared with it. The artifact's own
        file of each other precision sets how near others of that precision must be: before it has run, none passes.

        Args:
            variant: Its file.
            track: It, in its process.
        """
        outputs = self._outputs(track)
        if outputs is None:
            return Verdict()
        if self._reference is None:
            self._reference, self.shapes = outputs, tuple(track.shapes.values())
            return Verdict(difference=0.0)
        if sorted(outputs) != sorted(self._reference) or any(
            array.shape != self._reference[name].shape for name, array in outputs.items()
        ):
            return Verdict("parity", "its outputs have other names or shapes than the float32 file's")
        figures = compare_arrays(self._reference, outputs)
        limits = self._limits(variant, figures)
        if limits is None:
            own = self._manifest.file(variant.precision).path
            return Verdict("parity", f"{own}, which it is compared with, did not run")
        judged = tuple(replace(output, tolerances=limits) for output in figures)
        failures = [text for output in judged for text in unmet_limits(output)]
        known = [output.metrics.max_abs for output in judged if output.metrics.max_abs is not None]
        difference = max(known) if len(known) == len(figures) else None
        return Verdict("parity" if failures else None, "; ".join(failures), difference, judged, track.candidate.runtime)

    def report(self, variant: Variant, file: str, verdict: Verdict, data: str, images: int) -> ParityReport:
        """The evidence of what was judged, which rests on the artifact's own files: they are what it was judged by.

        Args:
            variant: What won.
            file: Its name in the artifact.
            verdict: Of it.
            data: What the inputs were.
            images: How many samples.
        """
        own = [self._manifest.file(precision) for precision in dict.fromkeys(("fp32", variant.precision))]
        return ParityReport(
            reference=f"{own[0].path}, as it was exported",
            candidate=verdict.runtime,
            file=file,
            precision=variant.precision,
            data=data,
            images=images,
            outputs=verdict.outputs,
            file_sha256=variant.sha256,
            noise=True,
            weights=Weights.of(self._manifest.source),
            environment=environment_here(),
            limits="those of fp32 in general"
            if variant.precision == "fp32"
            else f"what {own[-1].path}, whose accuracy was measured, does on the same, less {MARGIN:g} dB",
            rests_on=tuple((record.path, record.sha256) for record in own),
        )

    def _limits(self, variant: Variant, figures: Sequence[OutputParity]) -> Tolerances | None:
        if variant.precision == "fp32":
            return default_tolerances("fp32", on_pixels=self._manifest.preprocessing_in_graph)
        if variant.file == self._manifest.file(variant.precision).path:
            ratios = [output.metrics.sqnr for output in figures if output.metrics.sqnr is not None]
            self._noise.setdefault(variant.precision, min(ratios, default=_EXACT))
        own = self._noise.get(variant.precision)
        return None if own is None else Tolerances(0.0, _ANY, -1, 0, min_sqnr=own - MARGIN)

    def accuracy(self, variant: Variant) -> str:
        """What the saved scores of the artifact's own file of a precision speak against it; empty for nothing."""
        if variant.precision == "fp32":
            return ""
        file = self._manifest.file(variant.precision).path
        told = accuracy_objection(self._manifest, self._evidence, file)
        if told is None:
            return f"nobody has measured what {file} scores: {_CAREFUL}"
        return f"{file} {told}" if told else ""

    def _outputs(self, track: Track) -> Arrays | None:
        path = self._work / "outputs.npz"
        try:
            if not track.save_outputs(path):
                return None
            with np.load(path, allow_pickle=False) as saved:
                return {name: saved[name] for name in saved.files}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            track.failure = f"its outputs cannot be read: {error}"
            return None
        finally:
            path.unlink(missing_ok=True)
