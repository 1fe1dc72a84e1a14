"""What is known of an artifact of two files, fp32 and int8."""

from __future__ import annotations

from dataclasses import replace

from report_samples import INT8, bench, report

from s2mlp_deploy.evidence.bench import BenchReport, Ratio
from s2mlp_deploy.evidence.parity import ParityReport
from s2mlp_deploy.evidence.store import Evidence, Saved


def int8(whole: ParityReport) -> ParityReport:
    """The comparison of the int8 file, as that of another one."""
    return replace(whole, file=INT8, precision="int8", file_sha256="b" * 64)


BOTH = (report(), int8(report()))
"""Parity of both files, which holds."""


def evidence(*records: object) -> Evidence:
    """Records as they are read from an artifact."""
    return Evidence(tuple(Saved(f"{index}.json", record) for index, record in enumerate(records)))


def timed(ratio: Ratio) -> BenchReport:
    """A benchmark in which the int8 file takes so much of the first one's time."""
    first, second, _ = bench().results
    return replace(bench(), results=(first, replace(second, ratio=ratio)))
