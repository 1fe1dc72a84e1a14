"""Every command that is printed, as a next step or as the fix of an error, is run as it was printed.

It must do its work (0) or come to an answer (1): never be wrong input itself (2) or a bug (70).
"""

from __future__ import annotations

import html
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from plain_artifact import write_plain

torch = pytest.importorskip("torch")
from safetensors.torch import save_file  # noqa: E402

import s2mlp_deploy  # noqa: E402
from s2mlp_deploy.cli.main import app  # noqa: E402

NAMES = "|".join(command.callback.__name__ for command in app.registered_commands if command.callback)
COMMAND = re.compile(rf"s2mlp-deploy (?:(?:{NAMES})\b[^`\n]*|--help)")
NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first = nn.Conv2d(3, width, 1)
        self.last = nn.Linear(width, 5)

    def forward(self, image):
        x = self.first(image)
        x = torch.cat([x[:, :, :1], x[:, :, :-1]], dim=2)
        return self.last(x.mean((2, 3)))

def make(width=4):
    return Net(width), torch.randn(2, 3, 8, 8)
"""
HOW = {"preprocessing": {"size": [8, 8], "mean": [0.5] * 3, "std": [0.25] * 3}}


def commands_in(*texts):
    """The commands that texts show, each once, in order."""
    return list(dict.fromkeys(found.strip() for text in texts for found in COMMAND.findall(text)))


def shown_on(page: Path):
    """The commands of a report, in elements of code."""
    return commands_in(*map(html.unescape, re.findall(r"<code>(.*?)</code>", page.read_text(), re.S)))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with a network, its weights in a folder, a description, data, a plain artifact and an empty folder."""
    place = tmp_path_factory.mktemp("my place")
    for folder in ("nets", "weights", "empty"):
        (place / folder).mkdir()
    (place / "nets" / "net.py").write_text(NET)
    (place / "how.json").write_text(json.dumps(HOW))
    state = {"first.weight": torch.randn(6, 3, 1, 1), "first.bias": torch.zeros(6)}
    state |= {"last.weight": torch.randn(5, 6), "last.bias": torch.zeros(5)}
    # As a wrapper saves them.
    save_file({f"module.{name}": value for name, value in state.items()}, place / "weights" / "best one.safetensors")
    np.save(place / "data.npy", np.random.default_rng(0).standard_normal((16, 3, 8, 8), np.float32))
    write_plain(place / "plain")
    return place


@pytest.fixture
def here(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    return workplace


@pytest.fixture
def typed(cli):
    """Runs commands as they were printed."""

    def run(commands):
        assert commands
        for command in commands:
            assert not re.search(r"\b[A-Z]{3,}\b", command), f"a placeholder stands in {command}"
            result = cli(*shlex.split(command)[1:])
            assert result.code in (0, 1), f"{command}\n{result.err}"
        return commands

    return run


def test_what_export_prints_and_its_report_shows(cli, here, typed):
    given = ("--checkpoint", "weights/best one.safetensors", "--set", "width=6", "--preprocess", "how.json")
    result = cli("export", "nets/net.py:make", *given, "-o", "builds/my out", "--name", "tiny")
    assert result.code == 0, result.err
    assert "behind 'module.', which is left out" in result.err
    assert json.loads(Path("builds/my out/manifest.json").read_text())["name"] == "tiny"
    page = Path("builds/my out/report.html")
    assert str(here) not in page.read_text()
    shown, inspected = shown_on(page), cli("inspect", "builds/my out")
    # The page knows not where the checkpoint lies; the artifact finds it again.
    build = "s2mlp-deploy build 'builds/my out' --target sm89"
    assert shown[1] == "s2mlp-deploy bench 'builds/my out'"  # Which takes half a minute.
    assert typed([shown[0], shown[2]]) == ["s2mlp-deploy parity nets/net.py:make 'builds/my out'", build]
    assert commands_in(inspected.out) == shown[:1]
    printed = commands_in(result.out, result.err)
    assert printed == [f"{shown[0]} --checkpoint 'weights/best one.safetensors'", printed[1]]
    assert printed[-1].removesuffix(" --dry-run") == build
    typed(printed)
    assert "Parity holds" in cli("inspect", "builds/my out").out


def test_what_is_printed_for_a_graph_that_preprocesses(cli, here, typed):
    given = ("--preprocess", "how.json", "--with-preprocessing", "--seed", "3")
    result = cli("export", "nets/net.py:make", *given, "-o", "pixels")
    assert result.code == 0, result.err
    typed(commands_in(result.out, *shown_on(Path("pixels/report.html")))[:1])
    # The weights of another seed: the fix leaves the seed to the artifact.
    other = cli("parity", "nets/net.py:make", "pixels", "--seed", "4")
    assert other.code == 2
    assert typed(commands_in(other.err)) == ["s2mlp-deploy parity nets/net.py:make pixels"]


def test_what_is_printed_for_files_made_from_data_has_the_data(cli, here, typed):
    given = ("--precision", "fp16", "--calibration-data", "data.npy")
    result = cli("export", "nets/net.py:make", "-o", "small", *given)
    assert result.code == 0, result.err
    # As many of the data as the files were scored on: of thousands of images, all would take an hour.
    assert typed(commands_in(result.out)[:1]) == [
        "s2mlp-deploy parity nets/net.py:make small --data data.npy --samples 1000"
    ]


FIXES = [
    ("nonsense",),
    ("parity",),
    ("inspect", "plain", "--nonsense"),
    ("export", "plain", "-o", "new"),
    ("export", "s2mlpv2_nan", "-o", "new"),
    ("inspect", "nothing.onnx"),
    ("inspect", "nothing.engine"),
    ("predict", "empty", "x.png"),
    ("bench", "plain", "--engine", "tensorrt"),
]


@pytest.mark.parametrize("line", FIXES, ids=" ".join)
def test_the_fix_of_an_error(cli, here, typed, line):
    result = cli(*line)
    assert result.code == 2, result.err
    typed(commands_in(result.err.partition("fix:")[2]))


def test_an_engine_that_was_changed_is_built_again(cli, here, typed):
    pytest.importorskip("tensorrt_rtx")
    built = cli("build", "plain", "--target", "sm89")
    assert built.code == 0, built.err
    (engine,) = Path("plain").glob("*.engine")
    engine.write_bytes(engine.read_bytes() + b"x")
    result = cli("inspect", engine)
    assert result.code == 2
    (command,) = typed(commands_in(result.err))
    assert command.startswith("s2mlp-deploy build plain/model.fp32.onnx ")
    assert cli("inspect", engine).code == 0


def test_an_optimized_file_of_another_processor_is_made_again(cli, here, typed):
    assert cli("build", "plain", "--engine", "onnxruntime", "--optimize-for", "cpu").code == 0
    optimized = Path("plain/model.fp32.onnxruntime.cpu.onnx")
    sidecar = Path(f"{optimized}.json")
    described = json.loads(sidecar.read_text())
    described["traits"]["onnxruntime"] = "1.0.0"
    sidecar.write_text(json.dumps(described))
    result = cli("parity", "nets/net.py:make", optimized)
    assert result.code == 2
    (command,) = typed(commands_in(result.err))
    assert command == "s2mlp-deploy build plain/model.fp32.onnx --engine onnxruntime --optimize-for cpu"


def test_every_command_that_a_message_quotes_is_one(here, typed):
    """Also where the error is hard to make: quoted commands of the source have no placeholders, and run."""
    quoted = re.compile(r"(?<!`)`(s2mlp-deploy [^`{]*)`(?!`)")
    sources = Path(s2mlp_deploy.__file__).parent.rglob("*.py")
    found = {command for source in sources for command in quoted.findall(source.read_text())}
    assert {"s2mlp-deploy doctor", "s2mlp-deploy models"} <= found
    typed(sorted(found))
