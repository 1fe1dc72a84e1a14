"""The reports of a comparison of outputs, with a module (:mod:`.comparing`) or with a file (:mod:`.against_file`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from s2mlp_deploy.api.evidence import save_evidence
from s2mlp_deploy.api.prepared import Prepared
from s2mlp_deploy.data.noise import NoiseBatches
from s2mlp_deploy.evidence.machine import environment_here
from s2mlp_deploy.evidence.parity import GraphProof, OutputParity, ParityReport, Weights
from s2mlp_deploy.parity.compare import Comparison
from s2mlp_deploy.parity.probes import Tried, probes, try_probes
from s2mlp_deploy.parity.tolerances import apply_tolerances
from s2mlp_deploy.progress import ProgressCallback


@dataclass(frozen=True)
class Told:
    """What reports say of the comparison. What is by file is by its path as text.

    Attributes:
        reference: What is right, in words.
        weights: Which weights that has.
        candidates: What ran each file.
        notes: What else there is to say.
        proofs: What was read off files.
        eager: The figures of the module as it runs.
    """

    reference: str
    weights: Weights
    candidates: Mapping[str, str]
    notes: tuple[str, ...] = ()
    proofs: Mapping[str, GraphProof] = field(default_factory=dict)
    eager: tuple[OutputParity, ...] = ()


def try_besides(ready: Prepared, progress: ProgressCallback) -> dict[str, Tried]:
    """What files do with other inputs than those that are compared, by path; nothing where images are fed."""
    if ready.on_pixels:
        return {key: Tried((), ()) for key in ready.sessions}
    progress("trying other inputs", 0, None)
    precisions = ready.precisions
    return try_probes(
        ready.reference,
        ready.sessions,
        {
            key: ready.judging.general(precisions[key], on_pixels=False)
            for key in ready.sessions
            if precisions[key] in ("fp32", "fp16")
        },
        probes(ready.fed, ready.examples, ready.sizes, ready.seed),
        float32=[key for key in ready.sessions if precisions[key] == "fp32"],
    )


def report_outputs(
    ready: Prepared, measured: Comparison, tried: Mapping[str, Tried], told: Told, on_pixels: Collection[str] = ()
) -> tuple[ParityReport, ...]:
    """Judges what was measured and saves it beside the files.

    Args:
        ready: What the comparison ran on.
        measured: The figures.
        tried: What other inputs gave.
        told: What reports say of it.
        on_pixels: Files that preprocess images, which the reference does not.

    Returns:
        A report for each file.

    Raises:
        ArtifactError: A file was replaced meanwhile.
        OutputError: The evidence cannot be written.
    """
    # Engines are loaded by now, so that their versions are known.
    environment, noise, reports = environment_here(), isinstance(ready.inputs, NoiseBatches), []
    for path in ready.paths:
        key, sha256 = str(path), ready.hashes[path]
        ready.check_unchanged(path)
        allowed, basis = ready.judging.of_file(
            path, sha256, ready.precisions[key], on_pixels=key in on_pixels, images=measured.images, on_noise=noise
        )
        report = ParityReport(
            reference=told.reference,
            candidate=told.candidates[key],
            file=path.name,
            precision=ready.precisions[key],
            data=ready.inputs.described,
            images=measured.images,
            outputs=measured.figures[key],
            file_sha256=sha256,
            eager=told.eager,
            proof=told.proofs.get(key),
            tried=tried[key].names,
            notes=told.notes,
            noise=noise,
            data_sha256=ready.data_sha256,
            weights=told.weights,
            environment=environment,
            limits=basis,
        )
        report = apply_tolerances(report, allowed)
        reports.append(replace(report, failures=(*report.failures, *tried[key].failures)))
        save_evidence(path.parent, reports[-1], label=reports[-1].label)
    return tuple(reports)
