"""What would run of an artifact on this machine, why, and what would make it slow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from s2mlp_deploy.artifact import read_manifest
from s2mlp_deploy.errors import ArtifactError
from s2mlp_deploy.serving.hindrances import Hindrance, hindrances
from s2mlp_deploy.serving.plan import RunPlan, plan_run


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
        TargetError: There is no such engine.
    """
    root = Path(directory)
    manifest = read_manifest(root)
    plan, refusal, fix = None, "", ""
    try:
        plan = plan_run(root, precision=precision, engine=engine)
    except ArtifactError as error:
        if precision is not None:
            manifest.file(precision)  # One that is not there is no diagnosis.
        refusal, fix = error.problem, error.fix or ""
    return Diagnosis(manifest.name, plan, refusal, fix, hindrances(plan, sessions=sessions) if plan is not None else ())
