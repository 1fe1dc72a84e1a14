"""What needs no torch answers without it, quickly, and prints what a pipe can use."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import nano_artifact
import pytest

HEAVY = ("torch", "onnx", "onnx_ir", "onnxscript", "safetensors", "jinja2", "tensorrt_rtx", "mlxtend")
COMMANDS = (
    "models",
    "doctor",
    "demo",
    "export",
    "quantize",
    "build",
    "inspect",
    "parity",
    "bench",
    "tune",
    "report",
    "predict",
)


MAIN = """
import contextlib, io, json, sys
sys.modules.update(dict.fromkeys({blocked!r}))
from s2mlp_deploy.cli.main import main
told = []
for arguments in {commands!r}:
    sys.argv, out, err, code = ["s2mlp-deploy", *arguments], io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
    told.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(told))
"""


def told_by_one_process(commands, blocked, cwd):
    """Status, stdout and stderr of each command, run in one process that cannot import the blocked modules."""
    code = MAIN.format(blocked=blocked, commands=commands)
    env = os.environ | {"PYTHONPATH": nano_artifact.PACKAGE_ROOT}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=cwd, capture_output=True, check=True)
    return dict(zip(commands, json.loads(done.stdout), strict=True))


@pytest.fixture(scope="module")
def helps(tmp_path_factory):
    # Without these packages it takes well under a second; a limit here would fail on a busy machine.
    commands = [("--help",), *((command, "--help") for command in COMMANDS)]
    return told_by_one_process(commands, (*HEAVY, "onnxruntime"), tmp_path_factory.mktemp("helps"))


@pytest.mark.parametrize("arguments", [(), *[(command,) for command in COMMANDS]], ids=str)
def test_help_needs_nothing_heavy(helps, arguments):
    code, out, err = helps[*arguments, "--help"]
    assert code == 0
    assert "Usage: s2mlp-deploy" in out
    assert err == ""


def test_help_lists_every_command(helps):
    _, text, _ = helps["--help",]
    assert all(f" {command} " in text for command in COMMANDS)
    assert "Exit status: 0 done, 1 a check failed, 2 wrong input, 70 internal error." in text


def test_doctor_needs_no_torch(process):
    result = process("doctor", "--json", blocked=HEAVY)
    assert result.code == 0
    engines = {item["name"]: item for item in json.loads(result.out)["engines"]}
    assert list(engines) == ["torch", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]
    for item in engines.values():
        # What is missing is named; what is not installed comes with the command that installs it.
        assert item["available"] != bool(item["missing"])
        assert bool(item["version"]) != ("pip install" in item["install_hint"])


def test_models_needs_no_torch(process):
    result = process("models", "--json", blocked=(*HEAVY, "onnxruntime"))
    assert result.code == 0
    names = [item["name"] for item in json.loads(result.out)]
    assert {"s2mlpv2_nano", "s2mlpv2_small_7", "s2mlp_wide"} <= set(names)


def test_version_is_printed(cli):
    from s2mlp_deploy import __version__

    for option in ("--version", "-V"):
        assert cli(option).out.split() == ["s2mlp-deploy", __version__]


@pytest.mark.parametrize("command", ["export", "parity"])
def test_without_torch_the_extra_is_named(process, tmp_path, command):
    last = ["-o", tmp_path / "out"] if command == "export" else [nano_artifact.weights()]
    result = process(command, "s2mlpv2_nano", *last, blocked=("torch",))
    assert result.code == 2
    assert "Traceback" not in result.err
    if command == "export":
        assert "s2mlp-deploy[export]" in result.err
    assert list(tmp_path.iterdir()) == []


GRAPH, ZOO = "a/model.fp32.onnx", "s2mlpv2_nano"
# What is installed with the extra `cpu` alone: what works, and which extra the others name.
WITH_CPU_ALONE = [
    (("models",), 0, ZOO),
    (("doctor",), 0, "onnxruntime"),
    (("predict", "a", "a.png"), 0, "red"),
    (("inspect", "a"), 0, "colours"),
    (("build", GRAPH, "--engine", "onnxruntime", "--optimize-for", "cpu"), 0, "Optimized"),
    (("inspect", GRAPH), 2, "onnx"),
    (("report", "a"), 2, "onnx"),
    (("quantize", "a", "--data", "images"), 2, "onnx"),
    (("build", GRAPH, "--target", "sm89", "--dry-run"), 2, "onnx"),
    (("build", GRAPH, "--engine", "tensorrt", "--dry-run"), 2, "onnx"),
    (("build", GRAPH, "--target", "sm89"), 2, "rtx"),
    (("inspect", ZOO), 2, "export"),
    (("export", ZOO, "-o", "out"), 2, "export"),
    (("parity", ZOO, GRAPH), 2, "export"),
    (("demo", "--images", "images"), 2, "demo"),
    (("demo",), 2, "demo"),
]


@pytest.fixture(scope="module")
def with_cpu_alone(tmp_path_factory):
    """Each command in one process that cannot import what the extra `cpu` does not bring."""
    from image_artifact import picture, write_image_artifact
    from PIL import Image

    place = tmp_path_factory.mktemp("cpu")
    write_image_artifact(place / "a")
    (place / "images").mkdir()
    for name in ("a.png", *(f"images/{index}.png" for index in range(8))):
        Image.fromarray(picture("red")).save(place / name)
    blocked = (*HEAVY, "tensorrt", "cuda", "datasets")
    return told_by_one_process([arguments for arguments, _, _ in WITH_CPU_ALONE], blocked, place)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    WITH_CPU_ALONE,
    ids=lambda part: " ".join(part) if isinstance(part, tuple) else str(part),
)
def test_with_the_extra_cpu_alone_a_command_works_or_names_its_extra(with_cpu_alone, arguments, code, says):
    ended, out, err = with_cpu_alone[arguments]
    assert ended == code, err
    assert says in out if code == 0 else f"pip install 's2mlp-deploy[{says}]'" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("command", ["models", "doctor"])
def test_json_is_one_document_and_the_table_says_the_same(cli, command):
    as_json, table = cli(command, "--json"), cli(command)
    json.loads(as_json.out)
    assert as_json.code == table.code == 0
    assert as_json.err == table.err == ""
    name = "s2mlpv2_nano" if command == "models" else "onnxruntime"
    assert name in as_json.out
    assert name in table.out.replace("\n", "")


def test_nothing_in_a_pipe_is_made_for_a_terminal(process):
    for arguments in (("models",), ("doctor",), ("predict", "nope", "x.png")):
        result = process(*arguments)
        assert "\x1b" not in result.out + result.err
        assert "\r" not in result.out + result.err


def test_no_command_is_help_and_an_unknown_one_is_an_error(cli):
    assert cli("nonsense").code == 2
    assert "No such command" in cli("nonsense").text


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_is_an_error(cli, command):
    result = cli(command, "--nonsense")
    assert result.code == 2
    assert result.out == ""


def test_an_interruption_ends_with_130_and_says_so(cli, monkeypatch):
    from s2mlp_deploy import api

    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "models", interrupt)
    result = cli("models")
    assert result.code == 130
    assert "interrupted" in result.err


def test_an_operating_system_error_nobody_expected_is_no_traceback(cli, monkeypatch):
    from s2mlp_deploy import api

    def fail():
        raise PermissionError(13, "Permission denied", "/some/[bold]place")

    monkeypatch.setattr(api, "models", fail)
    result = cli("models")
    assert result.code == 2
    assert "Permission denied" in result.text
    assert "/some/[bold]place" in result.text
    assert "fix:" in result.text


@pytest.mark.parametrize("error", [ValueError("zip() argument 2 is shorter"), AssertionError(), RecursionError()])
def test_a_bug_of_ours_is_70_with_a_traceback_and_never_a_failed_check(cli, monkeypatch, error):
    from s2mlp_deploy import api

    def fail():
        raise error

    monkeypatch.setattr(api, "models", fail)
    result = cli("models")
    assert result.code == 70
    assert result.out == ""
    assert "Traceback (most recent call last)" in result.err
    assert type(error).__name__ in result.err
    assert "internal error" in result.text
    assert "please report" in result.text


def test_predict_needs_no_torch(process, tmp_path):
    pytest.importorskip("torch")
    from PIL import Image

    artifact = nano_artifact.read_only()
    image = tmp_path / "a 1 ü.png"
    Image.new("L", (28, 28)).save(image)
    result = process("predict", artifact, image, "--top", 3, "--json", "--allow-unproven", blocked=HEAVY)
    assert result.code == 0, result.err
    (item,) = json.loads(result.out)
    assert item["image"] == str(image)
    assert len(item["classes"]) == len(item["probabilities"]) == 3
    relative = process(
        "predict", os.path.relpath(artifact, tmp_path), image.name, "--allow-unproven", cwd=tmp_path, blocked=HEAVY
    )
    assert relative.code == 0
    assert relative.out.startswith(image.name)
