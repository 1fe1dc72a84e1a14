"""What a terminal and a pipe show of saved results."""

from __future__ import annotations

import io
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_samples import accuracy, build
from report_samples import report as sample_report
from rich.console import Console

from s2mlp_deploy.artifact import FileRecord, Manifest, ShiftRecord, SourceInfo, TensorInfo
from s2mlp_deploy.evidence.accuracy import AccuracyReport, BudgetSearch, KeptLayer
from s2mlp_deploy.evidence.build import BuildRecord, Contents, InputProfile, MatrixOp
from s2mlp_deploy.evidence.parity import OutputParity, ParityReport, Weights
from s2mlp_deploy.evidence.standing import comparable
from s2mlp_deploy.metrics import RankMetrics, TensorMetrics
from s2mlp_deploy.parity.tolerances import TOLERANCES, apply_tolerances
from s2mlp_deploy.report.accuracy import print_accuracy
from s2mlp_deploy.report.engines import print_build
from s2mlp_deploy.report.figures import precision_in_words
from s2mlp_deploy.report.tables import print_table
from s2mlp_deploy.report.terminal import print_manifest, print_next, print_parity
from s2mlp_deploy.report.verdict import parity_command
from s2mlp_deploy.shift.origin import Origin
from s2mlp_deploy.shift.spec import ShiftSpec

SPEC = ShiftSpec.equal_groups(96, [(1, 0), (-1, 0), (0, 1), (0, -1)], axes=(1, 2), channel_axis=3)


class Pipe:
    """A dumb pipe of eighty columns and some encoding."""

    def __init__(self, encoding: str = "utf-8", width: int = 80) -> None:
        self.bytes = io.BytesIO()
        stream = io.TextIOWrapper(self.bytes, encoding=encoding, errors="strict", write_through=True)
        self.console = Console(file=stream, width=width)

    @property
    def text(self) -> str:
        return self.bytes.getvalue().decode(self.console.encoding)

    @property
    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.text.splitlines()]


def parity(max_abs: float | None = 7.63e-6, **changes: Any) -> ParityReport:
    metrics = TensorMetrics(max_abs, 18.4, 4.15e-7, 0.999999999, 139.24, 10_000)
    report = ParityReport(
        "torch 2.13.0",
        "onnxruntime 1.22.0",
        "model.fp32.onnx",
        "fp32",
        "digits",
        1000,
        (OutputParity("logits", replace(metrics, **changes), RankMetrics(1000, 0.9995, 1.0, 0.972, 0.971)),),
        weights=Weights("digits.safetensors", "c0ffee" * 10),
    )
    return apply_tolerances(report, TOLERANCES["fp32"])


def manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "name": "digits",
        "source": SourceInfo("s2mlpv2_nano", checkpoint="digits.safetensors"),
        "preprocessing": None,
        "classes": None,
        "inputs": (TensorInfo("image", "float32", ("batch", 1, 28, 28)),),
        "outputs": (TensorInfo("logits", "float32", ("batch", 10)),),
        "opset": 20,
        "shifts": tuple(
            ShiftRecord(SPEC, Origin(f"blocks.{i}", "net.py:7", idiom="roll"), "pad-slice", 8) for i in range(36)
        ),
        "tools": {},
        "files": (FileRecord("model.fp32.onnx", "fp32", "0" * 64, 1_234_567, 1612),),
    }
    return Manifest(**(values | changes))


def test_parity_that_holds() -> None:
    pipe = Pipe()
    print_parity(pipe.console, parity())
    assert pipe.text.startswith("Parity of model.fp32.onnx: holds\n")
    assert "data       digits (1,000 images)" in pipe.text
    assert "weights    digits.safetensors (sha256 c0ffeec0ffee)" in pipe.text
    for line in (
        "max abs difference 7.63e-06 <= 0.0184",
        "cosine 0.9999999 >= 0.99999",
        "PSNR 139.2 dB",
        "top-1 agreement 99.95 % >= 99.90 %",
        "top-5 agreement 100 %",
        "accuracy of reference 97.20 %",
        "accuracy of candidate 97.10 %",
    ):
        assert line.split() in pipe.lines
    assert "FAILS" not in pipe.text
    assert "\x1b" not in pipe.text


def test_parity_that_fails_says_why() -> None:
    pipe = Pipe(width=120)
    report = parity(max_abs=3.1)
    print_parity(pipe.console, report)
    assert pipe.text.startswith("Parity of model.fp32.onnx: FAILS\n")
    assert [line for line in pipe.text.splitlines() if line.startswith("FAILS  ")] == [
        f"FAILS  {failure}" for failure in report.failures
    ]
    assert len(report.failures) == 1


def test_parity_with_a_figure_that_is_not_finite_fails() -> None:
    pipe = Pipe()
    print_parity(pipe.console, parity(max_abs=None, psnr=None))
    assert pipe.text.startswith("Parity of model.fp32.onnx: FAILS\n")
    assert ["PSNR", "not", "finite"] in pipe.lines
    assert "max abs difference is not finite" in pipe.text


def test_parity_that_nothing_judged_is_unclear() -> None:
    pipe = Pipe()
    print_parity(pipe.console, replace(parity(), outputs=()))
    assert pipe.text.startswith("Parity of model.fp32.onnx: unclear\n")
    assert "measure again" in pipe.text


def test_every_output_is_printed_with_its_own_limits() -> None:
    report = parity()
    report = replace(report, outputs=(*report.outputs, replace(report.outputs[0], name="features")))
    limits = {"logits": TOLERANCES["fp32"], "features": replace(TOLERANCES["fp32"], atol=0.5, rtol=0.0)}
    pipe = Pipe()
    print_parity(pipe.console, apply_tolerances(report, limits))
    assert ["max", "abs", "difference", "7.63e-06", "<=", "0.0184"] in pipe.lines
    assert ["max", "abs", "difference", "7.63e-06", "<=", "0.5"] in pipe.lines


def test_build() -> None:
    profile = InputProfile((1, 1, 28, 28), (8, 1, 28, 28), (32, 1, 28, 28))
    record = BuildRecord(
        "model.fp32.onnx",
        "12" * 32,
        "model.engine",
        "ab" * 32,
        4_567_890,
        "tensorrt-rtx",
        "1.1.1",
        ("sm86", "sm89"),
        ({"image": profile},),
        812,
        {"float": 801, "int64": 11},
        75.2,
        "linux-x86_64",
    )
    pipe = Pipe()
    print_build(pipe.console, record)
    for line in (
        "Built model.engine",
        "from model.fp32.onnx (sha256 121212121212)",
        "targets sm86, sm89",
        "size 4.6 MB",
        "layers 812 (outputs: 801 float, 11 int64)",
        "build time 1 min 15 s",
        "image 1x1x28x28 8x1x28x28 32x1x28x28",
    ):
        assert line.split() in pipe.lines


@pytest.mark.parametrize(
    ("ops", "precision", "exceptions", "says"),
    [
        (
            ["int8"] * 52 + ["fp16"] * 3,
            "int8",
            3,
            "52 of 55 GEMMs and convolutions in int8, 3 in fp16; 3 layers listed as exceptions",
        ),
        (["fp32"] * 2, "fp32", 0, "2 of 2 GEMMs and convolutions in fp32"),
        (["fp16"], None, 0, "none was required (1 GEMM or convolution: 1 in fp16)"),
        ([], "int8", 0, "int8"),
    ],
)
def test_a_build_counts_what_computes_in_its_precision(
    ops: list[str], precision: str | None, exceptions: int, says: str
) -> None:
    contents = Contents("network", 60, {}, {}, matrix_ops=tuple(MatrixOp(f"fc{i}", op) for i, op in enumerate(ops)))
    names = tuple(f"fc{i}" for i in range(exceptions))
    record = replace(build(), precision=precision, contents=contents, exceptions=names)
    assert precision_in_words(record) == says
    pipe = Pipe(width=160)
    print_build(pipe.console, record)
    assert ["precision", *says.split()] in pipe.lines


def test_manifest_groups_shifts_and_names_the_next_commands() -> None:
    pipe = Pipe()
    print_manifest(pipe.console, manifest(), Path("out/my digits"))
    assert ["model.fp32.onnx", "fp32", "1.2", "MB", "1,612"] in pipe.lines
    assert ["36", "96", "down,", "up,", "right,", "left", "keep", "pad-slice", "8"] in pipe.lines
    assert "36 shifts" in pipe.text
    print_next(pipe.console, manifest(), Path("out/my digits"), manifest().source)
    # Whole on one line, though it is longer than the pipe is wide.
    lines = pipe.text.splitlines()
    assert "  s2mlp-deploy parity s2mlpv2_nano 'out/my digits' --checkpoint digits.safetensors" in lines
    assert "  s2mlp-deploy build 'out/my digits' --target sm89" in lines


def test_where_no_engine_is_built_the_next_command_is_one_for_processors() -> None:
    pipe = Pipe()
    print_next(pipe.console, manifest(), Path("out"), data="my images", samples=2000, can_build=False)
    assert [line.split(maxsplit=1)[1] for line in pipe.text.splitlines()[1:] if line] == [
        "parity s2mlpv2_nano out --data 'my images' --samples 2000",
        "tune out",
        "build out --target sm89 --dry-run",
    ]


def test_the_parity_command_leaves_out_weights_that_lie_beside_their_graph() -> None:
    graph = manifest().files[0]
    beside = manifest(files=(graph, FileRecord(f"{graph.path}.data", "fp32", "0" * 64, 1, 0)))
    assert comparable(beside) == (graph.path,)


def test_the_parity_command_leaves_to_the_manifest_what_that_knows() -> None:
    source = SourceInfo("net.py:f", checkpoint="w.pt", overrides={"width": 3, "name": "a b"}, preprocess="how.json")
    described = manifest(source=source, preprocessing_in_graph=True)
    files = comparable(described)
    assert shlex.split(parity_command(described, "out", files)) == ["s2mlp-deploy", "parity", "net.py:f", "out"]
    known = replace(source, reference="nets/net.py:f", checkpoint="my weights/w.pt")
    assert shlex.split(parity_command(described, "out", files, source=known, data="a b")) == [
        *("s2mlp-deploy", "parity", "nets/net.py:f", "out"),
        *("--checkpoint", "my weights/w.pt", "--data", "a b"),
    ]


def test_the_parity_command_names_files_where_they_are_not_all() -> None:
    graph = manifest().files[0]
    several = manifest(files=(graph, FileRecord("model.fp16.onnx", "fp16", "0" * 64, 1, 1)))
    words = shlex.split(parity_command(several, "out", ["model.fp16.onnx"]))
    assert words[3:] == [str(Path("out/model.fp16.onnx"))]


def test_manifest_with_nothing_in_it() -> None:
    pipe = Pipe()
    empty = manifest(source=SourceInfo("x", seed=0), shifts=(), files=())
    print_manifest(pipe.console, empty, Path("out"))
    print_next(pipe.console, empty, Path("out"), empty.source)
    assert "RANDOM (seed 0)" in pipe.text
    assert "No shift was found." in pipe.text
    assert "Next" not in pipe.text


def scores(**changes: Any) -> AccuracyReport:
    return replace(accuracy(), **changes)


def test_accuracy_names_every_file_and_what_a_budget_kept() -> None:
    pipe = Pipe()
    print_accuracy(pipe.console, scores())
    assert "top-1 accuracy, in points, on 1000 photos" in pipe.text
    assert ["model.fp32.onnx", "1.0", "kB", "100", "%", "-", "83.00", "-", "100", "%"] in pipe.lines
    assert ["model.int8.onnx", "260", "bytes", "26", "%", "31.9", "dB", "82.90", "+0.10", "98.60", "%"] in pipe.lines
    assert "model.int8.onnx was scored with every result rounded to float16" in " ".join(pipe.text.split())
    assert "model.int8.onnx: 0.10 points below fp32" in pipe.text
    assert "1 of 4 layers in higher precision" in " ".join(pipe.text.split())
    assert ["fc1", "12.5", "dB", "2.90"] in pipe.lines


def test_files_without_a_score_are_listed_with_their_sizes_and_the_error_of_each_output() -> None:
    pipe = Pipe()
    fp32, int8 = accuracy().rows
    (logits,) = sample_report().outputs
    boxes = replace(logits, name="boxes", metrics=replace(logits.metrics, sqnr=21.25, cosine=0.996))
    rows = (replace(fp32, score=None), replace(int8, score=None, outputs=(logits, boxes)))
    print_accuracy(pipe.console, scores(metric="", rows=rows, searches={}))
    assert "compared with fp32 on 1000 photos" in pipe.text
    assert ["model.int8.onnx", "260", "bytes", "26", "%", "31.9", "dB"] in pipe.lines
    assert ["model.int8.onnx", "boxes", "21.2", "dB", "0.9960000"] in pipe.lines
    assert "Score" not in pipe.text


def test_a_file_below_a_floor_is_told() -> None:
    pipe = Pipe()
    fp32, int8 = accuracy().rows
    print_accuracy(pipe.console, scores(rows=(fp32, replace(int8, failures=("top-1 82.90 % < 90 %",)))))
    assert "BELOW model.int8.onnx: top-1 82.90 % < 90 %" in " ".join(pipe.text.split())


def test_a_long_ladder_is_cut_short() -> None:
    pipe = Pipe()
    kept = tuple(KeptLayer(f"fc{index}", None, 0.5) for index in range(10))
    search = BudgetSearch("mAP", max_drop=1.0, reference=50.0, score=50.5, kept=kept)
    print_accuracy(pipe.console, scores(searches={"int8": search}))
    assert "0.50 points above fp32 in mAP" in pipe.text
    assert ["fc7", "-", "0.50"] in pipe.lines
    assert "and 2 more" in pipe.text
    assert "fc8" not in pipe.text


def test_text_in_scores_is_neither_markup_nor_control() -> None:
    pipe = Pipe("ascii")
    print_accuracy(pipe.console, scores(metric="[bold]\x1b[31mmAP", data="文"))
    assert "[bold]" in pipe.text
    assert "\x1b" not in pipe.text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_encoding_of_the_pipe(encoding: str) -> None:
    pipe = Pipe(encoding)
    print_manifest(pipe.console, manifest(name="größe → 文"), Path("out"))
    print_table(pipe.console, "Ω", ["文"], [["→"]])
    assert ("文" in pipe.text) == (encoding == "utf-8")
    assert ("ö" in pipe.text) == (encoding != "ascii")


def test_text_is_neither_markup_nor_control() -> None:
    pipe = Pipe()
    print_table(pipe.console, "[red]title[/red]", ["[b]"], [["[/]"], ["\x1b[31mred"], [":smile:"]])
    assert "[red]title[/red]" in pipe.text
    assert ["[b]"] in pipe.lines
    assert ["[/]"] in pipe.lines
    assert ["\\x1b[31mred"] in pipe.lines
    assert [":smile:"] in pipe.lines


def test_table_aligns_numbers() -> None:
    pipe = Pipe()
    print_table(pipe.console, None, ["Name", "Count", "Share"], [["a", 1, "9.00 %"], ["b", "1,000", None]])
    head, _, first, *_ = pipe.text.splitlines()
    assert first.endswith("9.00 %")
    assert first.index("1") > head.index("Count"), "numbers end where their heading ends"
