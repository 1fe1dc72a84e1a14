"""What is known of an artifact of two files, fp32 and int8."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from report_samples import FILE, INT8, SHA, bench, on_noise, quantized_manifest, report

from s2mlp_deploy.artifact import FileRecord, Manifest
from s2mlp_deploy.evidence.bench import BenchReport, Ratio
from s2mlp_deploy.evidence.parity import ParityReport
from s2mlp_deploy.evidence.store import Evidence, Saved


def int8(whole: ParityReport, **changes: Any) -> ParityReport:
    """The comparison of the int8 file, as that of another one."""
    return replace(whole, file=INT8, precision="int8", file_sha256="b" * 64, **changes)


BOTH = (report(), int8(report()))
"""Parity of both files, which holds."""


TUNED = "model.int8-tuned.onnx"


def with_tuned() -> Manifest:
    """The artifact after ``tune``, which made another int8 file."""
    whole = quantized_manifest()
    return replace(whole, files=(*whole.files, FileRecord(TUNED, "int8", "d" * 64, 260, 650)))


def tuned_on_noise() -> ParityReport:
    """What ``tune`` saves of it: it was compared with the artifact's own files alone."""
    (output,) = report().outputs
    unlabelled = (replace(output, ranks=None),)
    resting = ((FILE, SHA), (INT8, "b" * 64))
    return on_noise(file=TUNED, precision="int8", file_sha256="d" * 64, outputs=unlabelled, rests_on=resting)


def evidence(*records: object) -> Evidence:
    """Records as they are read from an artifact."""
    return Evidence(tuple(Saved(f"{index}.json", record) for index, record in enumerate(records)))


def timed(ratio: Ratio) -> BenchReport:
    """A benchmark in which the int8 file takes so much of the first one's time."""
    first, second, _ = bench().results
    return replace(bench(), results=(first, replace(second, ratio=ratio)))
