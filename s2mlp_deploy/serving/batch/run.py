"""A batch from end to end: what there is, who works on it, what is written, and what became of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from s2mlp_deploy.artifact import MANIFEST, read_manifest
from s2mlp_deploy.choices import EnginePool
from s2mlp_deploy.engines.profiles import MAX_SIZE
from s2mlp_deploy.engines.registry import check_here
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.evidence.machine import this_machine
from s2mlp_deploy.evidence.standing import hashes_of
from s2mlp_deploy.evidence.store import read_evidence
from s2mlp_deploy.progress import ProgressCallback, no_progress
from s2mlp_deploy.serving.batch.inputs import BatchInput, open_input
from s2mlp_deploy.serving.batch.output import Counts, Question, check_output, open_output, write_part
from s2mlp_deploy.serving.batch.pools import InThisProcess, Pool, Processes
from s2mlp_deploy.serving.batch.worker import WorkerOptions
from s2mlp_deploy.serving.extras import check_pool
from s2mlp_deploy.serving.inputs import check_takes_images
from s2mlp_deploy.serving.outputs import find_scores
from s2mlp_deploy.serving.plan import RunPlan

CHUNK = 256
"""Images in a file of the output: what is lost when a batch is killed."""


@dataclass(frozen=True)
class BatchReport:
    """What became of a batch.

    Attributes:
        output: The Parquet data set.
        file: Which file of the artifact ran.
        engine: What ran it.
        why: Why that.
        images: All.
        broken: Images that could not be used; their rows say why.
        failed: Images of which the model said what is not finite.
        before: How many were classified before, by a run that was stopped.
        parts: Files of the data set.
        workers: Processes or actors.
        seconds: Wall time of this run.
    """

    output: str
    file: str
    engine: str
    why: str
    images: int
    broken: int
    failed: int
    before: int
    parts: int
    workers: int
    seconds: float

    @property
    def classified(self) -> int:
        """Images with a prediction."""
        return self.images - self.broken - self.failed

    @property
    def rate(self) -> float:
        """Images a second of this run."""
        return (self.images - self.before) / self.seconds if self.seconds > 0 else 0.0


def run_batch(
    source: str | Path | Sequence[str | Path],
    options: WorkerOptions,
    output: Path,
    *,
    column: str | None = None,
    chunk: int = CHUNK,
    workers: int | None = None,
    engine_pool: EnginePool = "process",
    address: str | None = None,
    progress: ProgressCallback = no_progress,
) -> BatchReport:
    """Classifies everything.

    Args:
        source: See :func:`~s2mlp_deploy.serving.batch.inputs.open_input`.
        options: What runs, and how.
        output: A folder for the results.
        column: See :func:`~s2mlp_deploy.serving.batch.inputs.open_input`.
        chunk: Images in a file of the output.
        workers: How many processes or actors; default: one for each core that this process may use.
        engine_pool: Who works.
        address: Of a Ray cluster.
        progress: Called with what is being done.

    Raises:
        S2MLPDeployError: See :func:`s2mlp_deploy.api.batching.batch`.
    """
    for name, value in (
        ("top", options.top),
        ("batch", options.batch),
        ("chunk", chunk),
        ("workers", 1 if workers is None else workers),
    ):
        if not 1 <= value <= MAX_SIZE:
            raise InputError(f"{name} is {value}", where=f"--{name}", fix=f"give a number from 1 to {MAX_SIZE}")
    check_pool(engine_pool, address)
    plan = options.plan
    if engine_pool == "process":  # A cluster's machines have what they have.
        check_here(plan.engine)
    manifest = read_manifest(plan.directory)
    check_takes_images(manifest, manifest.inputs, plan.directory / MANIFEST)
    if options.output is not None:
        find_scores(manifest.outputs, manifest.classes, options.output)
    if isinstance(source, (str, Path)) and output.resolve().is_relative_to(Path(source).resolve()):
        raise InputError(
            "the results would lie among what is to be classified, where the next run looks for images",
            where=str(output),
            fix="choose another folder with --output",
        )
    progress("looking for images", 0, None)
    found = open_input(source, column=column, size=chunk)
    question = Question(
        input=found.description,
        input_sha256=found.sha256,
        images=found.count,
        chunk=chunk,
        model=manifest.name,
        file=plan.file,
        file_sha256=hashes_of(manifest, read_evidence(plan.directory)).get(plan.file, ""),
        engine=plan.engine,
        output=options.output,
        top=options.top,
        outputs=options.outputs,
    )
    check_output(output, question)
    start = time.monotonic()
    count, threads = _share(workers, plan, found)
    # A worker may stand in another folder.
    settings = replace(plan.settings, threads=threads)
    settled = replace(options, plan=replace(plan, directory=plan.directory.resolve(), settings=settings))
    with open_output(output, question) as done:
        before = sum((counts.images for counts in done.values()), 0)
        counts = sum(done.values(), Counts())
        left = [item for item in found.chunks if item.index not in done]
        count = max(1, min(count, len(left)))
        if left:
            pool = _pool(engine_pool, settled, count, address)
            progress("classifying", counts.images, found.count)
            for result in pool.map(left):
                counts += write_part(output, result)
                progress("classifying", counts.images, found.count)
    return BatchReport(
        str(output),
        plan.file,
        plan.engine,
        plan.why,
        counts.images,
        counts.broken,
        counts.failed,
        before,
        len(found.chunks),
        count,
        time.monotonic() - start,
    )


def _share(workers: int | None, plan: RunPlan, found: BatchInput) -> tuple[int, int]:
    """How many workers, and how many threads each: together the cores that this process may use."""
    usable = max(1, int(this_machine().usable_cores or 1))
    on_gpu = plan.is_built or ":" in plan.engine
    threads = plan.settings.threads
    count = workers or (1 if on_gpu else max(1, usable // max(1, threads)))
    count = min(count, len(found.chunks))
    return count, threads or (0 if on_gpu else max(1, usable // count))


def _pool(kind: EnginePool, options: WorkerOptions, workers: int, address: str | None) -> Pool:
    make: dict[EnginePool, Callable[[], Pool]] = {
        "process": lambda: InThisProcess(options) if workers == 1 else Processes(options, workers),
        "ray": lambda: _ray(options, workers, address),
    }
    return make[kind]()


def _ray(options: WorkerOptions, workers: int, address: str | None) -> Pool:
    # An extra of its own, of hundreds of megabytes.
    from s2mlp_deploy.serving.batch.ray_pool import RayActors

    return RayActors(options, workers, address)
