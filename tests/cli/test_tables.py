"""What the command line prints of results that are no evidence: machines, engines, dry runs, sources and files."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from report_samples import build
from rich.console import Console

from s2mlp_deploy import api
from s2mlp_deploy.api.inspection_tables import print_file_inspection, print_source_inspection
from s2mlp_deploy.artifact import Hazard, ShiftRecord, TensorInfo
from s2mlp_deploy.cli.engine_tables import print_engine_inspection, print_health, print_preflight
from s2mlp_deploy.engines.base import EngineStatus
from s2mlp_deploy.engines.record import Mismatch
from s2mlp_deploy.engines.tensorrt.preflight import Finding, Preflight
from s2mlp_deploy.evidence.build import Contents
from s2mlp_deploy.gpu import Gpu
from s2mlp_deploy.shift.origin import Origin
from s2mlp_deploy.shift.spec import ShiftSpec

SPEC = ShiftSpec.equal_groups(8, [(1, 0), (0, -2)], axes=(2, 3), channel_axis=1)
SHIFT = ShiftRecord(SPEC, Origin("body.shift", "net.py:7", "x.roll(1)", "roll", 3), "gather", 2)


def lines(print_it, *arguments) -> list[list[str]]:
    stream = io.StringIO()
    print_it(Console(file=stream, width=160), *arguments)
    return [line.split() for line in stream.getvalue().splitlines()]


def test_a_machine_without_a_gpu_and_one_with() -> None:
    status = EngineStatus("torch", False, missing="torch", install_hint="pip install torch")
    printed = lines(print_health, api.Health((status,), (), None), "Linux x86_64, Python 3.11")
    assert ["no", "NVIDIA", "GPU"] in printed
    assert ["torch", "no", "torch;", "pip", "install", "torch"] in printed
    gpu, spark = Gpu("H100", "sm90", "580.1", 81_559, "GPU-12"), Gpu("GB10", "sm121", "580.1", None, "GPU-34")
    printed = lines(print_health, api.Health((), (gpu, spark), "13.0"), "Linux x86_64, Python 3.11")
    assert ["NVIDIA", "driver", "580.1,", "CUDA", "13.0"] in printed
    assert ["H100", "sm90", "81,559", "MiB", "GPU-12"] in printed
    assert ["GB10", "sm121", "shared", "with", "the", "machine", "GPU-34"] in printed


def test_an_engine_shows_its_layers_and_what_is_different_here() -> None:
    contents = Contents("engine", 3, {"GEMM": 2, "REFORMAT": 1}, {}, {"Row major FP16": 3}, 1)
    record = replace(build(), engine_contents=contents)
    found = api.EngineInspection("model.engine", record, (Mismatch("targets", "sm86", "sm90"),))
    printed = lines(print_engine_inspection, found, Path("out/model.engine"))
    assert printed[0] == ["out/model.engine"]
    assert ["3", "layers", "in", "the", "built", "engine"] in printed
    assert ["Formats,", "1", "reformatting", "layer"] in printed
    assert ["DIFFERS", "targets:", "built", "for", "sm86,", "here", "is", "sm90"] in printed


@pytest.mark.parametrize("fails", [True, False])
def test_a_dry_run_names_what_would_fail_and_its_fix(fails: bool) -> None:
    nodes = tuple(f"node{index}" for index in range(6))
    finding = Finding("fp32-gemm", "it has no kernel for that", nodes, (), ("net.py:3",), "--opset 20")
    report = Preflight(
        "model.onnx", "tensorrt", "11.4", (), None, 20, 612, build().profiles, None, (finding,) if fails else ()
    )
    printed = lines(print_preflight, report)
    assert printed[0] == f"model.onnx would{' not' if fails else ''} build".split()
    assert ["graph", "612", "nodes", "of", "opset", "20"] in printed
    assert ["image", "1x1x28x28", "8x1x28x28", "32x1x28x28"] in printed
    assert (["FAILS", "it", "has", "no", "kernel", "for", "that"] in printed) == fails
    assert (["nodes", "node0,", "node1,", "node2,", "node3", "and", "2", "more"] in printed) == fails
    assert (["written", "in", "net.py:3"] in printed) == fails


def test_a_source_shows_its_shifts_and_hazards() -> None:
    hazard = Hazard("race", "net.py:9", "x[1:] = x[:-1]", 1, 72, {"1": 1.25, "2": 1.5})
    found = api.SourceInspection(
        "net.py:make", {"image": ("batch", 3, 8, 8)}, ("logits",), 1234, (SHIFT,), (), (hazard,), ("a note",)
    )
    printed = lines(print_source_inspection, found)
    for line in (
        "input image: batchx3x8x8",
        "parameters 1,234",
        "Note: a note",
        "Shift 1 in body.shift (net.py:7)",
        "moves down, left 2",
        "groups 4 by (1, 0), 4 by (0, -2)",
        "written as roll, equal at 3 input sizes",
        "exported as gather",
        "Eager PyTorch differs from the functional meaning by 1.25 with 1 thread, 1.5 with 2 threads on the example "
        "inputs.",
    ):
        assert line.split() in printed
    empty = replace(found, shifts=(), hazards=(), notes=())
    assert ["No", "shift", "was", "found."] in lines(print_source_inspection, empty)
    shown = empty._repr_mimebundle_()
    assert shown["text/plain"].startswith("net.py:make\n"), "a notebook shows what the terminal does"
    assert "No shift was found." in shown["text/html"]


def test_what_is_left_for_one_reason_at_one_line_is_shown_once() -> None:
    """A helper that every block of a network calls."""
    pytest.importorskip("torch")
    from s2mlp_deploy.export.rewrite import NearMissRecord

    called = NearMissRecord(
        Origin(line="net.py:7", idiom="concatenation"), "its elements come from more than one tensor"
    )
    other = replace(called, origin=Origin(module="head", idiom="concatenation"))
    misses = (called, other, called, called)
    found = api.SourceInspection("net.py:make", {"image": (1, 3)}, ("logits",), 1, (), misses, (), ())
    printed = [" ".join(line) for line in lines(print_source_inspection, found)]
    assert "4 movements of data left as written, because no grouped shift" in printed
    assert "net.py:7 (3 times) concatenation its elements come from more than one tensor" in printed
    assert "head concatenation its elements come from more than one tensor" in printed


def test_a_file_of_another_tool_says_nothing_of_its_shifts() -> None:
    found = api.FileInspection(
        "x.onnx",
        5000,
        18,
        "pytorch",
        (TensorInfo("x", "float32", ("batch", 3)),),
        (),
        3,
        {"Add": 2, "Mul": 1},
        {"float32": 4000},
        {},
    )
    printed = lines(print_file_inspection, found, Path("x.onnx"))
    assert ["input", "x:", "float32", "batchx3"] in printed
    assert ["weights", "4.0", "kB", "float32"] in printed
    assert ["3", "nodes"] in printed
    assert [
        "Another",
        "tool",
        "wrote",
        "this",
        "file:",
        "it",
        "does",
        "not",
        "say",
        "where",
        "its",
        "shifts",
        "are.",
    ] in printed
    refused = replace(found, not_searched="the graph has 60,000 nodes")
    printed = lines(print_file_inspection, refused, Path("x.onnx"))
    assert ["Shifts", "were", "not", "looked", "for:", "the", "graph", "has", "60,000", "nodes."] in printed


def test_equal_shifts_are_told_once() -> None:
    others = [replace(SHIFT, origin=replace(SHIFT.origin, module=f"b.{i}", line=f"net.py:{i}")) for i in range(9)]
    found = api.SourceInspection("net.py:f", {"x": ("batch", 8)}, ("y",), 1, (SHIFT, *others), (), (), ())
    printed = [" ".join(line) for line in lines(print_source_inspection, found)]
    headings = [line for line in printed if line.startswith("Shift ")]
    assert headings == [
        "Shift 1, 10 times, in body.shift (net.py:7), b.0 (net.py:0), b.1 (net.py:1), b.2 (net.py:2) and 6 more"
    ]


@pytest.mark.parametrize("command", ["models", "doctor"])
def test_what_commands_print_fits_sixty_columns_and_a_pipe_has_whole_lines(cli, monkeypatch, command: str) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    whole = cli(command).out
    monkeypatch.setenv("COLUMNS", "60")
    narrow = cli(command).out
    assert max(map(len, whole.splitlines())) > 80
    assert max(map(len, narrow.splitlines())) <= 60
    rules = str.maketrans("", "", "\u2500:")
    assert set(whole.translate(rules).split()) <= set(narrow.translate(rules).split())
