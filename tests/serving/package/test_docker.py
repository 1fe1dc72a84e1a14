"""Build contexts of Docker: linted, pinned, and with what the service needs to start."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from image_artifact import write_image_artifact

from s2mlp_deploy import __version__
from s2mlp_deploy.artifact import read_manifest
from s2mlp_deploy.errors import ArtifactError, InputError, OutputError, TargetError
from s2mlp_deploy.serving.package.docker import write_docker
from s2mlp_deploy.serving.package.result import PackageOptions
from s2mlp_deploy.serving.plan import plan_run

pytest.importorskip("fastapi")
pytest.importorskip("onnxruntime")


def write(source: Path, output: Path, engine: str = "onnxruntime", **options):
    plan = plan_run(source, engine="onnxruntime")
    return write_docker(output, read_manifest(source), replace(plan, engine=engine), PackageOptions(**options))


@pytest.fixture
def source(tmp_path):
    write_image_artifact(tmp_path / "a")
    return tmp_path / "a"


def test_the_context_holds_what_is_copied(source, tmp_path):
    package = write(source, tmp_path / "c", max_batch=4, instances=2)
    written = {str(path.relative_to(tmp_path / "c")) for path in (tmp_path / "c").rglob("*") if path.is_file()}
    assert written == set(package.files)
    lines = (tmp_path / "c" / "Dockerfile").read_text().splitlines()
    assert f"FROM python:{sys.version.split()[0]}-slim-bookworm" in lines
    assert "USER 10001" in lines
    command = next(line for line in lines if line.startswith("CMD "))
    assert '"/models/colours", "--host", "0.0.0.0"' in command
    assert '"--precision", "fp32", "--engine", "onnxruntime", "--max-batch", "4"' in command
    assert '"--instances", "2"' in command
    # What is copied runs as the same: its evidence came along.
    copied = plan_run(tmp_path / "c" / "models" / "colours")
    assert (copied.file, copied.parity) == ("model.fp32.onnx", "holds")


def test_the_tag_is_one_that_docker_takes(tmp_path):
    write_image_artifact(tmp_path / "a", name="My best.v2 ")
    build, run = write(tmp_path / "a", tmp_path / "c").commands
    assert "--tag my-best.v2 " in build
    assert run.endswith(" my-best.v2")


def test_every_requirement_is_pinned_to_what_runs_here(source, tmp_path):
    write(source, tmp_path / "c")
    lines = (tmp_path / "c" / "requirements.txt").read_text().splitlines()
    assert lines[0] == f"s2mlp-deploy[cpu,serve]=={__version__}"
    pins = dict(line.split("==") for line in lines[1:])
    for name in ("onnxruntime", "fastapi", "uvicorn", "starlette", "numpy", "pydantic-core"):
        assert pins[name] == version(name)
    # What other extras bring is no part of it.
    assert not {"torch", "onnx", "openvino", "pytest", "ray", "tensorrt-rtx"} & set(pins)


def test_a_wheel_comes_along(source, tmp_path):
    wheel = tmp_path / f"s2mlp_deploy-{__version__}-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    package = write(source, tmp_path / "c", wheel=wheel)
    assert wheel.name in package.files
    assert (tmp_path / "c" / "requirements.txt").read_text().splitlines()[0].endswith(f"@ file:///tmp/{wheel.name}")
    assert f"COPY requirements.txt {wheel.name} /tmp/" in (tmp_path / "c" / "Dockerfile").read_text()
    other = tmp_path / "other-1.0-py3-none-any.whl"
    other.write_bytes(b"wheel")
    with pytest.raises(InputError, match="no wheel of s2mlp-deploy"):
        write(source, tmp_path / "d", wheel=other)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_linter_has_nothing_to_say(source, tmp_path, engine):
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if linter is None:
        pytest.skip("hadolint is not installed")
    if engine == "openvino":
        pytest.importorskip("openvino")
    write(source, tmp_path / "c", engine)
    done = subprocess.run([linter, tmp_path / "c" / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_refused_leaves_nothing(source, tmp_path):
    with pytest.raises(TargetError, match="runs on processors"):
        write(source, tmp_path / "c", "onnxruntime:cuda")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "own.txt").write_text("mine")
    with pytest.raises(OutputError, match="something in the place"):
        write(source, tmp_path / "full")
    (source / "model.fp32.onnx").write_bytes(b"changed")
    with pytest.raises(ArtifactError, match="not the one its manifest describes"):
        write_docker(tmp_path / "c", read_manifest(source), plan_run(source, allow_unproven=True), PackageOptions())
    assert {path.name for path in tmp_path.iterdir()} == {"a", "full"}
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["own.txt"]
