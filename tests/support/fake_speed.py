"""A stand-in for the short benchmark of new files, which starts a dozen processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from report_samples import bench

from s2mlp_deploy.evidence.bench import BenchReport, BenchResult, Ratio
from s2mlp_deploy.evidence.profile import NodeTime, Profile
from s2mlp_deploy.files import sha256_of
from s2mlp_deploy.processor import Processor

PRODUCTS = Profile(20, 2.0, (NodeTime("fc1/MatMul", "MatMul", "fc1", 1.8), NodeTime("Gelu", "Gelu", "", 0.2)))
VNNI = Processor("x86_64", "A processor", ("avx512_vnni",))
WITHOUT_VNNI = Processor("x86_64", "A processor", ("avx2",))


def speed_report(
    files: Sequence[Path | str],
    ratios: Mapping[str, float],
    *,
    engine: str = "onnxruntime",
    profile: Profile | None = None,
    processor: Processor = VNNI,
    failed: str = "",
) -> BenchReport:
    """A benchmark in which files take so many times as long as the first one, give or take a twentieth.

    Args:
        files: float32 first.
        ratios: By the precision in a file's name; others take half the time.
        engine: What ran them.
        profile: Of those that took longer; float32's time is in products then.
        processor: Of the machine.
        failed: The file that could not be run.
    """
    report = bench()
    base = replace(report.results[0], profile=None)
    results: list[BenchResult] = []
    for file in map(Path, files):
        precision = file.name.split(".")[1]
        digest = sha256_of(file) if file.is_file() else "c" * 64
        candidate = replace(base.candidate, file=str(file), sha256=digest, precision=precision, engine=engine)
        value = ratios.get(precision, 0.5)
        ratio = Ratio(results[0].candidate.name, value, 0.95 * value, 1.05 * value) if results else None
        result = replace(base, candidate=candidate, ratio=ratio, cpu_ratio=ratio, warnings=())
        if file.name == failed:
            result = BenchResult(candidate, "it was ended by SIGSEGV")
        elif ratio is not None and ratio.low > 1:
            result = replace(result, profile=profile)
        results.append(result)
    if any(result.profile is not None for result in results):
        results[0] = replace(results[0], profile=PRODUCTS)
    environment = replace(report.environment, machine=replace(report.environment.machine, processor=processor))
    return replace(report, environment=environment, results=tuple(results), warnings=())


def fake_speed(**how: Any) -> Callable[..., BenchReport]:
    """What takes the place of ``measure_speed``; see :func:`speed_report`."""
    ratios = how.pop("ratios", {})

    def measure(files: Sequence[Path], engine: str, shapes: object, **_: object) -> BenchReport:
        measure.asked.append((engine, [file.name for file in files], shapes))  # type: ignore[attr-defined]
        return speed_report(files, ratios, engine=engine, **how)

    measure.asked = []  # type: ignore[attr-defined]
    return measure
