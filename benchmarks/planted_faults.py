"""Faults planted in single layers of files, and the module that ``parity --per-layer`` names for each.

    python benchmarks/planted_faults.py

The digit network is exported in float32, float16 and int8. A group of one shift moves the other way; one block leaves
the range of float16; the int8 weights of one layer have a scale a quarter too large. The same files without a fault
are compared too, on digits and on seeded noise, where nothing may be named. Exit status 1 where a module is not found
by its name, or a sound file is said to be wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

from s2mlp_deploy import api
from s2mlp_deploy.demo.digits import load_digits, weights_path, write_pngs
from s2mlp_deploy.graph.operators import array_of
from s2mlp_deploy.precision.half import to_half

_BLOCK = "stages.1.blocks.2"
_SHIFT = f"{_BLOCK}.mixer.shifts.1"
_SCALE = 1.25
_GAIN = 50_000.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=16)
    samples = parser.parse_args().samples
    train, held_out = load_digits()
    missed = 0
    print("| file | fault | planted in | data | named first | its own SNR | its SNR | least other | seconds |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_pngs(train, root / "train")
        write_pngs(held_out, root / "digits")
        captured = api.capture(api.load("s2mlpv2_nano", checkpoint=weights_path()))
        options = api.PrecisionOptions(precisions=("fp16", "int8"), data=root / "train", samples=64)
        api.export(captured, root / "out", precision=options)
        for data in (root / "digits", None):
            for file in sorted((root / "out").glob("*.onnx")):
                missed += not _row(captured, file, "none", "", data, samples)
        wrong = root / "wrong"
        wrong.mkdir()
        _edit(root / "out" / "model.fp32.onnx", wrong / "model.fp32.onnx", _turn_a_group)
        _edit(root / "out" / "model.int8.onnx", wrong / "model.int8.onnx", _grow_a_scale)
        large = _with_large_values()
        api.export(large, root / "large")
        _edit(root / "large" / "model.fp32.onnx", wrong / "model.fp16.onnx", lambda model: to_half(model, {}).model)
        faults = (
            (captured, "model.fp32.onnx", "a shift group with the wrong sign", _SHIFT),
            (large, "model.fp16.onnx", "float16 overflows in one block", f"{_BLOCK}.norm2"),
            (captured, "model.int8.onnx", f"a weight scale times {_SCALE}", f"{_BLOCK}.mlp.fc1"),
        )
        for source, name, fault, module in faults:
            for data in (root / "digits", None):
                missed += not _row(source, wrong / name, fault, module, data, samples)
    return 1 if missed else 0


def _row(source: api.CapturedSource, file: Path, fault: str, module: str, data: Path | None, samples: int) -> bool:
    """Compares a file, prints what was found, and says whether that is what was planted."""
    started = time.monotonic()
    (report,) = api.parity_per_layer(source, [file], data=data, samples=samples)
    seconds = time.monotonic() - started
    first = report.first
    named = first.path if first is not None else ""
    own = [layer for layer in report.layers if layer.own is not None and layer.path != named]
    others = min(layer.own.sqnr for layer in own if layer.own is not None and layer.own.sqnr is not None)
    shown = ["nothing", "", ""] if first is None else [named, _decibels(first.own), _decibels(first.metrics)]
    on = "digits" if data is not None else "noise"
    right = named == module
    print(
        f"| {file.name} | {fault} | {module} | {on} | {shown[0]}{'' if right else ' (WRONG)'} "
        f"| {shown[1]} | {shown[2]} | {others:.1f} dB | {seconds:.1f} |",
        flush=True,
    )
    return right


def _decibels(metrics: object) -> str:
    sqnr, bad = getattr(metrics, "sqnr", None), getattr(metrics, "not_finite", 0)
    return f"{bad} infinite" if bad else "" if sqnr is None else f"{sqnr:.1f} dB"


def _edit(source: Path, target: Path, change: Callable[[ir.Model], ir.Model]) -> None:
    ir.save(change(ir.load(source)), target)


def _turn_a_group(model: ir.Model) -> ir.Model:
    """One group of a shift, a slice out of the tensor with a border around, is cut out on the other side."""
    node = next(node for node in model.graph if node.name == f"{_SHIFT}/Shift/Slice_1")
    starts, ends, axes = (array_of(value).copy() for value in node.inputs[1:4])
    spatial = np.isin(axes, (1, 2))
    turned = np.where(spatial, 2 - starts, starts)
    sizes = np.array([node.outputs[0].shape[axis] for axis in axes])
    for position, array in ((1, turned), (2, np.where(spatial, turned + sizes, ends))):
        value = ir.Value(name=f"wrong.{position}", const_value=ir.tensor(array.astype(np.int64)))
        value.shape, value.type = ir.Shape(array.shape), ir.TensorType(ir.DataType.INT64)
        model.graph.register_initializer(value)
        node.replace_input_with(position, value)
    return model


def _grow_a_scale(model: ir.Model) -> ir.Model:
    name = f"{_BLOCK}.mlp.fc1.weight_t.scale"
    value = model.graph.initializers[name]
    value.const_value = ir.tensor((array_of(value) * np.float32(_SCALE)).astype(np.float32), name=name)
    return model


def _with_large_values() -> api.CapturedSource:
    """The network with a norm that gives values beyond float16's range, which the layer behind takes back."""
    source = api.load("s2mlpv2_nano", checkpoint=weights_path())
    block = source.module.get_submodule(_BLOCK)
    with torch.no_grad():
        block.norm2.weight.mul_(_GAIN)
        block.norm2.bias.mul_(_GAIN)
        block.mlp.fc1.weight.div_(_GAIN)
    return api.capture(source)


if __name__ == "__main__":
    sys.exit(main())
