"""Attention of any rank and mask, rolls by steps that sizes decide, and logarithms of sums, as torch computes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2mlp_deploy.capture.program import capture
from s2mlp_deploy.export.analysis import analyze
from s2mlp_deploy.export.canonical import to_canonical
from s2mlp_deploy.export.decompositions import attention
from s2mlp_deploy.export.forms import FORMS
from s2mlp_deploy.export.lower import lower_shifts

INF = float("inf")


def masks() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    seen = torch.rand(5, 7, generator=generator) > 0.4
    seen[3] = False
    added = torch.randn(5, 7, generator=generator).masked_fill(~seen, -INF)
    return {
        "boolean": seen,
        "added": added,
        "of one sample": torch.stack([torch.zeros(5, 7, dtype=torch.bool), seen])[:, None],
        "of one target": seen[3:4],
        "without an infinity": torch.randn(5, 7, generator=generator),
    }


def tensors(*outer: int, keys: tuple[int, ...] | None = None) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inner = outer if keys is None else keys
    return (
        torch.randn(*outer, 5, 8, generator=generator),
        torch.randn(*inner, 7, 8, generator=generator),
        torch.randn(*inner, 7, 6, generator=generator),
    )


OPTIONS: list[tuple[tuple[int, ...], tuple[int, ...] | None, dict[str, Any]]] = [
    *[((2, 3), None, {"attn_mask": mask}) for mask in masks().values()],
    ((2,), None, {"attn_mask": masks()["boolean"]}),
    ((2,), None, {"attn_mask": masks()["added"]}),
    ((2,), None, {}),
    ((), None, {}),
    ((2, 3), None, {"is_causal": True}),
    ((2, 3), None, {"scale": 0.3}),
    ((2, 4), (2, 2), {"enable_gqa": True}),
    ((2, 4), (2, 2), {"enable_gqa": True, "is_causal": True, "scale": 2.0}),
]


@pytest.mark.parametrize("option", range(len(OPTIONS)))
def test_is_what_torch_computes(option: int) -> None:
    outer, keys, options = OPTIONS[option]
    given = tensors(*outer, keys=keys)
    expected = F.scaled_dot_product_attention(*given, **options)
    torch.testing.assert_close(attention(*given, **options), expected, rtol=1e-5, atol=1e-6)
    assert expected.isfinite().all()


class Attends(nn.Module):
    """Attention with all of the options, a mask given as an input too."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        fixed = [
            F.scaled_dot_product_attention(query, key, value, **options)
            for outer, keys, options in OPTIONS
            if outer == (2, 3) and keys is None
        ]
        flat = F.scaled_dot_product_attention(query[:, 0], key[:, 0], value[:, 0], attn_mask=mask[:, 0])
        return (*fixed, flat, F.scaled_dot_product_attention(query, key, value, attn_mask=mask))


@pytest.mark.parametrize("kind", ["boolean", "added"])
def test_is_exported_as_that(kind: str) -> None:
    mask = masks()[kind].expand(2, 1, 5, 7).clone()
    given = (*tensors(2, 3), mask)
    model = to_canonical(capture(Attends().eval(), given))
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {item.name: tensor.numpy() for item, tensor in zip(session.get_inputs(), given, strict=True)}
    for found, wanted in zip(session.run(None, feeds), Attends()(*given), strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-6)


def test_a_constant_mask_that_hides_no_row_costs_nothing() -> None:
    class Masked(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.register_buffer("mask", torch.full((size, size), -INF).triu(1))

        def forward(self, x: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(x, x, x, attn_mask=self.mask)

    # More elements than the exporter's optimizer folds.
    model = to_canonical(capture(Masked(100).eval(), (torch.randn(2, 3, 100, 4),)))
    kinds = [node.op_type for node in model.graph]
    assert kinds == ["Mul", "Transpose", "MatMul", "Add", "Softmax", "MatMul"]


class Rolled(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        h, w = x.shape[2:]
        return (
            torch.roll(x, w // 2, 3),
            torch.roll(x, (h // 3, -(w // 2) - 1), (2, -1)),
            torch.roll(x, h + 1),
            torch.fft.fftshift(x, (2, 3)),
            torch.fft.ifftshift(x),
            torch.roll(x, torch.tensor(w) // 2, 3),
        )


def test_rolls_by_parts_of_free_sizes() -> None:
    x = torch.arange(2 * 3 * 8 * 10.0).reshape(2, 3, 8, 10)
    known = analyze(Rolled().eval(), (x,), dynamic=("batch", "height", "width"))
    model, _ = lower_shifts(to_canonical(known.captured), FORMS["slice-concat"])
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    for shape in ((2, 3, 8, 10), (1, 3, 7, 5), (3, 3, 12, 13)):
        other = torch.randn(shape)
        for found, wanted in zip(session.run(None, {"x": other.numpy()}), Rolled()(other), strict=True):
            np.testing.assert_array_equal(found, wanted.numpy())


WRITES: dict[str, Callable[[Tensor, Tensor], None]] = {
    "every other row": lambda y, x: y[:, :, ::2].copy_(x[:, :, 1::2]),
    "every third column from the second on": lambda y, x: y[..., 1::3].copy_(x[..., ::3]),
    "channels in steps, up to the last but one": lambda y, x: y[:, 1:-1:2].copy_(x[:, :2] * 3),
    "a square in steps": lambda y, x: y[:, :, ::2, 1::2].copy_(x[:, :, 1::2, :-1:2]),
    "rows": lambda y, x: y[:, :, 2:5].copy_(x[:, :, 1:4] + 1),
    "the last rows": lambda y, x: y[:, :, -3:].copy_(x[:, :, :3] + 1),
    "one row": lambda y, x: y[:, :, -2].copy_(x[:, :, 0] + 1),
    "all": lambda y, x: y[:].copy_(x + 1),
    "nothing": lambda y, x: y[:, :, 3:3].copy_(x[:, :, :0]),
}


class Written(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        results = []
        for write in WRITES.values():
            results.append(torch.sin(x))
            write(results[-1], x)
        return tuple(results)


def test_writes_into_constant_places_scatter_nothing() -> None:
    x = torch.randn(2, 6, 8, 9)
    model = to_canonical(analyze(Written().eval(), (x,)).captured)
    assert not [node.op_type for node in model.graph if "Scatter" in node.op_type or node.op_type == "Range"]
    session = ort.InferenceSession(
        ir.to_proto(lower_shifts(model, FORMS["gather"])[0]).SerializeToString(),
        providers=["CPUExecutionProvider"],
    )
    other = torch.randn(3, 6, 8, 9)
    for name, found, wanted in zip(WRITES, session.run(None, {"x": other.numpy()}), Written()(other), strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-5, atol=1e-6, err_msg=name)


def test_writes_into_places_that_a_free_size_decides_are_right_too() -> None:
    class Half(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = torch.sin(x)
            y[:, :, ::2] = x[:, :, ::2] * 2
            y[:, :, : x.shape[2] // 2] = 0.0
            return y

    known = analyze(Half().eval(), (torch.randn(2, 3, 8, 4),), dynamic=("batch", "height"))
    session = ort.InferenceSession(
        ir.to_proto(to_canonical(known.captured)).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    other = torch.randn(1, 3, 11, 4)
    found = session.run(None, {"x": other.numpy()})[0]
    np.testing.assert_allclose(found, Half()(other).numpy(), rtol=1e-5, atol=1e-6)


SPLITS: dict[str, tuple[Callable[[Tensor], Any], tuple[int, ...]]] = {
    "halves of the batch": (lambda x: x.chunk(2, 0), (0,)),
    "thirds of the height": (lambda x: x.chunk(3, dim=2), (0, 2)),
    "pieces as long as half of the height": (lambda x: torch.split(x, (x.shape[2] + 1) // 2, 2), (2,)),
    "one piece alone": (lambda x: x.chunk(2, 2)[1:], (0, 2)),
}


@pytest.mark.parametrize("name", SPLITS)
def test_pieces_of_a_length_that_sizes_decide_are_slices(name: str) -> None:
    # torch's exporter writes a sequence of tensors, and onnxscript's folding fails on it.
    split, axes = SPLITS[name]

    class Weighs(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([piece * (number + 1) for number, piece in enumerate(split(x))], axes[-1])

    dynamic = [axis for axis, index in (("batch", 0), ("height", 2)) if index in axes]
    known = analyze(Weighs().eval(), (torch.randn(4, 3, 12, 5),), dynamic=dynamic)  # type: ignore[arg-type]
    model = to_canonical(known.captured)
    assert "SplitToSequence" not in {node.op_type for node in model.graph}
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    for shape in ((4, 3, 12, 5), (5, 3, 14 if 2 in axes else 12, 5), (8, 3, 15 if 2 in axes else 12, 5)):
        other = torch.randn(4 if 0 not in axes else shape[0], *shape[1:])
        np.testing.assert_array_equal(session.run(None, {"x": other.numpy()})[0], Weighs()(other).numpy())


def test_logarithms_of_exponentials_do_not_overflow() -> None:
    class Logarithms(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
            return F.logsigmoid(x), torch.logaddexp(x, y), torch.logaddexp(x, y[:, :1]), torch.logaddexp2(x, y)

    x = torch.tensor([[-INF, -300.0, -90.0, -20.0, 0.0, 1e-3, 20.0, 90.0, 300.0, INF]])
    given = (x.repeat(10, 1), x.T.repeat(1, 10))
    model = to_canonical(capture(Logarithms().eval(), given))
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {item.name: tensor.numpy() for item, tensor in zip(session.get_inputs(), given, strict=True)}
    for found, wanted in zip(session.run(None, feeds), Logarithms()(*given), strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-5, atol=1e-6)
