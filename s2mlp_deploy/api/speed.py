"""Whether new files are faster than float32: measured once they are written, and kept as evidence."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from s2mlp_deploy.api.benchmarking import keep_bench
from s2mlp_deploy.api.places import Place, place_of, why_not
from s2mlp_deploy.artifact import Manifest, fitting_batch
from s2mlp_deploy.bench import speed as bench
from s2mlp_deploy.choices import GRAPH_ENGINE
from s2mlp_deploy.engines import cuda
from s2mlp_deploy.engines.tensorrt import builder
from s2mlp_deploy.errors import S2MLPDeployError
from s2mlp_deploy.evidence.bench import BenchReport
from s2mlp_deploy.evidence.choice import file_of
from s2mlp_deploy.evidence.speed import SpeedCheck, speed_in_words
from s2mlp_deploy.files import sha256_of
from s2mlp_deploy.progress import ProgressCallback, no_progress

Shapes = Mapping[str, tuple[int, ...]]


def check_speed(
    directory: Path,
    manifest: Manifest,
    precisions: Sequence[str],
    shapes: Shapes,
    *,
    min_speedup: float | None = None,
    progress: ProgressCallback = no_progress,
) -> SpeedCheck:
    """Measures files of an artifact against float32, each on what it is meant for, and saves what was measured.

    What cannot be measured is told, and no error: the files are written. With ``min_speedup`` it is a failure where
    nothing was measured on what it is meant for.

    Args:
        directory: The artifact.
        manifest: Of the artifact.
        precisions: Of the files.
        shapes: Of the inputs in a batch of any size.
        min_speedup: How many times as fast as float32 a file must be; None asks for nothing.
        progress: Told what is being done.
    """
    places = {precision: place_of(precision) for precision in precisions}
    files = {precision: manifest.file(precision).path for precision in precisions}
    unmeasured = {files[precision]: place for precision, place in places.items() if isinstance(place, str)}
    known = {precision: place for precision, place in places.items() if isinstance(place, Place)}
    elsewhere = tuple(files[precision] for precision, place in known.items() if not place.meant)
    reports, failures = [], []
    for engine in dict.fromkeys(place.engine for place in known.values()):
        names = [files[precision] for precision, place in known.items() if place.engine == engine]
        graphs = [directory / name for name in (manifest.file("fp32").path, *names)]
        try:
            report = _measure(graphs, engine, _free(manifest, shapes), min_speedup or 1.0, progress)
        except S2MLPDeployError as error:
            problems = dict.fromkeys(names, error.problem)
        else:
            keep_bench(directory, report, f"speed-{engine.replace(':', '-')}")
            reports.append(report)
            base = report.results[0].failure and f"float32 could not be measured: {report.results[0].failure}"
            problems = {file_of(r): base or r.failure for r in report.results[1:] if base or r.failure}
        unmeasured |= problems
        failures += [f"{name} on {engine}: {problem}" for name, problem in problems.items() if name not in elsewhere]
    check = SpeedCheck(tuple(reports), elsewhere, unmeasured)
    if min_speedup is None:
        return check
    told = [
        f"{file_of(result)} on {result.candidate.engine}: {speed_in_words(result)}, where {min_speedup:g} was asked for"
        for result in check.missed(min_speedup)
    ]
    judged = {file_of(result) for result in check.results}.difference(elsewhere)
    if not judged and not failures:
        # A floor that nothing was held against was not reached.
        reasons = {files[precision]: why_not(place) for precision, place in places.items()}
        failures = [f"{name} was not measured: {why or unmeasured.get(name, '')}" for name, why in reasons.items()]
    return replace(check, failures=(*told, *failures))


def _free(manifest: Manifest, shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Shapes of the inputs that have free sizes besides the batch, with the smallest batch."""
    found = {}
    for info in manifest.inputs:
        if info.name in shapes and any(isinstance(size, str) for size in info.shape[1:]):
            batch = info.shape[0] if isinstance(info.shape[0], int) else fitting_batch(manifest.limits, 1)[0]
            found[info.name] = (batch, *shapes[info.name][1:])
    return found


def _measure(
    graphs: Sequence[Path],
    engine: str,
    shapes: dict[str, tuple[int, ...]],
    speedup: float,
    progress: ProgressCallback,
) -> BenchReport:
    if engine.partition(":")[0] == GRAPH_ENGINE:
        return bench.measure_speed(graphs, engine, shapes, speedup=speedup, progress=progress)
    with tempfile.TemporaryDirectory() as folder:
        built = {_built(path, engine, Path(folder), shapes, progress): path for path in graphs}
        report = bench.measure_speed(list(built), engine, {}, speedup=speedup, progress=progress)
    return _of_graphs(report, {str(engine_file): path for engine_file, path in built.items()})


def _built(
    path: Path, engine: str, folder: Path, shapes: dict[str, tuple[int, ...]], progress: ProgressCallback
) -> Path:
    output = folder / f"{path.stem}.engine"
    profiles = [shapes] if shapes else []
    builder.build(
        path,
        engine=engine,
        # It is opened on CUDA's first GPU, which need not be the first one of nvidia-smi.
        targets=[cuda.use_device(0).capability] if engine == "tensorrt-rtx" else [],
        output=output,
        min_shapes=profiles,
        opt_shapes=profiles,
        max_shapes=profiles,
        report=progress,
    )
    return output


def _of_graphs(report: BenchReport, graphs: Mapping[str, Path]) -> BenchReport:
    """What was measured of engines that are gone, told of the graphs that they were built from."""
    renamed = {}
    results = []
    for result in report.results:
        path = graphs[result.candidate.file]
        candidate = replace(result.candidate, file=str(path), sha256=sha256_of(path))
        renamed[result.candidate.name] = candidate.name
        results.append(replace(result, candidate=candidate))
    return replace(
        report,
        results=tuple(
            replace(
                result,
                **{
                    name: replace(ratio, over=renamed[ratio.over])
                    for name in ("ratio", "cpu_ratio")
                    if (ratio := getattr(result, name)) is not None
                },
            )
            for result in results
        ),
    )
