"""What leaves each module is found in files of every precision, and planted faults are found by the module's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
import torch
from small_nets import captured, graph, images
from tapped_nets import layers_of, program_of
from torch import nn

from s2mlp_deploy import api
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.evidence.layers import Errors, LayerParity
from s2mlp_deploy.export.forms import find_form
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.graph.operators import array_of
from s2mlp_deploy.parity import sketch as sketch_module
from s2mlp_deploy.parity.exits import ancestors, exits, match_taps, tapped
from s2mlp_deploy.parity.layers import Layers, compare_layers
from s2mlp_deploy.parity.sketch import ErrorSketch, LayerFigures
from s2mlp_deploy.parity.tolerances import TOLERANCES, own_distance
from s2mlp_deploy.precision.half import to_half
from s2mlp_deploy.precision.rounding import round_like_half
from s2mlp_deploy.shift.op import shift
from s2mlp_deploy.shift.spec import ShiftSpec

BLOCK = "stages.0.blocks.0"


def first_past(found: Layers, precision: str) -> LayerParity | None:
    judged = (
        replace(layer, tolerances=TOLERANCES[precision] if layer.kind == "output" else None, own_tolerances=own)
        for own in [own_distance(precision)]
        for layer in found.layers
    )
    return next((layer for layer in judged if layer.failures), None)


def test_what_leaves_a_module_is_read_outside_of_it() -> None:
    assert ancestors("a.b.c") == ["a.b.c", "a.b", "a"]
    values = [(1, "a.b", ["a.b"]), (2, "a.b", ["a"]), (3, "a", ["c", "a"]), (4, "c", [None]), (5, "", ["a"])]
    assert exits(values, {"a", "a.b", "c"}) == {"a.b": [2], "a": [3], "c": [4]}


@pytest.mark.parametrize("family", ["v1", "v2"])
@pytest.mark.parametrize("form", ["pad-slice", "grouped-conv"])
def test_every_module_of_a_float32_file_holds(family: str, form: str) -> None:
    found = layers_of(captured(family), graph(family, form), images(3))
    assert first_past(found, "fp32") is None
    paths = [layer.path for layer in found.layers]
    assert {f"{BLOCK}.mlp.fc1", f"{BLOCK}.mlp.fc2", "head", "logits"} <= set(paths)
    assert any("shift" in path for path in paths)
    assert paths[-1] == "logits"
    assert found.tapping == {"logits": pytest.approx(0, abs=1e-6)}
    assert found.unmatched == ()
    # The weights of the branches are parts of one tensor.
    assert (f"{BLOCK}.mixer.attention" in paths) == (family == "v2")
    assert all(layer.own is not None and layer.own.elements for layer in found.layers[:-1])


class _Pair(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x + 1, x * 2


class _OfPair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pair = _Pair()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.mul(*self.pair(x))


def test_a_module_with_several_results_is_told_and_not_guessed() -> None:
    capture = api.capture(api.from_module(_OfPair(), torch.randn(2, 4)))
    assert "2 tensors leave it" in program_of(capture)[0].unclear["pair"]


def test_taps_are_divided_where_they_do_not_fit_and_tell_the_same() -> None:
    model = graph("v2", "pad-slice")
    at_once, divided = (layers_of(captured("v2"), model, images(3), memory=size) for size in (1 << 30, 5000))
    assert (at_once.parts, at_once.runs) == (1, 1)
    assert divided.parts > 1
    assert divided.runs == 3 * divided.parts
    assert divided.images == at_once.images == 3
    assert [layer.path for layer in divided.layers] == [layer.path for layer in at_once.layers]
    for one, other in zip(divided.layers, at_once.layers, strict=True):
        assert one.metrics.peak == pytest.approx(other.metrics.peak, rel=1e-4)
        assert one.metrics.elements == other.metrics.elements


def test_no_inputs_are_refused() -> None:
    program, engine = program_of(captured("v2"))
    with pytest.raises(InputError, match="nothing to compare on"):
        compare_layers(program, engine, {"file": graph()}, [])


def test_outputs_of_another_shape_are_refused() -> None:
    other = graph("v2").clone()
    program, engine = program_of(captured("v2"))
    head = next(node for node in other.graph if node.outputs[0].name == "logits")
    more = ir.node("Concat", [head.outputs[0], head.outputs[0]], {"axis": 1})
    more.outputs[0].name, more.outputs[0].type = "twice", head.outputs[0].type
    other.graph.append(more)
    other.graph.outputs[0] = more.outputs[0]
    with pytest.raises(InputError, match=r"output 'logits' has the shape \(3, 10\), not \(3, 5\)"):
        compare_layers(program, engine, {"file": other}, [(images(3), None)], splits=True)


class _Logarithm(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log(x)


def test_nan_on_both_sides_is_never_equal() -> None:
    capture = api.capture(api.from_module(nn.Sequential(nn.Linear(4, 4), _Logarithm()), torch.rand(2, 4)))
    model = lower_shifts(capture.canonical, find_form("pad-slice"))[0]
    name = capture.analysis.captured.input_names[0]
    found = layers_of(capture, model, {name: np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)})
    first = first_past(found, "fp32")
    assert first is not None
    assert first.path == "1"
    assert "values are NaN or infinite" in first.failures[0]
    assert "of the reference are NaN or infinite" in first.failures[1]


def test_a_module_that_is_not_in_the_file_is_told() -> None:
    program, _ = program_of(captured("v2"))
    model = graph("v2").clone()
    for node in model.graph:
        node.name = str(node.name).replace("head/", "other/")
    _, unmatched = match_taps(program.taps, model.graph)
    assert [item.path for item in unmatched] == ["head"]
    assert "the file has no node of it" in unmatched[0].reason


def test_a_result_of_another_shape_is_told() -> None:
    program, _ = program_of(captured("v2"))
    model = graph("v2").clone()
    value = next(value for node in model.graph for value in node.outputs if node.name == "norm/Reshape_back")
    value.shape = ir.Shape(["batch", 4, 4, 23])
    _, unmatched = match_taps(program.taps, model.graph)
    assert [item.reason for item in unmatched] == ["its result is ?x4x4x23 in the file and ?x4x4x24 in the model"]


def test_a_graph_with_taps_has_its_own_outputs_first_and_stays_as_it_was() -> None:
    program, _ = program_of(captured("v1"))
    model = graph("v1")
    found, _ = match_taps(program.taps, model.graph)
    more, names = tapped(model, found)
    assert [value.name for value in model.graph.outputs] == ["logits"]
    assert more.graph.outputs[0].name == "logits"
    # The head's result is the output, which is not there twice.
    assert names["head"] == "logits"
    assert len({value.name for value in more.graph.outputs}) == len(more.graph.outputs) == len(found)


def test_quantiles_are_those_of_numpy_within_a_bin(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    reference, candidate = generator.standard_normal((2, 4000))
    candidate[:1000] = reference[:1000]
    sketch = ErrorSketch()
    for start in range(0, 4000, 500):
        sketch.update(reference[start : start + 500], candidate[start : start + 500])
    figures, parts = LayerFigures(), LayerFigures()
    figures.update(reference, candidate)
    with monkeypatch.context() as patched:
        patched.setattr(sketch_module, "_CHUNK", 300)
        parts.update(reference.reshape(40, 100), candidate.reshape(40, 100))
    assert parts.result()[1].decades == figures.result()[1].decades
    assert parts.result()[0].sqnr == pytest.approx(figures.result()[0].sqnr)
    differences, result = np.abs(reference - candidate), sketch.result()
    assert result.mean == pytest.approx(differences.mean())
    for found, share in ((result.median, 0.5), (result.p90, 0.9), (result.p99, 0.99)):
        assert found == pytest.approx(np.quantile(differences, share, method="inverted_cdf"), rel=0.046)
    assert sum(count for _, count in result.decades) == 3000
    assert ErrorSketch().result() == Errors(None, None, None, None)


def test_a_shift_group_with_the_wrong_sign_is_found_by_name() -> None:
    model = graph("v2", "pad-slice").clone()
    name = f"{BLOCK}.mixer.shifts.1/Shift/Slice_1"
    node = next(node for node in model.graph if node.name == name)
    starts, ends, axes = (array_of(value).copy() for value in node.inputs[1:4])
    spatial = np.isin(axes, (1, 2))
    # One element of padding on both sides: the content begins at 1, moved at 0 or 2.
    starts[spatial] = 2 - starts[spatial]
    ends[spatial] = starts[spatial] + 4
    for position, array in ((1, starts), (2, ends)):
        value = ir.Value(name=f"wrong.{position}", const_value=ir.tensor(array))
        value.shape, value.type = ir.Shape(array.shape), ir.TensorType(ir.DataType.INT64)
        model.graph.register_initializer(value)
        node.replace_input_with(position, value)
    first = first_past(layers_of(captured("v2"), model, images(3)), "fp32")
    assert first is not None
    assert (first.path, first.kind) == (f"{BLOCK}.mixer.shifts.1", "SpatialShift")


class _Block(nn.Module):
    def __init__(self, gain: float) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 8), nn.Linear(8, 8)
        with torch.no_grad():
            self.up.weight.mul_(gain)
            self.down.weight.div_(gain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.up(x)))


class _TwoShifts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fc(x)
        spec = ShiftSpec.equal_groups(8, [(1,), (-1,)], axes=(1,), channel_axis=2)
        return shift(torch.relu(shift(x, spec)), spec) * x


def test_shifts_among_other_nodes_have_rows_of_their_own() -> None:
    net = nn.Sequential(_TwoShifts(), nn.Linear(8, 8))
    capture = api.capture(api.from_module(net, torch.randn(2, 4, 8)))
    model = lower_shifts(capture.canonical, find_form("pad-slice"))[0]
    name = capture.analysis.captured.input_names[0]
    feeds = {name: np.random.default_rng(0).standard_normal((3, 4, 8)).astype(np.float32)}
    found = layers_of(capture, model, feeds)
    assert [(layer.path, layer.kind) for layer in found.layers][:4] == [
        ("0.fc", "Linear"),
        ("0/Shift", "shift"),
        ("0/Shift_1", "shift"),
        ("0", "_TwoShifts"),
    ]
    assert first_past(found, "fp32") is None
    # Where the file has fewer, which is which is not guessed.
    fewer = model.clone()
    for node in fewer.graph:
        node.name = str(node.name).replace("0/Shift_1/", "0/Moved/")
    _, unmatched = match_taps(program_of(capture)[0].taps, fewer.graph)
    assert [item.path for item in unmatched] == ["0/Shift", "0/Shift_1"]
    assert "the file has 1 shifts of the module, the program 2" in unmatched[0].reason


class _Residual(nn.Module):
    """The root adds what it moved to what its layer made of it, as many small networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spec = ShiftSpec.equal_groups(8, [(1,), (-1,)], axes=(1,), channel_axis=2)
        x = shift(x, spec)
        return x + self.fc(x)


def test_what_the_root_computes_is_not_taken_for_the_module_beside_it() -> None:
    capture = api.capture(api.from_module(_Residual(), torch.randn(2, 4, 8)))
    model = lower_shifts(capture.canonical, find_form("pad-slice"))[0]
    name = capture.analysis.captured.input_names[0]
    feeds = {name: np.random.default_rng(0).standard_normal((3, 4, 8)).astype(np.float32)}
    found = layers_of(capture, model, feeds)
    assert first_past(found, "fp32") is None
    assert [layer.path for layer in found.layers] == ["/Shift", "fc", "output"]
    assert found.unmatched == ()


class _Folded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.head = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)
        with torch.no_grad():
            self.bn.running_mean += 1
            self.bn.weight *= 3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.bn(self.conv(x))))


def test_a_folded_batch_norm_is_compared_with_what_it_was_folded_into() -> None:
    capture = api.capture(api.from_module(_Folded().eval(), torch.randn(2, 3, 4, 4)))
    model = lower_shifts(capture.canonical, find_form("pad-slice"))[0]
    name = capture.analysis.captured.input_names[0]
    feeds = {name: np.random.default_rng(0).standard_normal((3, 3, 4, 4)).astype(np.float32)}
    found = layers_of(capture, model, feeds)
    assert first_past(found, "fp32") is None
    assert "bn" in [layer.path for layer in found.layers]
    folded = not any(node.op_type == "BatchNormalization" for node in model.graph)
    assert [item.path for item in found.unmatched] == (["conv"] if folded else [])


def test_an_overflow_of_float16_in_one_block_is_found_by_name() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(_Block(1.0), _Block(50_000.0), _Block(1.0))
    capture = api.capture(api.from_module(net, torch.randn(2, 8)))
    model = lower_shifts(capture.canonical, find_form("slice-concat"))[0]
    half = to_half(model, {}).model  # Without measured magnitudes nothing stays in float32.
    name = capture.analysis.captured.input_names[0]
    feeds = {name: 10 * np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)}
    assert first_past(layers_of(capture, model, feeds), "fp32") is None
    first = first_past(layers_of(capture, round_like_half(half), feeds), "fp16")
    assert first is not None
    assert first.path == "1.up"
    assert first.metrics.not_finite


def test_a_wrong_scale_of_one_layer_is_found_by_name(int8: Callable[[], ir.Model]) -> None:
    sound = layers_of(captured("v2"), int8(), images(4))
    assert first_past(sound, "int8") is None
    model = int8()
    name = f"{BLOCK}.mlp.fc1.weight_t.scale"
    scale = model.graph.initializers[name]
    array = array_of(scale)
    scale.const_value = ir.tensor((array * 2).astype(array.dtype), name=name)
    first = first_past(layers_of(captured("v2"), model, images(4)), "int8")
    assert first is not None
    assert first.path == f"{BLOCK}.mlp.fc1"
    assert {layer.path for layer in sound.layers} >= {f"{BLOCK}.mixer.shifts.0", "norm", "logits"}


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], ir.Model]:
    directory = tmp_path_factory.mktemp("layers") / "artifact"
    options = api.PrecisionOptions(precisions=("int8",), data=images(16)["input"], threads=1)
    api.export(captured("v2"), directory, precision=options)
    return lambda: ir.load(directory / "model.int8.onnx")
