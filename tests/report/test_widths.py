"""What is printed of results fits 60, 80 and 120 columns: no line too long, no word broken, no column lost."""

from __future__ import annotations

import importlib
import io
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import report_samples as samples
from fake_speed import VNNI, speed_report
from rich.console import Console

from s2mlp_deploy import api, report
from s2mlp_deploy.api import inspection_tables
from s2mlp_deploy.api.diffing_layers import diff_layers
from s2mlp_deploy.api.inspection_tables import print_artifact, print_file_inspection, print_source_inspection
from s2mlp_deploy.artifact import Hazard, TensorInfo
from s2mlp_deploy.bench.elsewhere import beside, read_elsewhere
from s2mlp_deploy.cli import engine_tables
from s2mlp_deploy.cli.engine_tables import (
    print_diagnosis,
    print_engine_inspection,
    print_health,
    print_optimized,
    print_preflight,
)
from s2mlp_deploy.engines.base import EngineStatus
from s2mlp_deploy.engines.optimized import OptimizedRecord, Traits
from s2mlp_deploy.engines.record import Mismatch
from s2mlp_deploy.engines.tensorrt.preflight import Finding, Preflight
from s2mlp_deploy.evidence.build import Contents
from s2mlp_deploy.evidence.difference import (
    Change,
    DifferenceReport,
    FileDifference,
    GraphFacts,
    ModuleDifference,
    NodeDifference,
    WeightDifference,
)
from s2mlp_deploy.evidence.layers import Bisection
from s2mlp_deploy.evidence.speed import SpeedCheck
from s2mlp_deploy.evidence.tune import EngineSettings
from s2mlp_deploy.gpu import Gpu
from s2mlp_deploy.report.accuracy import print_accuracy
from s2mlp_deploy.report.bench import print_bench
from s2mlp_deploy.report.difference import print_difference
from s2mlp_deploy.report.engine_difference import print_engine_difference
from s2mlp_deploy.report.engine_layers import print_layers as print_engine_layers
from s2mlp_deploy.report.engine_layers import print_times
from s2mlp_deploy.report.engines import print_build
from s2mlp_deploy.report.layers import print_layers
from s2mlp_deploy.report.profile import print_profile
from s2mlp_deploy.report.speed import print_speed
from s2mlp_deploy.report.tables import print_table
from s2mlp_deploy.report.terminal import print_manifest, print_next, print_parity
from s2mlp_deploy.report.tune import print_tune
from s2mlp_deploy.report.verdict import Verdict
from s2mlp_deploy.serving.hindrances import Hindrance
from s2mlp_deploy.serving.plan import RunPlan

FILES = Path(__file__).parents[1] / "engines" / "tensorrt" / "layer_files"
ELSEWHERE = (read_elsewhere(FILES / "times.json"), read_elsewhere(FILES / "profile-10.json"))
MODULE = "backbone.stages.0.blocks.11.token_mixing.split_attention.mlp1"
LONG = Path("/srv/models/detectors/2026-11") / "a-folder-with-a-name-that-is-rather-long" / "model.int8-trt.onnx"


def _difference() -> DifferenceReport:
    facts = GraphFacts(str(LONG), "0" * 64, 1000, "fp32", 20, 10, "tool 1", (), (), 10, 4, {"fp32": 900})
    figures = {"ms_before": 1.5, "ms_after": 0.5, "error_before": 1e-5, "error_after": 0.01, "worst": 0.25}
    modules = (
        ModuleDifference(MODULE, 2, 2, changed=1, added=1, retyped=3, rounded=4, bytes_after=12_345_678, **figures),
        ModuleDifference("head", 5, 3, removed=2, reshaped=1, weights=1),
    )
    changes = (Change("output logits", "float32 batchx10", "float16 batchx10"),)
    nodes = (NodeDifference(MODULE, "changed", "Elu", f"{MODULE}/Elu", (Change("alpha", "1", "2"),)),)
    weights = (WeightDifference(MODULE, "differs", f"{MODULE}.weight", "fp32 8", "int8 8", 8, 3, 0.5, 0.1, 2.0, 12.0),)
    file = FileDifference(facts, facts, interface=changes, modules=modules, nodes=nodes, weights=weights, same_nodes=9)
    return DifferenceReport("a", "b", (file,), only_before=("model.fp16.onnx",))


def _speed(console: Console) -> None:
    report = speed_report(("model.fp32.onnx", "model.int8.onnx"), {"int8": 1.6}, processor=VNNI)
    check = SpeedCheck((report,), unmeasured={"model.int8-trt.onnx": "there is no GPU on this machine"})
    print_speed(console, check, "out")


def _layers() -> Any:
    bad = samples.layer(MODULE, 0.5)
    report = samples.layers(samples.layer(f"{MODULE}.norm"), bad, samples.layer("logits", kind="output"))
    return replace(report, bisection=Bisection(MODULE, "net.py:12", ("stem/Conv.out",), (), ("head",)))


def _profile() -> Any:
    return samples.bench().results[0].profile


def _source() -> api.SourceInspection:
    hazard = Hazard("race", f"{LONG.with_suffix('.py')}:219", "x[:, 1:, :, :c] = x[:, :-1, :, :c]", 1, 72, {"1": 1.25})
    inputs = {"image": ("batch", 3, "height", "width")}
    return api.SourceInspection("net.py:make", inputs, ("logits",), 1234, samples.shifts(), (), (hazard,), ("a note",))


def _file(**changes: str) -> api.FileInspection:
    info = TensorInfo("x", "float32", ("batch", 3))
    return api.FileInspection(
        str(LONG), 5000, 18, "pytorch", (info,), (), 3, {"Add": 2, "Mul": 1}, {"float32": 4000}, {}, **changes
    )


def _preflight() -> Preflight:
    finding = Finding("x", "it has no kernel for that", (f"{MODULE}/Elu",) * 4, (), ("net.py:3",), "--opset 20")
    profiles = samples.build().profiles
    return Preflight(LONG.name, "tensorrt", "11.4", (), None, 20, 612, profiles, None, (finding,))


def _engine() -> api.EngineInspection:
    contents = Contents("engine", 3, {"GEMM": 2}, {}, {"Thirty-two wide channel vectorized row major": 3}, 1)
    mismatch = Mismatch("targets", "sm86", "sm90")
    return api.EngineInspection("model.engine", replace(samples.build(), engine_contents=contents), (mismatch,))


def _health() -> api.Health:
    status = EngineStatus("torch", False, missing="torch", install_hint="pip install 's2mlp-deploy[export,cpu]'")
    gpu = Gpu("NVIDIA H100 80GB HBM3", "sm90", "580.1", 81_559, "GPU-01234567-89ab-cdef-0123-456789abcdef")
    return api.Health((status,), (gpu,), "13.0")


def _diagnosis() -> api.Diagnosis:
    slower = {"model.int8-trt.onnx": "it is placed for TensorRT, which is not installed on this machine"}
    why = "it is the fastest of those that were measured"
    plan = RunPlan(Path("out"), "model.fp32.onnx", "fp32", "onnxruntime", EngineSettings(2), "bench", why, "holds")
    hindrance = Hindrance("spinning", "idle threads burn time that is counted or that others need", "--no-spin")
    return api.Diagnosis("digits", replace(plan, notes=(why,), objections=slower), hindrances=(hindrance,))


def _optimized() -> OptimizedRecord:
    traits = Traits("x86_64", ("avx2", "avx512_vnni", "avx512f", "avx512vl", "f16c", "fma", "sse4_2"), "1.31.1")
    return OptimizedRecord("model.int8.onnx", "a" * 64, "model.int8.optimized.onnx", "b" * 64, 1234, traits, 1.5)


def _artifact() -> api.ArtifactInspection:
    verdict = Verdict("bad", "Parity FAILS", ("One of two files was compared.",), ("x is over y",), ("s2mlp-deploy x",))
    return api.ArtifactInspection(samples.manifest(), {}, verdict)


def _engines_beside(console: Console) -> None:
    print_engine_difference(console, diff_layers(FILES / "objects-10.json", FILES / "objects-11.json"))


PRINTED: dict[str, Callable[[Console], None]] = {
    "parity": lambda console: print_parity(console, samples.report()),
    "parity that fails": lambda console: print_parity(console, samples.report(max_abs=0.5)),
    "parity on noise": lambda console: print_parity(console, samples.on_noise()),
    "layers": lambda console: print_layers(console, _layers()),
    "accuracy": lambda console: print_accuracy(console, samples.accuracy()),
    "bench": lambda console: print_bench(console, samples.bench()),
    "bench beside trtexec": lambda console: print_bench(console, beside(samples.bench(), ELSEWHERE)),
    "profile": lambda console: print_profile(console, "model.fp32.onnx", _profile()),
    "speed": _speed,
    "tune": lambda console: print_tune(console, samples.tune()),
    "build": lambda console: print_build(console, samples.build()),
    "manifest": lambda console: print_manifest(console, samples.manifest(), Path("out")),
    "next": lambda console: print_next(console, samples.manifest(), Path("out")),
    "difference": lambda console: print_difference(console, _difference()),
    "layers of an engine": lambda console: print_engine_layers(console, api.inspect_json(FILES / "objects-10.json")),
    "names of layers": lambda console: print_engine_layers(console, api.inspect_json(FILES / "names-11.json")),
    "times": lambda console: print_times(console, api.inspect_json(FILES / "times.json")),
    "two engines": _engines_beside,
    "engine": lambda console: print_engine_inspection(console, _engine(), LONG),
    "dry run": lambda console: print_preflight(console, _preflight()),
    "source": lambda console: print_source_inspection(console, _source()),
    "file": lambda console: print_file_inspection(console, _file(), Path("out/model.fp32.onnx")),
    "file not searched": lambda console: print_file_inspection(console, _file(not_searched=f"{LONG} is none"), LONG),
    "a long title": lambda console: print_table(console, f"Layers of {LONG}", ("layer", "ms"), [("head", "1.0")]),
    "artifact": lambda console: print_artifact(console, _artifact(), Path("out")),
    "diagnosis": lambda console: print_diagnosis(console, _diagnosis(), "out"),
    "optimized": lambda console: print_optimized(console, _optimized()),
    "health": lambda console: print_health(console, _health(), "Linux x86_64, Python 3.11"),
}


def text_of(print_it: Callable[[Console], None], width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_it(console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def is_too_long(line: str, width: int) -> bool:
    """A command is one line, to be copied; a word that is longer than the terminal is not broken."""
    return len(line) > width and not line.lstrip().startswith("s2mlp-deploy ") and len(line.split()) > 1


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", PRINTED)
def test_it_fits_breaks_no_word_and_loses_none(name: str, width: int) -> None:
    whole, text = text_of(PRINTED[name], 10_000), text_of(PRINTED[name], width)
    assert [line for line in text.splitlines() if is_too_long(line, width)] == []
    rules = str.maketrans("", "", "\u2500")
    words = {word.rstrip(":") for word in text.translate(rules).split()}
    assert {word.rstrip(":") for word in whole.translate(rules).split()} - words == set()
    assert "\u2026" not in text
    assert "\x1b" not in text


def test_everything_that_prints_a_result_is_above() -> None:
    rooms = [
        importlib.import_module(f"{report.__name__}.{item.name}") for item in pkgutil.iter_modules(report.__path__)
    ]
    parts = {"print_record", "print_winners", "print_profiles", "print_contents"}
    defined = {
        (name, getattr(room, name))
        for room in (*rooms, engine_tables, inspection_tables)
        for name in vars(room)
        if name.startswith("print_") and getattr(room, name).__module__ == room.__name__
        if room.__name__ != "s2mlp_deploy.report.tables"
    }
    missing = {name for name, function in defined if function not in globals().values()}
    assert missing == parts
