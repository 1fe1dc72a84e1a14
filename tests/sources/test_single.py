"""Modules of other precisions than float32: copied, said, and refused where that is no way."""

from __future__ import annotations

import copy
import logging

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from s2mlp_deploy import api
from s2mlp_deploy.errors import ExportError, SourceError
from s2mlp_deploy.sources.module import source_of_module
from s2mlp_deploy.sources.single import in_single_precision


class Scaled(nn.Module):
    """A convolution, a buffer beside it, and whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.register_buffer("scale", torch.linspace(0.5, 2, 4)[:, None, None])
        self.register_buffer("order", torch.tensor([2, 0, 1, 3]))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)[:, self.order] * self.scale


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_copy_in_float32_is_exported(dtype: torch.dtype, tmp_path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(3)
    module = Scaled().to(dtype).eval()
    before, x = state(module), torch.randn(2, 3, 5, 5).to(dtype)
    with caplog.at_level(logging.WARNING):
        source = api.from_module(module, x)
    name = str(dtype).removeprefix("torch.")
    note = f"weights of {name} and inputs of {name} are float32 in the export"
    assert note in caplog.text
    written = api.export(source, tmp_path / "out")
    assert note in written.manifest.notes
    assert [info.dtype for info in (*written.manifest.inputs, *written.manifest.outputs)] == ["float32", "float32"]
    after = state(module)
    assert all(torch.equal(after[key], before[key]) and after[key].dtype == before[key].dtype for key in before)
    session = ort.InferenceSession(str(written.file()), providers=["CPUExecutionProvider"])
    feeds = {session.get_inputs()[0].name: x.float().numpy()}
    with torch.no_grad():
        expected = copy.deepcopy(module).float()(x.float()).numpy()
    np.testing.assert_allclose(session.run(None, feeds)[0], expected, rtol=1e-5, atol=1e-6)
    (report,) = api.parity(source, [written.file()])
    assert report.passed


def test_a_float32_module_is_itself() -> None:
    module, x = Scaled(), torch.zeros(1, 3, 2, 2)
    found, inputs, notes = in_single_precision(module, (x,), where="here")
    assert found is module
    assert inputs[0] is x
    assert notes == ()


def test_what_is_smaller_or_whole_on_purpose_stays() -> None:
    module = Scaled()
    module.scale = module.scale.half()
    inputs = {"x": torch.zeros(1, 3, 2, 2), "k": torch.arange(3), "mask": torch.ones(2, dtype=torch.bool)}
    found, same, notes = in_single_precision(module, inputs, where="here")
    assert found is module
    assert {key: tensor.dtype for key, tensor in same.items()} == {key: t.dtype for key, t in inputs.items()}
    assert notes == ()


def test_parts_that_a_module_casts_to_itself_stay() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).half())
    found, _, notes = in_single_precision(module, torch.zeros(1, 2), where="here")
    assert found is module
    assert notes == ()


def test_a_table_of_doubles_is_cast_alone() -> None:
    module = Scaled()
    module.scale = module.scale.double()
    found, _, notes = in_single_precision(module, torch.zeros(1, 3, 2, 2), where="here")
    assert found is not module
    assert module.scale.dtype == torch.float64
    assert {tensor.dtype for tensor in found.buffers()} == {torch.float32, torch.int64}
    assert notes == ("weights of float64 are float32 in the export",)


def test_inputs_alone() -> None:
    module = Scaled()
    found, inputs, notes = in_single_precision(module, [torch.zeros(2).half(), torch.zeros(2).double()], where="here")
    assert found is module
    assert {tensor.dtype for tensor in inputs} == {torch.float32}
    assert notes == ("inputs of float16 and float64 are float32 in the export",)


def test_a_checkpoint_keeps_the_digits_that_the_module_cannot_hold(tmp_path) -> None:
    weights = {name: tensor / 3 if tensor.is_floating_point() else tensor for name, tensor in state(Scaled()).items()}
    torch.save(weights, tmp_path / "weights.pt")
    source = source_of_module(Scaled().half(), torch.zeros(2, 3, 4, 4), checkpoint=tmp_path / "weights.pt")
    assert isinstance(source.module, nn.Module)
    assert torch.equal(source.module.state_dict()["conv.weight"], weights["conv.weight"])


def test_complex_inputs_are_refused() -> None:
    with pytest.raises(SourceError, match="complex") as caught:
        in_single_precision(Scaled(), torch.zeros(2, dtype=torch.complex64), where="here")
    assert "view_as_real" in str(caught.value)


def test_a_module_that_cannot_be_copied_says_what_to_do() -> None:
    class Held:
        def __deepcopy__(self, memo: object) -> None:
            raise TypeError("an open device")

    module = Scaled().double()
    module.held = Held()
    with pytest.raises(SourceError, match="cannot be copied to float32") as caught:
        in_single_precision(module, torch.zeros(1), where="here")
    assert "module.float()" in str(caught.value)


def test_a_program_of_doubles_is_refused(tmp_path) -> None:
    program = torch.export.export(nn.Linear(2, 2).double(), (torch.zeros(3, 2, dtype=torch.float64),))
    torch.export.save(program, tmp_path / "double.pt2")
    with pytest.raises(SourceError, match="another precision than float32") as caught:
        api.load(str(tmp_path / "double.pt2"))
    assert "model.float()" in str(caught.value)


class Autocast(Scaled):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.conv(x)


class Explicit(Scaled):
    def forward(self, x: Tensor) -> Tensor:
        return (self.conv(x).bfloat16() * 3).float()


@pytest.mark.parametrize(("kind", "told"), [(Autocast, "torch.autocast"), (Explicit, "test_single.py:")])
def test_bfloat16_inside_forward_is_refused(kind: type[Scaled], told: str) -> None:
    with pytest.raises(ExportError, match="computes in bfloat16") as caught:
        api.capture(api.from_module(kind().eval(), torch.randn(2, 3, 4, 4)))
    assert told in str(caught.value)


def test_float16_inside_forward_is_as_written() -> None:
    class Halved(Scaled):
        def forward(self, x: Tensor) -> Tensor:
            return (self.conv(x).half() * 3).float()

    model = api.capture(api.from_module(Halved().eval(), torch.randn(2, 3, 4, 4))).canonical
    assert ir.DataType.FLOAT16 in {value.dtype for node in model.graph for value in node.outputs}
    assert model.graph.outputs[0].dtype == ir.DataType.FLOAT
