"""Files in which one thing is wrong: none passes, in any form and precision.

No tolerance could do that: one channel group of one shift turned round changes int8 outputs less than the quantization.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from small_nets import captured, images

from s2mlp_deploy import api
from s2mlp_deploy.artifact import Manifest, read_manifest
from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine
from s2mlp_deploy.evidence.accuracy import AccuracyReport
from s2mlp_deploy.evidence.calibration import CalibrationReport
from s2mlp_deploy.evidence.parity import GraphProof, unmet_limits
from s2mlp_deploy.evidence.store import read_evidence, read_record
from s2mlp_deploy.graph.operators import array_of
from s2mlp_deploy.parity.own_limits import own_limits
from s2mlp_deploy.parity.proof import prove
from s2mlp_deploy.parity.tolerances import default_tolerances
from s2mlp_deploy.precision.accuracy import engine_of
from s2mlp_deploy.precision.fidelity import Beside

# Each form and border once, both families, shifts in front of GEMMs (v1: integers are moved) and not.
CASES = [
    ("v2", "slice-concat", "keep"),
    ("v2", "grouped-conv", "edge"),
    ("v2", "gather", "circular"),
    ("v2", "pad-slice", "zero"),
    ("v1", "grouped-conv", "keep"),
    ("v1", "pad-slice", "edge"),
    ("v1", "slice-concat", "zero"),
    ("v1", "gather", "keep"),
    ("v1", "row-gather", "zero"),
    ("v2", "row-gather", "keep"),
]
FILES = ("fp32", "fp16", "int8", "int8-trt", "fp8-trt")


@functools.cache
def _artifact(family: str, form: str, border: str) -> tuple[Path, Manifest, tempfile.TemporaryDirectory[str]]:
    keeper = tempfile.TemporaryDirectory(prefix="mutants-")
    path = Path(keeper.name) / "artifact"
    options = api.PrecisionOptions(precisions=("fp16", "int8", "fp8"), data=images(32)["input"], threads=1)
    api.export(captured(family, border=border), path, shift_form=form, precision=options)  # type: ignore[arg-type]
    return path, read_manifest(path), keeper


def proof_of(directory: Path, manifest: Manifest, graph: ir.Graph, precision: str, only: str = "") -> GraphProof:
    """The proof of a file; of one shift alone where its name is given."""
    records = [record for record in manifest.shifts if record.name.startswith(only)]
    return prove(
        graph,
        records,
        [record.spec for record in records],
        float32=directory / "model.fp32.onnx" if precision != "fp32" else None,
        calibration=read_record(directory, CalibrationReport) if "int8" in precision or "fp8" in precision else None,
    )


def _constant(graph: ir.Graph, array: np.ndarray, name: str) -> ir.Value:
    value = ir.Value(
        name=name,
        type=ir.TensorType(ir.tensor(array).dtype),
        shape=ir.Shape(array.shape),
        const_value=ir.tensor(array, name=name),
    )
    graph.register_initializer(value)
    return value


Mutation = tuple[str, Callable[[ir.Graph], None]]


def _by_name(graph: ir.Graph, name: str) -> ir.Node:
    return next(node for node in graph.all_nodes() if node.name == name)


def shift_mutations(graph: ir.Graph, manifest: Manifest) -> Iterator[Mutation]:
    """Every constant, attribute and order in the nodes of the shifts, changed alone."""
    for record in manifest.shifts:
        for node in graph.all_nodes():
            if not str(node.name).startswith(f"{record.name}/"):
                continue
            name = str(node.name)
            if node.op_type == "Concat":
                yield f"{name}: parts reversed", functools.partial(_reverse, name=name)
            if node.op_type == "Pad":
                yield f"{name}: another border", functools.partial(_other_border, name=name)
            if node.op_type in ("Slice", "Pad", "Gather", "GatherElements", "Where", "Conv"):
                for position, value in enumerate(node.inputs):
                    if position and array_of(value) is not None and not (node.op_type == "Pad" and position == 2):
                        yield (
                            f"{name}: input {position}",
                            functools.partial(_change, name=name, position=position, op=node.op_type),
                        )


def _reverse(graph: ir.Graph, name: str) -> None:
    node = _by_name(graph, name)
    values = list(node.inputs)
    for position, value in enumerate(reversed(values)):
        node.replace_input_with(position, value)


def _other_border(graph: ir.Graph, name: str) -> None:
    node = _by_name(graph, name)
    mode = node.attributes.get("mode")
    plain = mode is None or mode.as_string() == "constant"
    node.attributes["mode"] = ir.AttrString("mode", "edge" if plain else "reflect")


def _change(graph: ir.Graph, name: str, position: int, op: str) -> None:
    node = _by_name(graph, name)
    array = array_of(node.inputs[position])
    assert array is not None
    array = array.copy()
    if op == "Conv":
        array[0] = np.flip(array[0])  # One channel of one group.
        if np.array_equal(array, array_of(node.inputs[position])):
            array[-1] = np.flip(array[-1])
    elif op == "Gather":
        array.flat[0], array.flat[-1] = array.flat[-1], array.flat[0]
    elif op == "Slice" and position == 3:
        array = array[::-1].copy() if array.size > 1 else (array + 1) % 4
    else:
        # "To the end" less one would still be the end.
        array.flat[0] = -1 if abs(int(array.flat[0])) > 1 << 40 else array.flat[0] + 1
    node.replace_input_with(position, _constant(graph, array, f"{name}.mutant"))


def constant_mutations(graph: ir.Graph) -> Iterator[Mutation]:
    """Every scale, zero point and stored weight, changed alone."""
    for name, value in graph.initializers.items():
        array = array_of(value)
        if array is None or not array.size:
            continue
        if name.endswith((".scale", ".scale.fp16")) and not name.startswith("shift."):
            yield f"{name} times 1.5", functools.partial(_scale, name=name)
        elif name.endswith((".quantized", "weight.fp16", "weight_t.fp16")) and not np.array_equal(
            array, np.flip(array)
        ):
            yield f"{name}: first and last exchanged", functools.partial(_exchange, name=name)


def _set(graph: ir.Graph, name: str, array: np.ndarray) -> None:
    graph.initializers[name].const_value = ir.tensor(array, name=name)


def _scale(graph: ir.Graph, name: str) -> None:
    array = array_of(graph.initializers[name])
    assert array is not None
    _set(graph, name, (array.astype(np.float32) * 1.5).astype(array.dtype))


def _exchange(graph: ir.Graph, name: str) -> None:
    array = array_of(graph.initializers[name])
    assert array is not None
    _set(graph, name, np.ascontiguousarray(np.flip(array)))


@pytest.mark.parametrize(
    ("family", "form", "border", "precision"),
    [
        (*case, precision)
        for index, case in enumerate(CASES)
        for precision in (FILES if index % 4 == 1 else FILES[2 + index % 2 :][:1])
    ],
    ids=lambda value: str(value),
)
def test_no_mutant_of_a_shift_or_a_constant_passes(family: str, form: str, border: str, precision: str) -> None:
    directory, manifest, _ = _artifact(family, form, border)
    original = directory / f"model.{precision}.onnx"
    graph = ir.load(original).graph
    sound = proof_of(directory, manifest, graph, precision)
    assert not sound.failures
    assert not sound.unread
    assert sound.shifts == len(manifest.shifts) > 0
    shifts = list(shift_mutations(graph, manifest))
    constants = list(constant_mutations(graph)) if precision != "fp32" else []  # Its constants have no original here.
    assert len(shifts) > 1
    passed = []
    for name, mutate in shifts + constants:
        mutant = ir.load(original).graph
        mutate(mutant)
        # A wrong constant is no shift's, and the other way round: each is looked for where it must be found.
        only = name.rpartition("/")[0] if (name, mutate) in shifts else "no shift"
        if not proof_of(directory, manifest, mutant, precision, only).failures:
            passed.append(name)
    assert passed == []


@pytest.mark.parametrize(
    ("family", "form", "precision"), [("v2", "slice-concat", "int8"), ("v1", "grouped-conv", "int8-trt")]
)
def test_a_wrong_weight_scale_is_beyond_the_files_own_figures_where_a_constant_passes_it(
    family: str, form: str, precision: str
) -> None:
    """What the constants of a precision let through, wherever a file's weights cannot be proven."""
    directory, _, _ = _artifact(family, form, "keep")
    original = directory / f"model.{precision}.onnx"
    (made,) = read_evidence(directory).newest(AccuracyReport)
    row = next(row for row in made.rows if row.precision == precision)
    base = default_tolerances(precision, images=32)
    own = own_limits(made, row, base, images=32, on_noise=False)
    assert own is not None
    reference = OnnxRuntimeEngine(directory / "model.fp32.onnx", threads=1)
    beside = Beside(reference, [(images(32, seed=5), None)])

    def unmet(model: ir.Model) -> tuple[list[str], list[str]]:
        (figures,) = beside.run(engine_of(model, rounded=False, threads=1)).figures
        return tuple(  # type: ignore[return-value]
            unmet_limits(replace(figures, tolerances=limits)) for limits in (base, own.tolerances[figures.name])
        )

    assert unmet(ir.load(original)) == ([], [])
    scales = {
        str(node.inputs[1].name)
        for node in ir.load(original).graph.all_nodes()
        if node.op_type == "DequantizeLinear" and node.inputs[1] is not None
        if (array := array_of(node.inputs[0])) is not None and array.ndim > 1
    }
    assert len(scales) > 4
    by_constants = 0
    for name in sorted(scales):
        mutant = ir.load(original)
        scale = array_of(mutant.graph.initializers[name])
        assert scale is not None
        _set(mutant.graph, name, (scale.astype(np.float32) * 1.25).astype(scale.dtype))
        constant, measured = unmet(mutant)
        assert measured, name
        by_constants += bool(constant)
    assert by_constants < len(scales) / 2


def test_a_description_that_leaves_shifts_out_proves_nothing_of_them() -> None:
    directory, manifest, _ = _artifact("v2", "grouped-conv", "edge")
    graph = ir.load(directory / "model.fp32.onnx").graph
    specs = [record.spec for record in manifest.shifts]
    silent = [replace(record, nodes=0) for record in manifest.shifts]
    found = prove(graph, silent, specs)
    assert found.shifts == 0
    assert len(found.failures) == len(silent)
    assert "has no nodes in the file" in found.failures[0]
    short = prove(graph, manifest.shifts, [*specs, specs[0]])
    assert not short.failures
    assert short.unread == "the file lists 1 fewer than its source has, which equal shifts of one tensor would explain"
