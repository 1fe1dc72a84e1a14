"""Classifying a whole collection of images into a Parquet data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from s2mlp_deploy.choices import EnginePool
from s2mlp_deploy.progress import ProgressCallback, no_progress
from s2mlp_deploy.serving.batch.run import CHUNK, BatchReport, run_batch
from s2mlp_deploy.serving.batch.worker import WorkerOptions
from s2mlp_deploy.serving.plan import plan_run


def batch(
    source: str | Path | Sequence[str | Path],
    model: str | Path,
    output: str | Path,
    *,
    column: str | None = None,
    precision: str | None = None,
    engine: str | None = None,
    threads: int | None = None,
    spin: bool | None = None,
    flush_denormals: bool | None = None,
    allow_unproven: bool = False,
    score_output: str | None = None,
    top: int = 5,
    all_outputs: bool = False,
    batch_size: int = 8,
    chunk: int = CHUNK,
    workers: int | None = None,
    engine_pool: EnginePool = "process",
    address: str | None = None,
    progress: ProgressCallback = no_progress,
) -> BatchReport:
    """Classifies a collection of images. Called again after it was stopped, it goes on where it stopped.

    Several workers are processes that import the calling script: call it below ``if __name__ == "__main__":``.

    Args:
        source: A folder of images, a text file with a path a line, a Parquet file or a folder of them (bytes or paths
            of images), or paths.
        model: The artifact.
        output: A folder for the results: a Parquet data set with a row for each image.
        column: Of Parquet: what holds the images. Default: the only column that can.
        precision: See :class:`~s2mlp_deploy.serving.predictor.Predictor`.
        engine: See there.
        threads: See there; default: as ``tune`` chose, else so many that all workers together use each core once.
        spin: See there.
        flush_denormals: See there.
        allow_unproven: See there.
        score_output: The output that is the classifier; default: the one that looks like it.
        top: How many classes to name.
        all_outputs: Whether all outputs of the model are written; those of one that is no classifier always are.
        batch_size: Images in a run.
        chunk: Images in a file of the results, which is what is lost when it is stopped.
        workers: Processes, or actors of Ray; default: one for each core that this process may use.
        engine_pool: ``process``, on this machine, or ``ray``.
        address: Of a Ray cluster, whose machines see artifact and images at the same paths; default: Ray is started on
            this machine.
        progress: Called with what is being done.

    Returns:
        How many images there were, and what ran.

    Raises:
        ArtifactError: The artifact is damaged, or none of its files is known to compute what it should.
        DataError: There are no images.
        InputError: An option cannot be used, or another batch was begun in the folder.
        OutputError: The folder holds something else, is in use, or cannot be written.
        MissingDependencyError: pyarrow, the engine or Ray is not installed.
        CheckFailedError: Workers died again and again.
    """
    plan = plan_run(
        model,
        precision=precision,
        engine=engine,
        threads=threads,
        spin=spin,
        flush_denormals=flush_denormals,
        allow_unproven=allow_unproven,
    )
    return run_batch(
        source,
        WorkerOptions(plan, score_output, top, batch_size, all_outputs),
        Path(output),
        column=column,
        chunk=chunk,
        workers=workers,
        engine_pool=engine_pool,
        address=address,
        progress=progress,
    )
