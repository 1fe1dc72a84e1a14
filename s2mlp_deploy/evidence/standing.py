"""What the saved comparisons of a file amount to: which of them count, and what they say together.

Comparisons on images outrank those on noise, which is like nothing that a model gets to see. A comparison that fails is
shown wherever it was made, and it counts, but for one case: the figures of a quantized file on noise, whose values lie
outside the ranges that were calibrated, do not overrule images that hold.

A comparison with other files of the artifact proves no more than theirs do: where parity of one of those does not hold,
it is worth what theirs is, and nothing beside a comparison with the source itself.

A file on one engine is judged by what was compared on that engine (:meth:`Standing.on`): int8 kernels of another one
may fail where those hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Literal

from s2mlp_deploy.artifact import Manifest, data_file
from s2mlp_deploy.evidence.build import BuildRecord
from s2mlp_deploy.evidence.labels import saved_path
from s2mlp_deploy.evidence.parity import ParityReport, Weights, unmet_limits
from s2mlp_deploy.evidence.store import Evidence, Saved

State = Literal["holds", "fails", "unclear"]
_UNCALIBRATED = ("fp32", "fp16")


@dataclass(frozen=True)
class Comparison:
    """A saved comparison and what it says of the artifact's file.

    Attributes:
        name: Of its document.
        report: What was measured.
        state: A key of :data:`~s2mlp_deploy.report.verdict.STATES`.
        borrowed: The file that it was compared with, where that does not hold and the state is its.
    """

    name: str
    report: ParityReport
    state: str
    borrowed: str = ""

    @property
    def engine(self) -> str:
        """What ran the file, without its version or device: ``onnxruntime``."""
        return next(iter(self.report.candidate.split()), "")

    @property
    def counts(self) -> bool:
        """Whether it is of the file that is there, and of its weights."""
        return self.state not in ("stale", "weights")


@dataclass(frozen=True)
class Standing:
    """What is known of one file.

    Attributes:
        file: Its name.
        state: What its comparisons amount to: a key of ``STATES``.
        basis: The comparisons that the state rests on.
        excused: Comparisons on noise that fail and do not overrule images.
        superseded: Whether it was only measured before it changed, or with other weights.
        judged: All that count, but for those excused.
    """

    file: str
    state: str
    basis: tuple[Comparison, ...] = ()
    excused: tuple[Comparison, ...] = ()
    superseded: bool = False
    judged: tuple[Comparison, ...] = ()

    @property
    def on_noise(self) -> bool:
        """Whether noise is all it was compared on."""
        return bool(self.basis) and all(item.report.noise for item in self.basis)

    @property
    def engines(self) -> tuple[str, ...]:
        """What the comparisons that the state rests on ran on."""
        return tuple(sorted({item.engine for item in self.basis}))

    def on(self, engine: str) -> Standing:
        """What is known of the file on one engine: what was compared there, or all where that says too little.

        What is wrong with the graph itself counts everywhere, and images on another engine outrank noise on this one.

        Args:
            engine: Its own name, without a part of the machine: ``openvino``.
        """
        there = [item for item in self.judged if item.engine == engine]
        images = [item for item in self.judged if not item.report.noise]
        if not there or (images and all(item.report.noise for item in there)):
            return self
        wrong = [item for item in self.judged if item not in there and item.report.proof and item.report.proof.failures]
        return _settled(self.file, [*there, *wrong], self.excused)


def state_of(report: ParityReport) -> State:
    """Whether a comparison says that parity holds.

    An empty list of failures alone does not: without an input, or an output that was judged, there is nothing that
    could fail, and saved figures that do not keep the saved limits, or a proof that failed, contradict it.
    """
    if report.failures:
        return "fails"
    if report.images < 1 or (report.proof is not None and report.proof.failures):
        return "unclear"
    judged = bool(report.outputs) and all(output.tolerances is not None for output in report.outputs)
    return "holds" if judged and not any(map(unmet_limits, report.outputs)) else "unclear"


def file_of(report: ParityReport) -> str:
    """The name of the file that was compared."""
    return saved_path(report.file).name


def comparable(manifest: Manifest) -> tuple[str, ...]:
    """The artifact's files without the weights that lie beside a graph."""
    beside = {data_file(record.path) for record in manifest.files}
    return tuple(record.path for record in manifest.files if record.path not in beside)


def hashes_of(manifest: Manifest, evidence: Evidence) -> dict[str, str]:
    """The hash of each file that is there, by name: graphs as the manifest lists them, engines as they were built."""
    present = {PurePath(record.path).name: record.sha256 for record in manifest.files}
    return present | {item.record.engine: item.record.engine_sha256 for item in evidence.of(BuildRecord)}


def comparisons(manifest: Manifest, evidence: Evidence) -> tuple[Comparison, ...]:
    """Every saved comparison, images before noise, else in the order of the artifact's files."""
    present = hashes_of(manifest, evidence)
    order = {name: place for place, name in enumerate(present)}
    weights = Weights.of(manifest.source)
    found = [Comparison(item.name, item.record, _state(item, present, weights)) for item in evidence.of(ParityReport)]
    found.sort(key=lambda item: (item.report.noise, order.get(file_of(item.report), len(order))))
    with_source = [item for item in found if not item.report.rests_on]
    return tuple(_resting(item, with_source, present) for item in found)


def _resting(item: Comparison, with_source: Sequence[Comparison], present: dict[str, str]) -> Comparison:
    """A comparison, which says no more than what is known of the files that it was made with."""
    if item.state != "holds":
        return item
    for name, sha256 in item.report.rests_on:
        if present.get(name) != sha256:
            return replace(item, state="stale")
        known = _standing(name, [other for other in with_source if file_of(other.report) == name])
        state = known.on(item.report.reference.partition(" ")[0]).state
        if state != "holds":
            return replace(item, state=state, borrowed=name)
    return item


def _state(item: Saved[ParityReport], present: dict[str, str], weights: Weights) -> str:
    report = item.record
    # What does not say of which bytes it is may be of another file; a file that the manifest does not know may lie
    # beside the artifact's.
    if not report.file_sha256 or report.file_sha256 != present.get(file_of(report), report.file_sha256):
        return "stale"
    if report.weights is not None and not report.weights.same_as(weights):
        return "weights"
    return state_of(report)


def standings(manifest: Manifest, found: tuple[Comparison, ...]) -> tuple[Standing, ...]:
    """What is known of each file: the artifact's in the order of its manifest, then others that were compared.

    Args:
        manifest: Of the artifact.
        found: Its comparisons.
    """
    names = dict.fromkeys(PurePath(path).name for path in comparable(manifest))
    names |= dict.fromkeys(file_of(item.report) for item in found if item.counts)
    return tuple(_standing(name, [item for item in found if file_of(item.report) == name]) for name in names)


def _standing(file: str, found: list[Comparison]) -> Standing:
    current = [item for item in found if item.counts]
    if not current:
        return Standing(file, "missing", superseded=bool(found))
    if own := [item for item in current if not item.borrowed]:
        current = own
    images = any(item.state == "holds" and not item.report.noise for item in current)
    excused = tuple(item for item in current if images and _excusable(item))
    return _settled(file, [item for item in current if item not in excused], excused)


def _settled(file: str, judged: Sequence[Comparison], excused: tuple[Comparison, ...]) -> Standing:
    """What comparisons amount to: the worst of them, and where all hold, those on images."""
    for state in ("fails", "unclear", "missing"):
        if basis := tuple(item for item in judged if item.state == state):
            return Standing(file, state, basis, excused, judged=tuple(judged))
    best = tuple(item for item in judged if not item.report.noise)
    return Standing(file, "holds", best or tuple(judged), excused, judged=tuple(judged))


def _excusable(item: Comparison) -> bool:
    """Whether nothing fails but figures of a quantized file on noise: not what was read off it, not what was tried."""
    report = item.report
    if item.state != "fails" or not report.noise or report.precision in _UNCALIBRATED:
        return False
    figures = sum(len(unmet_limits(output)) for output in report.outputs)
    return not (report.proof and report.proof.failures) and len(report.failures) == figures
