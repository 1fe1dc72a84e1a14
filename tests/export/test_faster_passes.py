"""The passes that make graphs faster: what they rewrite, what they leave, and that numbers stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine
from s2mlp_deploy.export import faster
from s2mlp_deploy.export.passes.gemm_with_bias import GemmWithBias
from s2mlp_deploy.export.passes.split_weights import SplitWeights
from s2mlp_deploy.export.passes.stay_in_rows import StayInRows
from s2mlp_deploy.export.passes.token_sums import TokenSums
from s2mlp_deploy.graph.editing import Editor
from s2mlp_deploy.graph.sums import products_as_sums

FLOAT = ir.DataType.FLOAT
RNG = np.random.default_rng(0)
Sizes = tuple[int | None, ...]


class Net:
    """A chain of operators on one input."""

    def __init__(self, shape: Sizes) -> None:
        sizes = [ir.SymbolicDim(f"free{axis}") if size is None else size for axis, size in enumerate(shape)]
        self.x = ir.Value(name="x", type=ir.TensorType(FLOAT), shape=ir.Shape(sizes))
        graph = ir.Graph([self.x], [], nodes=[ir.Node("", "Identity", [self.x])], opset_imports={"": 20}, name="net")
        start = graph[0].outputs[0]
        start.name, start.type, start.shape = "start", self.x.type, self.x.shape
        self.graph, self.last = graph, start

    def op(self, kind: str, *constants: np.ndarray, shape: Sizes | None = None, on: ir.Value | None = None, **more):
        editor = Editor(self.graph)
        source = self.last if on is None else on
        values = [editor.constant(array, f"c{len(self.graph)}") for array in constants]
        known = source.shape if shape is None else ir.Shape([*(source.shape or ())[:1], *shape])
        after = self.graph[len(self.graph) - 1]
        self.last = editor.node(
            kind, [source, *values], more, name=f"m/{kind}{len(self.graph)}", dtype=FLOAT, shape=known, after=after
        )
        return self.last

    def model(self) -> ir.Model:
        self.graph.outputs.append(self.last)
        return ir.Model(self.graph, ir_version=10)


def noise(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, dtype=np.float32)


def run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    engine = OnnxRuntimeEngine(ir.to_proto(model).SerializeToString(), threads=1, optimize="off")
    (result,) = engine.run({"x": x}).values()
    return result


def ops(model: ir.Model) -> dict[str, int]:
    return dict(Counter(node.op_type for node in model.graph if node.op_type not in ("Identity", "Reshape")))


def changed(model: ir.Model, kind: Callable[[], ir.passes.InPlacePass], x: np.ndarray) -> bool:
    """Runs a pass, which keeps the numbers, and says whether it changed something."""
    before = run(model, x)
    result = kind()(model)
    np.testing.assert_allclose(run(model, x), before, rtol=1e-4, atol=1e-5)
    assert kind()(model).modified is False, "a second run finds something"
    return bool(result.modified)


class TestGemmWithBias:
    @pytest.mark.parametrize("behind", ["Gelu", "Relu"])
    def test_rows(self, behind: str) -> None:
        net = Net((None, 3, 2, 4))
        net.op("MatMul", noise(4, 6), shape=(3, 2, 6))
        net.op("Add", noise(6))
        net.op(behind)
        model = net.model()
        assert changed(model, GemmWithBias, noise(2, 3, 2, 4))
        assert ops(model) == {"Gemm": 1, behind: 1}
        assert [str(node.name).split("/")[0] for node in model.graph if node.op_type == "Gemm"] == ["m"]

    @pytest.mark.parametrize(
        ("shape", "bias"),
        [((None, 4), 6), ((None, None, 4), 6), ((None, 3, 4), 1)],
        ids=["two axes, which the runtime does itself", "two free sizes", "one number for all"],
    )
    def test_what_is_left(self, shape: Sizes, bias: int) -> None:
        net = Net(shape)
        net.op("MatMul", noise(4, 6))
        net.last.shape = ir.Shape([*(net.x.shape or ())[:-1], 6])
        net.op("Add", noise(bias))
        assert not changed(net.model(), GemmWithBias, noise(*(3 for _ in shape[1:]), 4))

    def test_rows_are_seen_once(self) -> None:
        net = Net((None, 3, 4))
        start = net.last
        for _ in range(2):
            net.op("MatMul", noise(4, 6), shape=(3, 6), on=start)
            last = net.op("Add", noise(6))
        model = net.model()
        GemmWithBias()(model)
        assert last is not None
        assert Counter(node.op_type for node in model.graph)["Reshape"] == 3


class TestTokenSums:
    @pytest.mark.parametrize("kind", ["ReduceSum", "ReduceMean"])
    @pytest.mark.parametrize("keepdims", [0, 1])
    def test_there_and_back(self, kind: str, keepdims: int) -> None:
        net = Net((None, 3, 2, 4))
        shape = (1, 1, 4) if keepdims else (4,)
        net.op(kind, np.array([1, 2]), shape=shape, keepdims=keepdims)
        model = net.model()
        x = noise(2, 3, 2, 4)
        assert changed(model, TokenSums, x)
        assert ops(model) == {"MatMul": 1}
        name = next(node.outputs[0].name for node in model.graph if node.op_type == "MatMul")
        back = products_as_sums(model)
        assert ops(back) == {kind: 1}
        assert name in [node.outputs[0].name for node in back.graph]
        np.testing.assert_allclose(run(back, x), run(model, x), rtol=1e-5, atol=1e-5)

    def test_addends_are_summed_one_by_one(self) -> None:
        net = Net((None, 3, 2, 4))
        start, editor = net.last, Editor(net.graph)
        gelu = net.op("Gelu")
        after = net.graph[len(net.graph) - 1]
        net.last = editor.node("Add", [start, gelu], name="m/Add", dtype=FLOAT, shape=start.shape, after=after)
        net.op("ReduceSum", np.array([1, 2]), shape=(4,), keepdims=0)
        model = net.model()
        assert changed(model, TokenSums, noise(2, 3, 2, 4))
        assert ops(model) == {"Gelu": 1, "MatMul": 2, "Add": 1}

    def test_a_sum_of_another_module_stays_its_result(self) -> None:
        net = Net((None, 3, 2, 4))
        start, editor = net.last, Editor(net.graph)
        gelu = net.op("Gelu")
        after = net.graph[len(net.graph) - 1]
        net.last = editor.node("Add", [start, gelu], name="block/Add", dtype=FLOAT, shape=start.shape, after=after)
        net.op("ReduceMean", np.array([1, 2]), shape=(4,), keepdims=0)
        model = net.model()
        assert changed(model, TokenSums, noise(2, 3, 2, 4))
        assert ops(model) == {"Gelu": 1, "MatMul": 1, "Add": 1}

    @pytest.mark.parametrize(("shape", "axes"), [((None, None, 2, 4), (1, 2)), ((None, 3, 2, 4), (2, 3))])
    def test_what_is_left(self, shape: Sizes, axes: tuple[int, int]) -> None:
        net = Net(shape)
        net.op("ReduceSum", np.array(axes), keepdims=1)
        net.last.shape = ir.Shape([size if axis not in axes else 1 for axis, size in enumerate(net.x.shape or ())])
        assert not changed(net.model(), TokenSums, noise(2, 3, 2, 4))

    def test_other_products_stay_products(self) -> None:
        net = Net((None, 3, 4))
        editor, after = Editor(net.graph), net.graph[len(net.graph) - 1]
        row = editor.constant(np.array([[1.0, 1.0, 2.0]], np.float32), "row")
        shape = ir.Shape([*(net.x.shape or ())[:1], 1, 4])
        net.last = editor.node("MatMul", [row, net.last], name="m/MatMul", dtype=FLOAT, shape=shape, after=after)
        assert ops(products_as_sums(net.model())) == {"MatMul": 1}


class TestStayInRows:
    def residual(self) -> ir.Model:
        """Norm, product, activation, product, a scale, the sum with what came in, and another such norm and product."""
        net = Net((None, 3, 2, 4))
        start = net.last
        net.op("LayerNormalization", noise(4), noise(4), axis=3)
        net.op("MatMul", noise(4, 6), shape=(3, 2, 6))
        net.op("Add", noise(6))
        net.op("Gelu")
        net.op("MatMul", noise(6, 4), shape=(3, 2, 4))
        net.op("Add", noise(4))
        net.op("Mul", noise(4))
        product = net.op("Add", np.array(2.0, np.float32))
        after = net.graph[len(net.graph) - 1]
        net.last = Editor(net.graph).node(
            "Add", [start, product], name="b/Add", dtype=FLOAT, shape=start.shape, after=after
        )
        net.op("LayerNormalization", noise(4), noise(4), axis=-1)
        net.op("MatMul", noise(4, 5), shape=(3, 2, 5))
        net.op("Add", noise(5))
        return net.model()

    def test_only_the_ends_are_reshaped(self) -> None:
        model = self.residual()
        GemmWithBias()(model)
        counts = [Counter(node.op_type for node in model.graph)["Reshape"]]
        assert changed(model, StayInRows, noise(2, 3, 2, 4))
        counts.append(Counter(node.op_type for node in model.graph)["Reshape"])
        assert counts == [6, 3]
        assert list(model.graph.outputs[0].shape or ())[1:] == [3, 2, 5]

    def test_an_output_in_the_middle_keeps_its_axes(self) -> None:
        model = self.residual()
        GemmWithBias()(model)
        middle = next(node for node in model.graph if node.name == "b/Add").outputs[0]
        model.graph.outputs.append(middle)
        name = middle.name
        x = noise(2, 3, 2, 4)
        engine = OnnxRuntimeEngine(ir.to_proto(model).SerializeToString(), threads=1, optimize="off")
        before = engine.run({"x": x})
        StayInRows()(model)
        engine = OnnxRuntimeEngine(ir.to_proto(model).SerializeToString(), threads=1, optimize="off")
        after = engine.run({"x": x})
        assert list(after) == list(before)
        assert name in after
        for key, value in after.items():
            np.testing.assert_array_equal(value, before[key])


def _split(net: Net, axis: int, *widths: int) -> list[ir.Value]:
    """The parts of the last value along an axis."""
    whole, shapes = net.last, []
    for width in widths:
        shape = list(whole.shape or ())
        shape[axis] = width
        shapes.append(ir.Shape(shape))
    parts = [ir.Value(name=f"part{i}", type=whole.type, shape=shape) for i, shape in enumerate(shapes)]
    sizes = Editor(net.graph).constant(np.array(widths, np.int64), "widths")
    net.graph.append(ir.Node("", "Split", [whole, sizes], [ir.AttrInt64("axis", axis)], outputs=parts, name="m/Split"))
    return parts


@pytest.mark.parametrize("layer", ["MatMul", "MatMul and bias", "Conv"])
def test_products_that_are_split_become_one_for_each_part(layer: str) -> None:
    net = Net((2, 4, 4, 8) if layer != "Conv" else (2, 8, 4, 4))
    if layer == "Conv":
        net.op("Conv", noise(128, 8, 1, 1), noise(128), shape=(128, 4, 4))
    else:
        net.op("MatMul", noise(8, 128), shape=(4, 4, 128))
    if layer == "MatMul and bias":
        net.op("Add", noise(128))
    first, second = _split(net, 1 if layer == "Conv" else -1, 64, 64)
    net.op("Sub", on=first)
    net.graph[-1].resize_inputs(2)
    net.graph[-1].replace_input_with(1, second)
    model, x = net.model(), noise(2, *(int(size) for size in net.x.shape[1:]))
    before = run(model, x)
    assert SplitWeights()(model).modified
    np.testing.assert_allclose(run(model, x), before, rtol=1e-5, atol=1e-5)
    counts = Counter(node.op_type for node in model.graph)
    assert counts["Split"] == 0
    assert counts[layer.split()[0]] == 2
    constants = [name for name in model.graph.initializers if ".part" in name]
    assert len(constants) == (2 if layer == "MatMul" else 4)
    assert not SplitWeights()(model).modified


@pytest.mark.parametrize("case", ["unequal", "narrow", "read twice", "along tokens"])
def test_other_splits_stay(case: str) -> None:
    net = Net((2, 64, 8))
    whole = net.op("MatMul", noise(8, 64 if case == "narrow" else 192), shape=(64, 64 if case == "narrow" else 192))
    axis = 1 if case == "along tokens" else -1
    widths = {"unequal": (64, 128), "narrow": (32, 32), "along tokens": (32, 32)}.get(case, (64, 64, 64))
    parts = _split(net, axis, *widths)
    if case == "read twice":
        net.op("Relu", on=whole)
        net.graph.outputs.append(net.last)
    net.last = parts[0]
    assert not SplitWeights()(net.model()).modified


def test_a_measurement_may_leave_all_of_them_out(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net((None, 3, 2, 4))
    net.op("MatMul", noise(4, 6), shape=(3, 2, 6))
    net.op("Add", noise(6))
    model = net.model()
    before = ops(model)
    with monkeypatch.context() as patched:
        patched.setattr(faster, "FASTER", ())
        assert faster.make_faster(model) is False
    assert ops(model) == before
    assert faster.make_faster(model) is True
    assert ops(model) == {"Gemm": 1}
