"""A realistic artifact with evidence, and a parser that reads a page the way a browser does."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from s2mlp_deploy.artifact import FileRecord, Manifest, ShiftRecord, SourceInfo, TensorInfo
from s2mlp_deploy.engines.profiles import InputProfile
from s2mlp_deploy.engines.tensorrt.record import BuildRecord
from s2mlp_deploy.files import to_json, write_file
from s2mlp_deploy.metrics import RankMetrics, TensorMetrics
from s2mlp_deploy.parity.compare import TOLERANCES, OutputParity, ParityReport, judge
from s2mlp_deploy.shift.spec import ShiftSpec

DOWN, UP, RIGHT, LEFT, STAY = (1, 0), (-1, 0), (0, 1), (0, -1), (0, 0)
FIRST = ShiftSpec.equal_groups(96, [RIGHT, LEFT, DOWN, UP], axes=(1, 2), channel_axis=3)
SECOND = ShiftSpec.equal_groups(96, [DOWN, UP, RIGHT, LEFT], axes=(1, 2), channel_axis=3)
ONNX = b"not really a graph"
SHA = hashlib.sha256(ONNX).hexdigest()
FILE = "model.fp32.onnx"
VOID = {"meta", "link", "br", "hr", "img", "input"}


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


def shifts(form: str = "pad-slice") -> tuple[ShiftRecord, ...]:
    return tuple(
        ShiftRecord(f"stages.0.{index}.{name}", "net.py:7", spec.to_dict(), "slice-assign", form, 8)
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
        outputs=(
            OutputParity("logits", TensorMetrics(**(given | metrics)), RankMetrics(1000, 0.9995, 1.0, 0.972, 0.971)),
        ),
        tolerances=TOLERANCES["fp32"],
    )
    return judge(unjudged, TOLERANCES["fp32"])


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


def artifact(directory: Path, described: Manifest | None = None, **evidence: Any) -> Path:
    """Evidence by name with ``_`` for ``-``; bytes are written as they are."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / FILE).write_bytes(ONNX)
    for name, value in evidence.items():
        data = value if isinstance(value, bytes) else to_json(value)
        write_file(directory / "evidence" / f"{name.replace('_', '-')}.json", data)
    write_file(directory / "manifest.json", to_json(described or manifest()))
    return directory
