"""Shifts in the branches of ``torch.cond``: recognised, lowered, and nothing of the machine left in their graphs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from one_shift import runner
from torch import Tensor, nn

from s2mlp_deploy import api
from s2mlp_deploy.capture.program import Captured, capture
from s2mlp_deploy.export.canonical import to_canonical
from s2mlp_deploy.export.forms import FORMS, ShiftForm
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.export.rewrite import Rewritten, rewrite_shifts
from s2mlp_deploy.export.shift_node import DOMAIN
from s2mlp_deploy.shift.op import shift
from s2mlp_deploy.shift.spec import ShiftSpec

SPEC = ShiftSpec.equal_groups(4, [(1, 0), (0, -1)], axes=(2, 3), channel_axis=1)


class Branching(nn.Module):
    """A shift by the operator in one branch, one in plain code in the other."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(4, 4, 1)

    def own(self, x: Tensor) -> Tensor:
        return shift(self.layer(x), SPEC)

    def written(self, x: Tensor) -> Tensor:
        return torch.roll(x, 1, 2) * 2

    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, self.own, self.written, (x,)) + 1


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(0)
    return Branching().eval()


@pytest.fixture(scope="module")
def found(module: nn.Module) -> tuple[Captured, Rewritten]:
    captured = capture(module, [torch.rand(2, 4, 5, 5)])
    return captured, rewrite_shifts(captured.program)


@pytest.fixture(scope="module")
def canonical(found: tuple[Captured, Rewritten]) -> ir.Model:
    return to_canonical(found[0])


def test_shifts_of_both_branches_are_found_with_their_lines(found: tuple[Captured, Rewritten]) -> None:
    own, written = found[1].shifts
    assert own.spec == SPEC
    assert own.origin.idiom == "s2mlp::shift"
    assert (written.spec.border, written.origin.idiom) == ("circular", "roll")
    for record in (own, written):
        assert record.origin.line.startswith(f"{Path(__file__).name}:")


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_is_written_in_the_branches_and_computes_them(
    module: nn.Module, canonical: ir.Model, form: ShiftForm
) -> None:
    model, records = lower_shifts(canonical, form)
    assert [record.form for record in records] == [form.name] * 2
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    run = runner(model)
    for sign in (1, -1):
        x = sign * torch.rand(3, 4, 5, 5)
        with torch.no_grad():
            np.testing.assert_allclose(run(x.numpy()), module(x).numpy(), rtol=1e-5, atol=1e-6)


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes_of(attribute.g)


def test_nothing_of_the_machine_nor_of_the_package_is_left(canonical: ir.Model) -> None:
    proto = ir.to_proto(lower_shifts(canonical, FORMS["slice-concat"])[0])
    nodes = list(nodes_of(proto.graph))
    assert len(nodes) > len(proto.graph.node)
    assert not [node for node in nodes if node.metadata_props or node.doc_string or node.domain]
    assert [item.domain for item in proto.opset_import] == [""]
    names = [name for node in nodes for name in (node.name, *node.output)]
    assert len(names) == len(set(names))
    for tensor in proto.graph.initializer:
        tensor.ClearField("raw_data")
    text = proto.SerializeToString()
    for trace in (b".py", b'File "', b"pkg.torch", b"site-packages", b"def forward", DOMAIN.encode() + b"::"):
        assert trace not in text


def test_branches_pass_through_the_api(module: nn.Module, tmp_path: Path) -> None:
    x = torch.rand(2, 4, 5, 5)
    result = api.export(api.from_module(module, x), tmp_path / "artifact")
    run = runner(ir.load(result.directory / "model.fp32.onnx"))
    for sign in (1, -1):
        with torch.no_grad():
            np.testing.assert_allclose(run((sign * x).numpy()), module(sign * x).numpy(), rtol=1e-5, atol=1e-6)
