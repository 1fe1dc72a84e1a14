"""``package``: what it prints, and what it refuses."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from image_artifact import write_image_artifact

pytest.importorskip("onnxruntime")


def test_a_repository_and_what_to_do_with_it(cli, tmp_path):
    write_image_artifact(tmp_path / "a")
    result = cli("package", tmp_path / "a", "--format", "triton", "--output", tmp_path / "r")
    assert result.code == 0
    assert "model.fp32.onnx on onnxruntime" in result.out
    assert f"tritonserver --model-repository={tmp_path / 'r'}" in result.out
    document = json.loads(
        cli("package", tmp_path / "a", "--format", "kserve", "-o", tmp_path / "k", "--image", "i", "--json").out
    )
    assert (document["format"], document["model"]) == ("kserve", "colours")


@pytest.mark.parametrize(
    ("options", "command"),
    [
        (("triton",), ["tritonserver", "--model-repository=my out/x"]),
        (("docker",), ["docker", "build", "--tag", "colours", "my out/x"]),
        (("kserve", "--image", "i"), ["kubectl", "apply", "-f", "my out/x/inferenceservice.yaml"]),
    ],
    ids=("triton", "docker", "kserve"),
)
def test_the_next_command_names_the_output_as_its_user_did_and_can_be_typed(
    cli, tmp_path, monkeypatch, options, command
):
    monkeypatch.chdir(tmp_path)
    write_image_artifact(Path("a"))
    result = cli("package", "a", "--output", "my out/x", "--format", *options)
    assert result.code == 0, result.text
    assert command in [shlex.split(line) for line in result.out.partition("Next:")[2].splitlines()]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--format", "kserve", "--image", "i", "--version", "2"), "--version: --format kserve does not use it"),
        (("--format", "triton", "--wheel", "x.whl", "--image", "i"), "--image and --wheel"),
        (("--format", "zip"), "choose triton, docker or kserve"),
        (("--format", "triton", "--engine", "tensorrt"), "no engine of tensorrt was built"),
        (("--format", "triton", "--version", "0"), "version"),
        (("--format", "triton", "--version", str(10**30)), "from 1 to 2147483647"),
        (("--format", "docker", "--output", "."), "name something new in it"),
        (("--format", "kserve", "--image", "i", "--output", "r/.."), "name something new in it"),
    ],
)
def test_what_is_refused(cli, tmp_path, monkeypatch, arguments, says):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_image_artifact(tmp_path / "a")
    result = cli("package", tmp_path / "a", "--output", tmp_path / "r", *arguments)
    assert result.code == 2
    assert says in result.text
    assert not (tmp_path / "r").exists()
    assert list((tmp_path / "here").iterdir()) == []


def test_a_file_that_is_not_proven_is_not_packaged(cli, tmp_path):
    write_image_artifact(tmp_path / "a", proven=False)
    arguments = ("package", tmp_path / "a", "--format", "triton", "--output", tmp_path / "r")
    result = cli(*arguments)
    assert result.code == 2
    assert "--allow-unproven" in result.text
    assert cli(*arguments, "--allow-unproven").code == 0


@pytest.mark.parametrize("form", ["triton", "docker", "kserve"])
@pytest.mark.parametrize("name", ["../outside", "a/b", "..", "x\nRUN id"])
def test_a_name_that_leads_elsewhere_is_refused(cli, tmp_path, form, name):
    write_image_artifact(tmp_path / "a", name=name)
    extra = ("--image", "i") if form == "kserve" else ()
    result = cli("package", tmp_path / "a", "--format", form, "-o", tmp_path / "r", *extra, "--allow-unproven")
    assert result.code == 2
    assert "no name to serve under" in result.text
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
