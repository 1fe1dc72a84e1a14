"""A realistic artifact with evidence, and a parser that reads a page the way a browser does."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from s2mlp_deploy.artifact import (
    CalibrationRecord,
    FileRecord,
    Manifest,
    PrecisionException,
    ShiftRecord,
    SourceInfo,
    TensorInfo,
)
from s2mlp_deploy.evidence.accuracy import AccuracyReport, AccuracyRow, Guess, WorstImage
from s2mlp_deploy.evidence.bench import BenchReport, BenchResult, Candidate, Latency, Launch, Ratio
from s2mlp_deploy.evidence.build import BuildRecord, InputProfile
from s2mlp_deploy.evidence.calibration import ActivationRange, CalibrationReport
from s2mlp_deploy.evidence.engine_layers import EngineLayer, EngineLayers, LayerFinding, LayerTensor
from s2mlp_deploy.evidence.layers import Errors, LayerParity, LayersReport, Unmatched
from s2mlp_deploy.evidence.machine import Environment, Machine
from s2mlp_deploy.evidence.modules import ModuleRecord, ModulesReport
from s2mlp_deploy.evidence.parity import OutputParity, ParityReport, Weights
from s2mlp_deploy.evidence.profile import NodeTime, Profile
from s2mlp_deploy.evidence.store import encode
from s2mlp_deploy.evidence.tune import EngineSettings, Trial, TuneReport
from s2mlp_deploy.files import to_json, write_file
from s2mlp_deploy.metrics import RankMetrics, TensorMetrics
from s2mlp_deploy.parity.tolerances import TOLERANCES, apply_tolerances
from s2mlp_deploy.precision.budget import keep_budget
from s2mlp_deploy.processor import Processor
from s2mlp_deploy.report.html import write_report
from s2mlp_deploy.shift.origin import Origin
from s2mlp_deploy.shift.spec import ShiftSpec

DOWN, UP, RIGHT, LEFT, STAY = (1, 0), (-1, 0), (0, 1), (0, -1), (0, 0)
FIRST = ShiftSpec.equal_groups(96, [RIGHT, LEFT, DOWN, UP], axes=(1, 2), channel_axis=3)
SECOND = ShiftSpec.equal_groups(96, [DOWN, UP, RIGHT, LEFT], axes=(1, 2), channel_axis=3)
ONNX = b"not really a graph"
SHA = hashlib.sha256(ONNX).hexdigest()
FILE = "model.fp32.onnx"
VOID = {"meta", "link", "br", "hr", "img", "input", "wbr"}


class Page(HTMLParser):
    """Elements with attributes, the text of each, and every mistake in the nesting."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[tuple[str, list[str]]] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.mistakes: list[str] = []
        self.feed(text)
        self.close()
        self.mistakes += [f"<{tag}> is never closed" for tag, _ in self.stack]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append((tag, []))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.stack or self.stack[-1][0] != tag:
            self.mistakes.append(f"</{tag}> at line {self.getpos()[0]} closes {self.stack[-1:]}")
            return
        _, parts = self.stack.pop()
        self.texts.append((tag, " ".join("".join(parts).split())))

    def handle_data(self, data: str) -> None:
        for _, parts in self.stack:
            parts.append(data)

    def of(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]

    def with_class(self, name: str) -> list[tuple[str, dict[str, str | None]]]:
        return [(tag, attrs) for tag, attrs in self.elements if name in (attrs.get("class") or "").split()]

    @property
    def body(self) -> str:
        return self.of("main")[0]

    @property
    def drawings(self) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.elements if tag == "svg" and attrs.get("role") == "img"]


MACHINE = Machine(
    Processor("x86_64", "Some Processor 9000", ("avx2", "avx512_vnni")),
    physical_cores=8,
    logical_cores=16,
    allowed_cores=16,
    cpu_quota=2.0,
    memory=32 * 10**9,
    memory_limit=4 * 10**9,
    system="Linux 6.1.0, Debian GNU/Linux 12 (bookworm)",
    python="3.11.7",
)
ENVIRONMENT = Environment("2026-11-27T21:55:07Z", MACHINE, {"s2mlp_deploy": "0.1.0", "torch": "2.13.0"}, (0.5, 0.25, 0))


def shifts(form: str = "pad-slice") -> tuple[ShiftRecord, ...]:
    return tuple(
        ShiftRecord(spec, Origin(f"stages.0.{index}.{name}", "net.py:7", idiom="slice assignment"), form, 8)
        for index in range(18)
        for name, spec in (("shift1", FIRST), ("shift2", SECOND))
    )


def manifest(**changes: Any) -> Manifest:
    whole = Manifest(
        name="digits",
        source=SourceInfo("s2mlpv2_nano", {"classes": 10, "widths": [96, 192]}, "digits.safetensors", "c0ffee" * 10),
        preprocessing={"size": [28, 28], "mean": [0.1307], "std": [0.3081], "scale": 1 / 255},
        classes=("zero", "one"),
        inputs=(TensorInfo("image", "float32", ("batch", 1, 28, 28)),),
        outputs=(TensorInfo("logits", "float32", ("batch", 10)),),
        opset=20,
        shifts=shifts(),
        tools={"torch": "2.13.0"},
        files=(FileRecord(FILE, "fp32", SHA, len(ONNX), 612),),
    )
    return replace(whole, **changes)


def report(**metrics: Any) -> ParityReport:
    given: dict[str, Any] = {
        "max_abs": 7.63e-6,
        "peak": 18.4,
        "max_rel": 4.15e-7,
        "cosine": 0.999999999,
        "psnr": 139.24,
        "elements": 10000,
    }
    unjudged = ParityReport(
        reference="torch 2.13.0 (cpu)",
        candidate="onnxruntime 1.22.0 (cpu)",
        file=FILE,
        precision="fp32",
        data="held-out digits",
        images=1000,
        file_sha256=SHA,
        data_sha256="da" * 32,
        weights=Weights("digits.safetensors", "c0ffee" * 10),
        environment=ENVIRONMENT,
        outputs=(
            OutputParity("logits", TensorMetrics(**(given | metrics)), RankMetrics(1000, 0.9995, 1.0, 0.972, 0.971)),
        ),
    )
    return apply_tolerances(unjudged, TOLERANCES["fp32"])


def on_noise(**changes: Any) -> ParityReport:
    """A comparison of the same file on noise."""
    words = "16 samples of seeded Gaussian noise (seed 0)"
    return replace(report(), **({"data": words, "images": 16, "noise": True, "data_sha256": ""} | changes))


def build() -> BuildRecord:
    profile = InputProfile((1, 1, 28, 28), (8, 1, 28, 28), (32, 1, 28, 28))
    return BuildRecord(
        onnx=FILE,
        onnx_sha256=SHA,
        engine="model.fp32.tensorrt-rtx.sm86.engine",
        engine_sha256="ab" * 32,
        bytes=4_567_890,
        flavour="tensorrt-rtx",
        version="1.1.1",
        targets=("sm86", "sm89"),
        profiles=({"image": profile},),
        layers=812,
        layer_dtypes={"float": 801, "int64": 11},
        seconds=12.4,
        platform="linux-x86_64",
    )


INT8 = "model.int8.onnx"
SAMPLES = CalibrationRecord("photos", "5a" * 32, 512, 3, 0, "percentile", (INT8,))
THUMBNAIL = "data:image/png;base64,iVBORw0KGgo="
COSTS = {"stem": 41.0, "fc1": 12.5, "fc2": 30.0, "head": 22.25}


def quantized_manifest(**changes: Any) -> Manifest:
    files = (FileRecord(FILE, "fp32", SHA, 1000, 612), FileRecord(INT8, "int8", "b" * 64, 260, 700))
    kept = PrecisionException("fc1", "fp32", "kept by the accuracy budget", INT8)
    return manifest(
        **({"files": files, "shifts": (), "calibration": SAMPLES, "precision_exceptions": (kept,)} | changes)
    )


def accuracy() -> AccuracyReport:
    """Only fc1 matters to the score: a real climb over four layers keeps it and nothing else."""
    search = keep_budget(
        COSTS, lambda kept: 82.9 if "fc1" in kept else 80.0, reference=83.0, max_drop=0.5, metric="top-1 accuracy"
    )
    worst = (
        WorstImage(THUMBNAIL, "cat", Guess("cat", 0.51), Guess("dog", 0.49), 0.025, 7, "cats/0007.jpg"),
        WorstImage("", "", Guess("3", 0.9), Guess("3", 0.8), 0.0125, 41),
    )
    return AccuracyReport(
        metric="top-1 accuracy",
        data="1000 photos",
        images=1000,
        rows=(
            AccuracyRow(FILE, "fp32", 1000, 83.0, 100.0, None, "as in the file"),
            AccuracyRow(INT8, "int8", 260, 82.9, 98.6, 31.88, "rounded to float16", worst),
        ),
        sqnr={"int8": COSTS},
        searches={"int8": search},
        sha256={FILE: SHA, INT8: "b" * 64},
    )


def bench() -> BenchReport:
    """Two files and one that crashed; int8 is faster than float32 by both clocks."""
    processor = Processor("x86_64", "A processor", ("avx2",))
    environment = Environment("2026-11-27T21:55:00Z", Machine(processor, 1, 2, 2), {"s2mlp_deploy": "1.0"})

    def result(file: str, sha256: str, precision: str, milliseconds: float) -> BenchResult:
        candidate = Candidate(file, sha256, precision, "onnxruntime", "onnxruntime 1.32.0 (CPU)", 1, 1, ((1, 3, 8, 8),))
        launches = tuple(
            Launch(0.25, 90_000_000, 40_000_000, (milliseconds, milliseconds), (milliseconds, milliseconds))
            for _ in range(3)
        )
        latency = Latency(100, *(milliseconds * factor for factor in (0.98, 1.0, 1.0, 1.05, 1.1)))
        return BenchResult(candidate, "", launches, latency, 1e3 / milliseconds)

    fp32, int8 = result(FILE, SHA, "fp32", 2.0), result(INT8, "b" * 64, "int8", 1.0)
    ratio = Ratio(fp32.candidate.name, 0.5, 0.48, 0.52)
    crashed = BenchResult(replace(fp32.candidate, engine="tensorrt-rtx", runtime=""), "it was ended by SIGSEGV")
    profile = Profile(20, 2.5, (NodeTime("fc1/MatMul", "MatMul", "fc1", 1.5), NodeTime("Gelu", "BiasGelu", "", 0.5)))
    return BenchReport(
        scenario="single-stream",
        environment=environment,
        data="seeded Gaussian noise (seed 0)",
        rounds=2,
        results=(
            replace(fp32, profile=profile),
            replace(int8, ratio=ratio, cpu_ratio=ratio, warnings=("the rounds spread by 3.0 %",)),
            crashed,
        ),
        warnings=("other programs kept 1.5 processors busy",),
    )


def tune() -> TuneReport:
    """OpenVINO wins in float32 and int8; one trial was refused, and there was no time for another."""
    one, both = EngineSettings(threads=1), EngineSettings(threads=2, spin=False)
    before = Trial(FILE, SHA, "fp32", "channels-last", "slice-concat", "onnxruntime", one, "slower", "19 % slower", 2.0)
    won = replace(
        before,
        file="model.fp32-tuned.onnx",
        sha256="c" * 64,
        layout="channels-first",
        engine="openvino",
        outcome="won",
        reason="the fastest",
        ms=1.6,
        ratio=Ratio(before.name, 0.81, 0.8, 0.82),
    )
    ratio = Ratio(before.name, 0.5, 0.48, 0.52)
    int8 = replace(won, file=INT8, sha256="b" * 64, precision="int8-trt", ms=1.0, ratio=ratio)
    refused = replace(before, file="", form="gather", outcome="parity", reason="it differs by 0.3", ms=None)
    untried = replace(before, settings=both, outcome="untried", reason="there was no time left", ms=None)
    return TuneReport(
        environment=bench().environment,
        clock="cpu",
        batch=1,
        inputs=((1, 3, 8, 8),),
        data="seeded Gaussian noise (seed 0)",
        minutes=4.0,
        seconds=12.5,
        trials=(before, won, int8, refused, untried),
        notes=("fp16 is not tried on a processor",),
    )


def calibration() -> CalibrationReport:
    """Values from -0.5 to 5.9 in bins of 0.5: both ranges cut off the last one, and one of them two more."""
    counts = (40, 1000, 500, 200, 100, 50, 20, 10, 5, 3, 2, 0, 1)
    ranges = {"uint8": (-0.5, 5.0), "int8": (-4.0, 4.0)}
    return CalibrationReport(
        SAMPLES,
        tuple(ActivationRange(f"{layer}.in", (layer,), -0.5, 5.9, counts, -0.5, 0.5, ranges) for layer in COSTS),
    )


def artifact(directory: Path, described: Manifest | None = None, **evidence: Any) -> Path:
    """Evidence by file name with ``_`` for ``-``; bytes are written as they are."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / FILE).write_bytes(ONNX)
    for name, value in evidence.items():
        data = value if isinstance(value, bytes) else to_json(value) if isinstance(value, dict) else encode(value)
        write_file(directory / "evidence" / f"{name.replace('_', '-')}.json", data)
    write_file(directory / "manifest.json", to_json(described or manifest()))
    return directory


def page_of(directory: Path) -> Page:
    """The report of an artifact, which has no mistake in its nesting."""
    page = Page(write_report(directory).read_text("utf-8"))
    assert page.mistakes == []
    return page


def tone(page: Page) -> str:
    """Of the verdict."""
    ((_, attrs),) = page.with_class("verdict")
    return (attrs["class"] or "").split()[-1]


def regions(page: Page, label: str) -> list[str]:
    """The labels of a page's regions that begin so, in order."""
    return [a["aria-label"] or "" for _, a in page.elements if (a.get("aria-label") or "").startswith(label)]


def layer(path: str, max_abs: float = 1e-6, kind: str = "Linear") -> LayerParity:
    """A layer whose peak is 1, judged by float32's limits."""
    metrics = TensorMetrics(max_abs, 1.0, max_abs, 1.0, 120.0, 64, sqnr=110.0)
    errors = Errors(1e-7, 1e-7, 5e-7, 9e-7, ((-7, 60), (-6, 4)))
    return LayerParity(path, kind, f"{path}/MatMul.out", metrics, errors, (), "net.py:12", TOLERANCES["fp32"])


def layers(*found: LayerParity) -> LayersReport:
    """A comparison of layers."""
    return LayersReport(
        reference="torch (functional meaning), tiny",
        candidate="onnxruntime (CPU)",
        file="model.fp32.onnx",
        precision="fp32",
        data="16 samples of seeded Gaussian noise (seed 0)",
        images=16,
        layers=found or (layer("stages.0"), layer("head"), layer("logits", kind="output")),
        unmatched=(Unmatched("stages.0.attention", "3 tensors leave it"),),
        runs=2,
        tapping={"logits": 0.0},
        file_sha256=hashlib.sha256(ONNX).hexdigest(),
        noise=True,
        weights=Weights(seed=0),
    )


def engine_layers() -> EngineLayers:
    """Two layers of the engine of :func:`build`, timed, and something that costs time for nothing."""
    made = build()
    image, hidden = LayerTensor("image", (8, 1, 28, 28), "fp32", "Float"), LayerTensor("a", (8, 64), "fp16", "Half")
    head = EngineLayer("head/Gemm", "gemm", "Gemm", ("head/Gemm",), "head", (image,), (hidden,), "fp16", True, ms=0.25)
    copy = EngineLayer("Reformat", "Reformat", "Reformat", (), "", (hidden,), (hidden,), reformat=True, ms=0.05)
    finding = LayerFinding("reformats", "values are only laid out anew", ("Reformat",), 0.05, "build with an option")
    return EngineLayers(
        f"{made.engine}.layers.json",
        "11.x",
        ("image", "logits"),
        (head, copy),
        findings=(finding,),
        engine=made.engine,
        engine_sha256=made.engine_sha256,
    )


def modules(file: str = FILE, sha256: str = SHA, precision: str = "fp32") -> ModulesReport:
    """What a file has of each module: two blocks in a container, and a head."""
    blocks = [
        ModuleRecord(f"stages.0.blocks.{index}.{name}", operators, weights, {precision: 1})
        for index in (0, 1)
        for name, operators, weights in (
            ("norm", {"LayerNormalization": 1}, {"fp32": 64}),
            ("mlp.fc1", {"MatMul": 1, "Add": 1}, {precision: 4096}),
        )
    ]
    head = ModuleRecord("head", {"Gemm": 1}, {"fp32": 1024}, {"fp32": 1})
    shared = ModuleRecord("stages.0.blocks", {}, {"int64": 16}, {})
    return ModulesReport(file, precision, sha256, (*blocks, ModuleRecord("(network)", {"ReduceMean": 1}), head, shared))
