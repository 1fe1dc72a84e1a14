"""What would run of an artifact on this machine, why, and what would make it slow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from s2mlp_deploy.artifact import read_manifest
from s2mlp_deploy.engines.record import read_engine
from s2mlp_deploy.engines.registry import check_here, fits_here
from s2mlp_deploy.errors import ArtifactError, MissingDependencyError
from s2mlp_deploy.serving.hindrances import Hindrance, hindrances
from s2mlp_deploy.serving.plan import RunPlan, plan_run
from s2mlp_deploy.text import command_line


@dataclass(frozen=True)
class Diagnosis:
    """What would run of an artifact here.

    Attributes:
        name: The served name.
        plan: What would run; None where nothing would.
        refusal: Why nothing would run; empty where something does.
        fix: What to do about that.
        hindrances: What would make it slow.
    """

    name: str
    plan: RunPlan | None
    refusal: str = ""
    fix: str = ""
    hindrances: tuple[Hindrance, ...] = ()


def diagnose(
    directory: str | Path, *, precision: str | None = None, engine: str | None = None, sessions: int = 1
) -> Diagnosis:
    """Says what :class:`~s2mlp_deploy.serving.predictor.Predictor` and the service would run, without opening it.

    Args:
        directory: The artifact.
        precision: As for :class:`~s2mlp_deploy.serving.predictor.Predictor`.
        engine: As there.
        sessions: As there.

    Raises:
        ArtifactError: The directory is no artifact, or has no such file.
        TargetError: There is no such engine, or no such part of a machine here.
    """
    root = Path(directory)
    manifest = read_manifest(root)
    plan, refusal, fix = None, "", ""
    try:
        found = plan_run(root, precision=precision, engine=engine)
        _check_runs(found)
        plan = found
    except (ArtifactError, MissingDependencyError) as error:
        if precision is not None:
            manifest.file(precision)  # One that is not there is no diagnosis.
        refusal, fix = error.problem, error.fix or ""
    return Diagnosis(manifest.name, plan, refusal, fix, hindrances(plan, sessions=sessions) if plan is not None else ())


def _check_runs(plan: RunPlan) -> None:
    """Refuses what opening it would refuse, as far as that is known without opening it.

    Raises:
        TargetError: There is no such part of a machine here.
        MissingDependencyError: The engine is not installed.
        ArtifactError: The engine file is damaged, or was built for another machine.
    """
    check_here(plan.engine)
    if plan.is_built and not fits_here(read_engine(plan.path)):
        raise ArtifactError(
            f"{plan.file} does not run on the GPUs and with the libraries of this machine",
            where=str(plan.path),
            fix="leave --engine out, or see what it was built for: " + command_line("inspect", plan.path),
        )
