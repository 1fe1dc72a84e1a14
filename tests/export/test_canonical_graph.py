"""The canonical graph of a whole network: names, provenance, opsets, determinism, and that it computes the network."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from one_shift import Exported, captured, lively, runner, serialized
from torch import Tensor, nn

from s2mlp_deploy.errors import ExportError
from s2mlp_deploy.export.canonical import to_canonical
from s2mlp_deploy.export.forms import FORMS, ShiftForm
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.export.shift_node import DOMAIN, spec_of
from s2mlp_deploy.export.write import save_model, tensor_infos
from s2mlp_deploy.graph.operators import is_sum_as_product
from s2mlp_deploy.graph.opsets import DEFAULT_OPSET, MAX_OPSET, MIN_OPSET, check_opset
from s2mlp_deploy.models.layers import SpatialShift
from s2mlp_deploy.models.registry import create_model
from s2mlp_deploy.shift.op import shift
from s2mlp_deploy.shift.spec import BORDERS, ShiftSpec

ALL_FORMS = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
TINY = {"dims": [8], "depths": [1], "patches": [2], "image_size": 8, "classes": 3}


def export(module: nn.Module, *size: int, opset: int = DEFAULT_OPSET, dynamic: Sequence[str] = ("batch",)) -> ir.Model:
    return to_canonical(captured(module, *size, dynamic=dynamic), opset=opset)


def assert_computes(model: ir.Model, module: nn.Module, *sizes: tuple[int, ...]) -> None:
    run = runner(model)
    for size in sizes:
        x = torch.randn(size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = module(x).numpy()
        np.testing.assert_allclose(run(x.numpy()), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


class Shifting(nn.Module):
    """The smallest module with a shift inside."""

    def __init__(self, border: str = "keep") -> None:
        super().__init__()
        offsets = [(1, 0), (-1, 0), (0, 1), (0, -2)]
        spec = ShiftSpec.equal_groups(8, offsets, axes=(2, 3), channel_axis=1, border=border)  # type: ignore[arg-type]
        self.first = nn.Conv2d(3, 8, 1)
        self.move = SpatialShift(spec)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.move(self.first(x)))


class TestNames:
    def test_nodes_are_named_after_the_modules_they_come_from(self, nano: Exported) -> None:
        paths = {name for name, _ in nano.module.named_modules()}
        for node in nano.canonical.graph:
            path, _, operator = str(node.name).rpartition("/")
            assert path in paths
            assert operator.split("_")[0] == node.op_type

    @ALL_FORMS
    def test_nodes_of_a_form_are_named_after_its_shift(self, nano: Exported, form: ShiftForm) -> None:
        shifts = {str(node.name) for node in nano.canonical.graph if node.domain == DOMAIN}
        others = {str(node.name) for node in nano.canonical.graph} - shifts
        model, _ = lower_shifts(nano.canonical, form)
        new = [str(node.name) for node in model.graph if node.name not in others]
        assert {name.rpartition("/")[0] for name in new} == shifts
        assert len(others) + len(new) == len(model.graph)

    @ALL_FORMS
    def test_are_unique(self, nano: Exported, form: ShiftForm) -> None:
        graph = lower_shifts(nano.canonical, form)[0].graph
        names = [node.name for node in graph]
        values = [value.name for value in (*graph.inputs, *graph.initializers.values())]
        values += [value.name for node in graph for value in node.outputs]
        assert all(names)
        assert all(values)
        assert [name for name, count in Counter(names).items() if count > 1] == []
        assert [name for name, count in Counter(values).items() if count > 1] == []
        # Runtimes warn of constants that nothing reads.
        assert [name for name, value in graph.initializers.items() if not value.uses()] == []

    def test_matrix_products_are_where_their_layers_are(self, nano: Exported) -> None:
        layers = {name for name, m in nano.module.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
        products = [node for node in nano.canonical.graph if node.op_type in ("MatMul", "Gemm", "Conv")]
        products = [node for node in products if not is_sum_as_product(node)]
        assert {str(node.name).rpartition("/")[0] for node in products} == layers
        assert len(products) == len(layers)

    def test_weights_have_the_state_dicts_names(self, nano: Exported) -> None:
        graph = nano.canonical.graph
        for name, tensor in nano.module.state_dict().items():
            if name in graph.initializers:
                assert graph.initializers[name].const_value is not None
                np.testing.assert_array_equal(graph.initializers[name].const_value.numpy(), tensor.numpy())
            else:
                turned = graph.initializers[f"{name}_t"].const_value
                assert turned is not None
                np.testing.assert_array_equal(turned.numpy(), tensor.numpy().T)

    def test_shifts_carry_the_modules_specs(self, nano: Exported) -> None:
        own = {
            name: module.spec
            for name, module in nano.module.named_modules()
            if isinstance(module, SpatialShift) and module.spec is not None
        }
        nodes = [node for node in nano.canonical.graph if node.domain == DOMAIN]
        assert {str(node.name).rpartition("/")[0]: spec_of(node) for node in nodes} == own
        assert len(nodes) == len(own) == 6


class TestProvenance:
    @ALL_FORMS
    def test_nothing_speaks_of_the_machine(self, nano: Exported, form: ShiftForm) -> None:
        proto = ir.to_proto(lower_shifts(nano.canonical, form)[0])
        for tensor in proto.graph.initializer:
            # Among millions of random bytes any three letters turn up.
            tensor.ClearField("raw_data")
        data = proto.SerializeToString()
        assert b"stages.0.blocks.0" in data
        root = Path(__file__).resolve().parents[2]
        installed, temporary = Path(torch.__file__).parents[1], Path(tempfile.gettempdir())
        for folder in (root, Path.home(), Path.cwd(), Path(sys.prefix), installed, temporary):
            assert len(folder.parts) == 1 or str(folder).encode() not in data
        for trace in (b".py", b"site-packages", b"Traceback", b'File "', b"line ", b"pkg.torch", b"def forward"):
            assert trace not in data

    def test_no_metadata_of_the_exporter_is_left(self, nano: Exported) -> None:
        proto = ir.to_proto(lower_shifts(nano.canonical, FORMS["slice-concat"])[0])
        assert not proto.metadata_props
        assert not proto.graph.metadata_props
        assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)
        assert not any(v.metadata_props or v.doc_string for v in (*proto.graph.value_info, *proto.graph.input))
        assert (proto.producer_name, proto.graph.name) == ("s2mlp-deploy", "s2mlp_deploy")
        assert not proto.functions


class TestInterface:
    @ALL_FORMS
    def test_the_batch_is_dynamic_and_called_so(self, nano: Exported, form: ShiftForm) -> None:
        graph = lower_shifts(nano.canonical, form)[0].graph
        (x,), (y,) = tensor_infos(graph.inputs), tensor_infos(graph.outputs)
        assert (x.name, x.dtype, x.shape) == ("input", "float32", ("batch", 3, 32, 32))
        assert (y.name, y.dtype, y.shape) == ("logits", "float32", ("batch", 10))

    def test_no_symbol_of_torch_is_left(self, nano: Exported) -> None:
        for node in nano.canonical.graph:
            for value in node.outputs:
                names = {size.value for size in value.shape or () if isinstance(size, ir.SymbolicDim)}
                # A tensor in rows has so many times the batch.
                assert {str(name).rpartition("*")[2] for name in names} <= {"batch"}, value.name

    @ALL_FORMS
    def test_passes_the_full_checker_and_computes_the_network(self, nano: Exported, form: ShiftForm) -> None:
        model, records = lower_shifts(nano.canonical, form)
        onnx.checker.check_model(ir.to_proto(model), full_check=True)
        assert len(records) == 6
        assert not {"ScatterND", "ScatterElements"} & {node.op_type for node in model.graph}
        assert_computes(model, nano.module, (1, 3, 32, 32), (5, 3, 32, 32))

    def test_forms_agree_with_each_other(self, nano: Exported) -> None:
        x = np.random.default_rng(1).standard_normal((2, 3, 32, 32)).astype(np.float32)
        results = [runner(lower_shifts(nano.canonical, form)[0])(x) for form in FORMS.values()]
        for result in results[1:]:
            np.testing.assert_allclose(result, results[0], rtol=1e-5, atol=1e-5 * np.abs(results[0]).max())

    def test_lowering_two_forms_leaves_the_canonical_graph(self, nano: Exported) -> None:
        before = serialized(nano.canonical)
        first = serialized(lower_shifts(nano.canonical, FORMS["slice-concat"])[0])
        second = serialized(lower_shifts(nano.canonical, FORMS["grouped-conv"])[0])
        assert first != second
        assert serialized(nano.canonical) == before
        assert serialized(lower_shifts(nano.canonical, FORMS["slice-concat"])[0]) == first

    @pytest.mark.parametrize("layout", ["channels-first", "channels-last"])
    def test_v1_in_both_layouts(self, layout: str) -> None:
        overrides = {"dims": [8], "depths": [1], "patches": [4], "image_size": 16, "classes": 3, "layout": layout}
        module = lively(create_model("s2mlp_wide", **overrides))
        canonical = export(module, 2, 3, 16, 16)
        for form in FORMS.values():
            model, _ = lower_shifts(canonical, form)
            assert_computes(model, module, (1, 3, 16, 16), (3, 3, 16, 16))
            transposes = sum(node.op_type == "Transpose" for node in model.graph)
            # One after the patch embedding of channels-last layers, and those around a convolution or rows.
            own = {"grouped-conv": (0, 2), "row-gather": (2, 6)}.get(form.name, (0, 0))
            assert transposes == (own[0] if layout == "channels-first" else 1 + own[1])


class TestDynamicImages:
    @pytest.mark.parametrize("border", BORDERS)
    def test_batch_height_and_width_may_change(self, border: str) -> None:
        module = lively(Shifting(border))
        canonical = export(module, 2, 3, 4, 5, dynamic=("batch", "height", "width"))
        graph = canonical.graph
        assert [info.shape for info in tensor_infos(graph.inputs)] == [("batch", 3, "height", "width")]
        assert [info.shape for info in tensor_infos(graph.outputs)] == [("batch", 2, "height", "width")]
        for form in FORMS.values():
            model, _ = lower_shifts(canonical, form)
            onnx.checker.check_model(ir.to_proto(model), full_check=True)
            assert_computes(model, module, (2, 3, 4, 5), (1, 3, 1, 1), (1, 3, 2, 1), (3, 3, 7, 3))


class TestOpset:
    @pytest.mark.parametrize("opset", [MIN_OPSET, DEFAULT_OPSET, MAX_OPSET])
    def test_is_written_as_asked(self, opset: int) -> None:
        module = lively(Shifting("circular"))
        canonical = export(module, 2, 3, 4, 5, opset=opset)
        for form in FORMS.values():
            model, _ = lower_shifts(canonical, form)
            proto = ir.to_proto(model)
            onnx.checker.check_model(proto, full_check=True)
            assert [(item.domain, item.version) for item in proto.opset_import] == [("", opset)]
            assert_computes(model, module, (3, 3, 4, 5))

    @pytest.mark.slow
    @pytest.mark.parametrize("opset", range(MIN_OPSET, MAX_OPSET + 1))
    def test_of_a_network_is_written_as_asked(self, nano: Exported, opset: int) -> None:
        canonical = to_canonical(nano.captured, opset=opset)
        for form in FORMS.values():
            model, _ = lower_shifts(canonical, form)
            proto = ir.to_proto(model)
            onnx.checker.check_model(proto, full_check=True)
            assert [(item.domain, item.version) for item in proto.opset_import] == [("", opset)]
            assert_computes(model, nano.module, (3, 3, 32, 32))

    @pytest.mark.parametrize("opset", [-1, 17, 26])
    def test_out_of_range_is_refused_with_the_range(self, nano: Exported, opset: int) -> None:
        for refuse in (lambda: check_opset(opset), lambda: to_canonical(nano.captured, opset=opset)):
            with pytest.raises(ExportError, match=f"opset {opset} cannot be written") as raised:
                refuse()
            assert raised.value.fix == "choose 18 to 25; the default is 20"


class TestRefusals:
    def test_an_operation_without_translation_is_named(self) -> None:
        with torch.library._scoped_library("s2mlp_tests", "FRAGMENT") as library:
            library.define("mystery(Tensor x) -> Tensor")
            library.impl("mystery", lambda x: x + 1, "CompositeExplicitAutograd")

            class Mysterious(nn.Module):
                def forward(self, x: Tensor) -> Tensor:
                    return torch.ops.s2mlp_tests.mystery(x)

            program = captured(Mysterious(), 2, 3, dynamic=())
            with pytest.raises(ExportError, match="no translation to ONNX") as raised:
                to_canonical(program)
        assert "mystery" in raised.value.problem
        assert raised.value.fix

    @pytest.mark.parametrize(
        ("message", "says", "place"),
        [
            ("Error when translating node %relu : [num_users=1] = call_function", "fails on aten.relu.default", "relu"),
            ("Value with name 'x' already exists", "fails on the whole program: ValueError: no such size", None),
        ],
    )
    def test_failures_of_the_exporter_are_told_by_their_cause(
        self, monkeypatch: pytest.MonkeyPatch, message: str, says: str, place: str | None
    ) -> None:
        class Simple(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x.relu()

        program = captured(Simple(), 2, 3)

        def failing(*_: object, **__: object) -> None:
            raise RuntimeError(message) from ValueError("no such size\nsecond line")

        monkeypatch.setattr(torch.onnx, "export", failing)
        with pytest.raises(ExportError) as raised:
            to_canonical(program)
        assert says in raised.value.problem
        assert "no such size" in raised.value.problem
        assert "second line" not in raised.value.problem
        assert raised.value.fix
        assert (raised.value.where is None) == (place is None)
        assert place is None or "return x.relu()" in str(raised.value.where)

    def test_a_graph_that_is_not_onnx_is_not_saved_quietly(self, tmp_path: Path) -> None:
        x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1]))
        node = ir.Node("", "NoSuchOperator", [x], name="n")
        node.outputs[0].name = "y"
        graph = ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 20}, name="g")
        with pytest.raises(ExportError, match="not valid ONNX"):
            save_model(ir.Model(graph, ir_version=10), tmp_path / "bad.onnx")


PROGRAM = """
import hashlib, sys
import torch
from s2mlp_deploy.export.canonical import to_canonical
from s2mlp_deploy.capture.program import capture
from s2mlp_deploy.export.forms import FORMS
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.export.write import save_model
from s2mlp_deploy.models.registry import create_model
from pathlib import Path

captured = capture(create_model("s2mlpv2_nano"), [torch.zeros(2, 3, 32, 32)], output_names=["logits"])
canonical = to_canonical(captured)
for form in FORMS.values():
    path = Path(sys.argv[1], form.name)
    save_model(lower_shifts(canonical, form)[0], path)
    print(form.name, hashlib.sha256(path.read_bytes()).hexdigest())
"""


class TestSameBytes:
    def test_when_exported_twice(self) -> None:
        module = lively(create_model("s2mlpv2_nano", **TINY))
        one, two = export(module, 2, 3, 8, 8), export(module, 2, 3, 8, 8)
        for form in FORMS.values():
            first, second = (serialized(lower_shifts(canonical, form)[0]) for canonical in (one, two))
            assert hashlib.sha256(first).hexdigest() == hashlib.sha256(second).hexdigest()

    @pytest.mark.slow
    def test_in_processes_with_other_hash_seeds(self, tmp_path: Path) -> None:
        root = Path(__file__).resolve().parents[2]
        printed = []
        for seed in ("0", "12345"):
            environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM, str(tmp_path)],
                capture_output=True,
                text=True,
                check=False,
                env=environment,
                timeout=280,
            )
            assert done.returncode == 0, done.stderr
            printed.append(done.stdout)
        assert len(printed[0].split("\n")) == len(FORMS) + 1
        assert printed[0] == printed[1]


def test_a_shift_in_the_root_module_is_exported() -> None:
    spec = ShiftSpec.equal_groups(4, [(1, 0), (0, -1)], axes=(1, 2), channel_axis=3)

    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return shift(x, spec)

    canonical = export(Root(), 2, 3, 5, 4)
    (node,) = canonical.graph
    assert (node.op_type, node.domain) == ("Shift", DOMAIN)
    assert spec_of(node) == spec
    for form in FORMS.values():
        model, (record,) = lower_shifts(canonical, form)
        assert record.origin.module == ""
        assert_computes(model, Root(), (1, 3, 5, 4), (4, 3, 5, 4))
