"""Layers that a file computes in parts are found as one, and parts in each other's places are not."""

from __future__ import annotations

import functools

import numpy as np
import onnx_ir as ir
import pytest
from small_nets import LAYOUTS, captured, graph, images, statistics
from tapped_nets import layers_of, program_of

from s2mlp_deploy.export.canonical import to_canonical
from s2mlp_deploy.export.forms import find_form
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.export.passes import split_weights
from s2mlp_deploy.graph.operators import array_of
from s2mlp_deploy.parity.constants import compare_constants, constants_of, state_of
from s2mlp_deploy.parity.graph_taps import TappedGraph
from s2mlp_deploy.parity.joined import with_whole_results
from s2mlp_deploy.parity.layers import compare_layers
from s2mlp_deploy.precision.derive import derive
from s2mlp_deploy.precision.rounding import round_like_half

EXPAND = "stages.0.blocks.0.mixer.expand"
PRECISIONS = ("fp32", "fp16", "int8", "int8-trt")


@functools.cache
def in_parts(layout: str) -> ir.Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split_weights, "_LEAST_CHANNELS", 8)
        canonical = to_canonical(captured("v2", layout).analysis.captured)
    return lower_shifts(canonical, find_form("slice-concat"))[0]


@functools.cache
def file_of(layout: str, precision: str, *, parts: bool = True) -> ir.Model:
    model = in_parts(layout) if parts else graph("v2", "slice-concat", layout)
    return model if precision == "fp32" else derive(model, precision, statistics(model), method="minmax").model


def computed(model: ir.Model) -> ir.Model:
    halves = any(value.dtype == ir.DataType.FLOAT16 for node in model.graph for value in node.outputs)
    return round_like_half(model) if halves else model


def swapped(model: ir.Model) -> ir.Model:
    """The first two parts of the expansion in each other's places."""
    model = model.clone()
    names = [name for name in model.graph.initializers if name.startswith(f"{EXPAND}.")]
    for name in names:
        if "part0of3" in name:
            first, second = (model.graph.initializers[n] for n in (name, name.replace("part0of3", "part1of3")))
            first.const_value, second.const_value = second.const_value, first.const_value
    return model


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_as_many_modules_are_found_as_without_parts(layout: str, precision: str) -> None:
    capture = captured("v2", layout)
    found, whole = (
        layers_of(capture, computed(file_of(layout, precision, parts=parts)), images(3)) for parts in (True, False)
    )
    assert [layer.path for layer in found.layers] == [layer.path for layer in whole.layers]
    assert found.unmatched == whole.unmatched
    for layer, other in zip(found.layers, whole.layers, strict=True):
        assert layer.metrics.elements == other.metrics.elements
        assert layer.metrics.max_rel == pytest.approx(other.metrics.max_rel, rel=1, abs=1e-5), layer.path


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_constants_are_compared_part_by_part(layout: str, precision: str) -> None:
    state = state_of(captured("v2", layout).source.module)
    file = file_of(layout, precision)
    count, failures = compare_constants(file.graph, state)
    assert failures == ()
    whole, _ = compare_constants(file_of(layout, precision, parts=False).graph, state)
    assert count == whole + 2 * sum(name.startswith(f"{EXPAND}.") and "part0" in name for name in _judged(file, state))
    count, failures = compare_constants(swapped(file).graph, state)
    assert {failure.split()[2].split(".part")[0].rpartition(".")[0] for failure in failures} == {EXPAND}
    if precision != "fp32":
        originals = constants_of(in_parts(layout).graph)
        assert compare_constants(file.graph, originals)[1] == ()
        assert compare_constants(swapped(file).graph, originals)[1]


def _judged(file: ir.Model, state: dict[str, np.ndarray]) -> list[str]:
    """The names of the constants that hold a part's numbers."""
    kinds = ("", ".quantized", ".fp16")
    return [
        name
        for name in file.graph.initializers
        if name.split(".part")[0] in state
        and name.endswith(kinds)
        and not name.endswith((".scale", ".zero_point", ".scale.fp16"))
    ]


def test_parts_in_each_others_places_are_that_layers_fault() -> None:
    found = layers_of(captured("v2"), swapped(in_parts("channels-last")), images(3))
    wrong = [layer.path for layer in found.layers if layer.own is not None and layer.own.max_rel > 1e-4]
    assert wrong == [EXPAND]


def test_files_with_and_without_parts_are_compared_by_module() -> None:
    one, other = in_parts("channels-last"), graph("v2")
    for reference, candidate in ((one, other), (other, one)):
        program = TappedGraph(reference, threads=1)
        found = compare_layers(program, program, {"file": candidate}, [(images(3), None)], splits=True)["file"]
        assert found.unmatched == ()
        assert EXPAND in [layer.path for layer in found.layers]
        assert all(layer.own is None or layer.own.max_rel < 1e-5 for layer in found.layers)


def test_what_has_no_parts_or_not_all_of_them_stays() -> None:
    assert with_whole_results(graph("v2")) is graph("v2")
    fewer = in_parts("channels-last").clone()
    value = next(v for name, v in fewer.graph.initializers.items() if "weight_t.part1of3" in name)
    array = array_of(value)
    value.name, value.const_value = "another", ir.tensor(array, name="another")
    assert with_whole_results(fewer) is fewer
    program, _ = program_of(captured("v2"))
    assert EXPAND in {tap.path for tap in program.taps}
