"""What importing and packaging must hold: a service installs without torch."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import nano_artifact
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
HEAVY = (
    "torch",
    "onnx",
    "onnx_ir",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "safetensors",
    "tensorrt_rtx",
    "tensorrt",
    "cuda",
    "jinja2",
    "mlxtend",
    "datasets",
    "fastapi",
    "uvicorn",
    "prometheus_client",
    "grpc",
)


def loaded_by(module: str) -> set[str]:
    """The heavy packages that a fresh process has loaded after one import."""
    code = (
        f"import sys, json; import {module}; print(json.dumps([name for name in {HEAVY!r} if sys.modules.get(name)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": nano_artifact.PACKAGE_ROOT},
        check=True,
        capture_output=True,
        text=True,
    )
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "module",
    [
        "s2mlp_deploy.api",
        "s2mlp_deploy.cli.main",
        "s2mlp_deploy.serving.predictor",
        "s2mlp_deploy.engines.onnxruntime",
        "s2mlp_deploy.engines.openvino.runtime",
        "s2mlp_deploy.engines.registry",
        "s2mlp_deploy.engines.cuda",
        "s2mlp_deploy.gpu",
        "s2mlp_deploy.engines.optimized",
        "s2mlp_deploy.engines.tensorrt.builder",
        "s2mlp_deploy.engines.tensorrt.library",
        "s2mlp_deploy.engines.tensorrt.preflight",
        "s2mlp_deploy.engines.tensorrt.runtime",
        "s2mlp_deploy.data.dataset",
        "s2mlp_deploy.parity.compare",
        "s2mlp_deploy.models.registry",
        "s2mlp_deploy.preprocess",
    ],
)
def test_importing_loads_nothing_heavy(module):
    assert loaded_by(module) == set()


def test_the_check_of_loaded_packages_sees_them():
    pytest.importorskip("onnx")
    assert "onnx" in loaded_by("onnx")


def test_the_predictor_loads_onnxruntime_only_when_it_runs():
    assert "onnxruntime" not in loaded_by("s2mlp_deploy.serving.predictor")


def test_the_core_requires_only_what_inference_needs():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    names = {requirement.split(">")[0].split("=")[0] for requirement in project["dependencies"]}
    assert names == {"msgspec", "numpy", "pillow", "rich", "typer"}
    # onnxruntime and onnxruntime-gpu overwrite each other: no extra may ask for both.
    extras = project["optional-dependencies"]
    assert not any(
        {"onnxruntime", "onnxruntime-gpu"} <= {item.split(">")[0] for item in wanted} for wanted in extras.values()
    )


def test_every_extra_that_a_message_names_exists():
    extras = set(tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    import re

    named = set()
    for path in (REPOSITORY / "s2mlp_deploy").rglob("*.py"):
        text = path.read_text()
        named |= set(re.findall(r"s2mlp-deploy\[(\w+)\]", text)) | set(re.findall(r'extra="(\w+)"', text))
    assert {"export", "rtx", "tensorrt", "cuda", "cpu", "demo"} <= named
    assert named <= extras


def test_the_installed_entry_point_is_the_command_line():
    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"s2mlp-deploy": "s2mlp_deploy.__main__:main"}
    entry = importlib.metadata.EntryPoint("s2mlp-deploy", scripts["s2mlp-deploy"], "console_scripts")
    assert callable(entry.load())
