"""Writing an artifact in the form that other servers and platforms take."""

from __future__ import annotations

from pathlib import Path

from s2mlp_deploy.artifact import MANIFEST, read_manifest
from s2mlp_deploy.choices import PackageFormat
from s2mlp_deploy.errors import ArtifactError
from s2mlp_deploy.files import is_plain_name
from s2mlp_deploy.serving.package.docker import write_docker
from s2mlp_deploy.serving.package.kserve import write_kserve
from s2mlp_deploy.serving.package.result import Package, PackageOptions
from s2mlp_deploy.serving.package.triton import write_triton
from s2mlp_deploy.serving.plan import plan_run

_WRITERS = {"triton": write_triton, "docker": write_docker, "kserve": write_kserve}


def package(
    directory: str | Path,
    output: str | Path,
    *,
    format: PackageFormat,
    options: PackageOptions | None = None,
    precision: str | None = None,
    engine: str | None = None,
    threads: int | None = None,
    allow_unproven: bool = False,
) -> Package:
    """Writes an artifact as a Triton model repository, a Docker build context or a KServe InferenceService.

    Args:
        directory: The artifact.
        output: Where to write. A repository may hold other models, and other versions of this one; else nothing.
        format: ``triton``, ``docker`` or ``kserve``.
        options: Batches, versions, images.
        precision: See :func:`~s2mlp_deploy.serving.plan.plan_run`.
        engine: See there.
        threads: See there.
        allow_unproven: See there.

    Raises:
        ArtifactError: There is no artifact, or none of its files may run.
        TargetError: That form does not run the engine.
        InputError: Something that the form needs is not given.
        OutputError: It cannot be written there.
    """
    root = Path(directory)
    plan = plan_run(root, precision=precision, engine=engine, threads=threads, allow_unproven=allow_unproven)
    manifest = read_manifest(root)
    # It becomes a folder of the repository, and part of lines that another program runs.
    if not is_plain_name(manifest.name) or not manifest.name.isprintable():
        raise ArtifactError(
            f"{manifest.name!r} is no name to serve under",
            where=str(root / MANIFEST),
            fix="export again with --name NAME, into another directory",
        )
    return _WRITERS[format](Path(output), manifest, plan, options or PackageOptions())
