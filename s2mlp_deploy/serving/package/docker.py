"""A build context of Docker for the service: the artifact, the versions that run here, a Dockerfile."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from s2mlp_deploy import __version__
from s2mlp_deploy.artifact import EVIDENCE, MANIFEST, Manifest, verify_file
from s2mlp_deploy.artifact.directories import new_directory
from s2mlp_deploy.engines.registry import kind_of
from s2mlp_deploy.errors import InputError, MissingDependencyError, TargetError
from s2mlp_deploy.serving.package.result import Package, PackageOptions
from s2mlp_deploy.serving.package.writing import check_free
from s2mlp_deploy.serving.plan import RunPlan

_PACKAGE = "s2mlp-deploy"
_EXTRAS = {"onnxruntime": "cpu", "openvino": "openvino", "openvino:CPU": "openvino"}
_USER, _PORT = 10001, 8000
_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?[^;]*(?:;(.*))?$")
_OF_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")


def write_docker(output: Path, manifest: Manifest, plan: RunPlan, options: PackageOptions) -> Package:
    """Writes a directory that ``docker build`` takes.

    The packages are pinned to the versions that are installed here, those that the artifact was tried with.

    Raises:
        TargetError: What runs the artifact needs more than a processor.
        InputError: The wheel is none of this package's version.
        MissingDependencyError: A package of the service is not installed here, so its version is not known.
        OutputError: It cannot be written.
    """
    extra = _EXTRAS.get(plan.engine)
    if extra is None:
        raise TargetError(
            f"the container runs on processors, and {plan.file} runs on {plan.engine}",
            where="--format docker",
            fix="--engine onnxruntime or openvino; --format triton for engines and GPUs",
        )
    wheel = _wheel(options.wheel)
    pins = _pins(extra)
    check_free(output)
    with new_directory(output) as staging:
        files = list(_write_model(staging / "models" / manifest.name, manifest, plan.directory))
        own = f"{_PACKAGE}[{extra},serve]=={__version__}"
        if wheel is not None:
            shutil.copyfile(wheel, staging / wheel.name)
            files.append(wheel.name)
            own = f"{_PACKAGE}[{extra},serve] @ file:///tmp/{wheel.name}"
        texts = {
            "Dockerfile": _dockerfile(manifest, plan, options, wheel),
            "requirements.txt": "".join(f"{line}\n" for line in [own, *pins]),
            ".dockerignore": "*\n!requirements.txt\n!models\n" + (f"!{wheel.name}\n" if wheel is not None else ""),
        }
        for name, text in texts.items():
            (staging / name).write_text(text, encoding="utf-8")
    # What Docker takes: a served name may have spaces, of a file of weights for example.
    tag = re.sub(r"[^a-z0-9._-]+", "-", manifest.name.lower()).strip("._-") or "model"
    return Package(
        "docker",
        output,
        (*texts, *files),
        manifest.name,
        plan.file,
        plan.engine,
        plan.why,
        commands=(
            shlex.join(["docker", "build", "--tag", tag, str(output)]),
            f"docker run --rm --publish {_PORT}:{_PORT} --env S2MLP_TOKEN {tag}",
        ),
    )


def _write_model(home: Path, manifest: Manifest, source: Path) -> Iterator[str]:
    """The artifact as it is: its evidence too, which says what may run and runs fastest."""
    home.mkdir(parents=True)
    for record in manifest.files:
        shutil.copyfile(verify_file(source, record), home / record.path)
        yield f"models/{manifest.name}/{record.path}"
    evidence = sorted((source / EVIDENCE).glob("*.json"))
    if evidence:
        (home / EVIDENCE).mkdir()
    for path in evidence:
        shutil.copyfile(path, home / EVIDENCE / path.name)
        yield f"models/{manifest.name}/{EVIDENCE}/{path.name}"
    shutil.copyfile(source / MANIFEST, home / MANIFEST)
    yield f"models/{manifest.name}/{MANIFEST}"


def _dockerfile(manifest: Manifest, plan: RunPlan, options: PackageOptions, wheel: Path | None) -> str:
    base = options.base or f"python:{platform.python_version()}-slim-bookworm"
    command = [f"/models/{manifest.name}", "--host", "0.0.0.0", "--port", str(_PORT)]
    command += ["--precision", plan.precision, "--engine", kind_of(plan.engine)]
    command += ["--max-batch", str(options.max_batch), "--max-delay", f"{options.max_delay * 1000:g}"]
    command += ["--instances", str(options.instances)]
    if plan.settings.threads:
        command += ["--threads", str(plan.settings.threads)]
    if not plan.proven:
        command.append("--allow-unproven")
    probe = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{_PORT}/v2/health/ready', timeout=2)"
    return f"""\
# Serves {manifest.name}. Written by s2mlp-deploy {__version__}.
FROM {base}

ENV PYTHONDONTWRITEBYTECODE=1 \\
    PYTHONUNBUFFERED=1 \\
    XDG_CACHE_HOME=/tmp

RUN useradd --system --no-create-home --uid {_USER} service

COPY {"requirements.txt" if wheel is None else f"requirements.txt {wheel.name}"} /tmp/
RUN pip install --no-cache-dir --requirement /tmp/requirements.txt

COPY models/ /models/

USER {_USER}
EXPOSE {_PORT}
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["python", "-c", {json.dumps(probe)}]
ENTRYPOINT ["s2mlp-deploy", "serve"]
CMD {json.dumps(command)}
"""


def _wheel(path: Path | None) -> Path | None:
    if path is None:
        return None
    if not path.is_file() or not path.name.startswith(f"s2mlp_deploy-{__version__}-") or path.suffix != ".whl":
        raise InputError(
            f"no wheel of s2mlp-deploy {__version__}", where=str(path), fix="make one: python -m build --wheel"
        )
    return path


def _pins(extra: str) -> list[str]:
    """What the service needs, directly and not, as it is installed here.

    Raises:
        MissingDependencyError: One of its own requirements is not installed.
    """
    found: dict[str, str] = {}
    wanted = [(_PACKAGE, frozenset({extra, "serve"}))]
    seen = set()
    while wanted:
        name, extras = wanted.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            installed = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if name != _PACKAGE:
            found[name] = f"{name}=={installed.version}"
        for text in installed.requires or ():
            match = _REQUIREMENT.match(text)
            asked = _OF_EXTRA.search((match[3] or "") if match else "")
            if match is None or (asked is not None and asked[1] not in extras):
                continue
            required = re.sub(r"[-_.]+", "-", match[1]).lower()
            inner = frozenset(item.strip() for item in (match[2] or "").split(",") if item.strip())
            wanted.append((required, inner))
    engine = "onnxruntime" if extra == "cpu" else extra
    for name, owner in ((engine, extra), ("fastapi", "serve"), ("uvicorn", "serve")):
        if name not in found:
            raise MissingDependencyError(
                name, extra=owner, purpose="--format docker, which pins what is installed here"
            )
    return [found[name] for name in sorted(found)]
