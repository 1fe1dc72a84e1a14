"""An InferenceService of KServe (``serving.kserve.io/v1beta1``), for the container or for a Triton repository."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from s2mlp_deploy.artifact import Manifest
from s2mlp_deploy.artifact.directories import new_directory
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.serving.package.result import Package, PackageOptions
from s2mlp_deploy.serving.package.writing import check_free
from s2mlp_deploy.serving.plan import RunPlan

_FILE = "inferenceservice.yaml"
_PORT = 8000
# RFC 1123: the name becomes a host's.
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def check_service_name(name: str) -> str:
    """A name that Kubernetes takes.

    Raises:
        InputError: It has other characters, or is too long.
    """
    if not _LABEL.fullmatch(name):
        raise InputError(
            f"{name!r} is no name of a Kubernetes service",
            where="--name",
            fix=f"small letters, digits and '-', at most 63: --name {service_name(name)}",
        )
    return name


def service_name(name: str) -> str:
    """The nearest name that Kubernetes takes: ``s2mlpv2-small-7`` of ``s2mlpv2_small_7``."""
    return re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[:63].strip("-") or "model"


def write_kserve(output: Path, manifest: Manifest, plan: RunPlan, options: PackageOptions) -> Package:
    """Writes the description that ``kubectl apply`` takes.

    Raises:
        InputError: The name is none, or neither an image nor a place of the repository is given, or both are.
        OutputError: It cannot be written.
    """
    name = check_service_name(options.name) if options.name else service_name(manifest.name)
    if (options.image is None) == (options.storage_uri is None):
        raise InputError(
            "KServe needs the image of the container, or the place of a Triton repository",
            where="--format kserve",
            fix="--image IMAGE (after --format docker) or --storage-uri URI (after --format triton)",
        )
    check_free(output)
    text = _of_container(name, manifest, plan, options) if options.image else _of_repository(name, options)
    with new_directory(output) as staging:
        (staging / _FILE).write_text(text, encoding="utf-8")
    return Package(
        "kserve",
        output,
        (_FILE,),
        manifest.name,
        plan.file,
        plan.engine,
        plan.why,
        commands=(shlex.join(["kubectl", "apply", "-f", str(output / _FILE)]),),
    )


def _head(name: str) -> str:
    return f"""\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {name}
spec:
  predictor:
"""


def _of_container(name: str, manifest: Manifest, plan: RunPlan, options: PackageOptions) -> str:
    # What is asked for is what its threads use; without a number the engine takes the cores that it sees.
    cores = max(1, plan.settings.threads) * options.instances
    # Quoted as JSON, which YAML reads: a tag of digits would be a number.
    return f"""{_head(name)}\
    # Answers as {manifest.name}: /v2/models/{manifest.name}/infer
    containers:
      - name: kserve-container
        image: {json.dumps(options.image)}
        ports:
          - name: http1
            containerPort: {_PORT}
            protocol: TCP
        readinessProbe:
          httpGet:
            path: /v2/health/ready
            port: {_PORT}
          periodSeconds: 5
        livenessProbe:
          httpGet:
            path: /v2/health/live
            port: {_PORT}
          periodSeconds: 10
        resources:
          requests:
            cpu: "{cores}"
            memory: 1Gi
        securityContext:
          allowPrivilegeEscalation: false
          runAsNonRoot: true
          runAsUser: 10001
"""


def _of_repository(name: str, options: PackageOptions) -> str:
    return f"""{_head(name)}\
    model:
      modelFormat:
        name: triton
      protocolVersion: v2
      storageUri: {json.dumps(options.storage_uri)}
"""
