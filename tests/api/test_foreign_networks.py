"""Networks without a shift, as torch's exporter writes them: taken all the way, and changed in what is equal alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402  after the check

from s2mlp_deploy import api  # noqa: E402


class Residual(nn.Module):
    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels // stride, channels, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(2))
        self.skip = nn.Conv2d(channels // stride, channels, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norms[0](self.first(x)))
        return torch.relu(self.skip(x) + self.norms[1](self.second(y)))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        parts = self.qkv(self.norm(x)).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        seen = torch.softmax(query @ key.transpose(-2, -1) / key.shape[-1] ** 0.5, -1) @ value
        x = x + self.project(seen.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.mlp(x)


class VisionTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, 8)
        self.first, self.place = nn.Parameter(torch.randn(1, 1, 32)), nn.Parameter(torch.randn(1, 17, 32))
        self.blocks = nn.Sequential(Attention(32, 4), Attention(32, 4))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], 1) + self.place
        return self.head(self.blocks(x)[:, 0])


def residual_network() -> nn.Module:
    stages = (nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(2), Residual(16, 1), Residual(32, 2))
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


MOVING = {"Slice", "Concat", "Transpose", "Gather", "GatherND", "Pad", "ScatterND", "Where", "Split"}


@pytest.mark.slow
@pytest.mark.parametrize("make", [residual_network, VisionTransformer], ids=["resnet", "vit"])
def test_a_network_without_a_shift_goes_all_the_way(make: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path = make().eval(), tmp_path / "net.onnx"
    batch = torch.export.Dim.DYNAMIC
    torch.onnx.export(
        module, (torch.randn(2, 3, 32, 32),), path, dynamo=True, dynamic_shapes=({0: batch},), verbose=False
    )
    data = tmp_path / "data.npy"
    np.save(data, np.random.default_rng(0).standard_normal((16, 3, 32, 32)).astype(np.float32))
    options = api.PrecisionOptions(precisions=("fp16", "int8", "fp8"), data=str(data), samples=16)
    result = api.export(str(path), tmp_path / "out", precision=options)
    assert not result.manifest.shifts
    assert not result.manifest.hazards
    assert not [note for note in result.manifest.notes if "fixed rule" in note]
    before = Counter(node.op_type for node in onnx.load(path).graph.node)
    after = Counter(node.op_type for node in ir.load(result.file()).graph)
    assert {name: after[name] for name in MOVING} == {name: before[name] for name in MOVING}
    for name in ("Conv", "MatMul", "Gemm", "Softmax", "LayerNormalization"):
        assert after[name] == before[name]
    for report in api.parity(str(path), [result.directory], data=str(data)):
        assert report.passed, (report.file, report.failures)
    pytest.importorskip("tensorrt_rtx")
    for file in (record.path for record in result.manifest.files if record.path != "model.int8.onnx"):
        record = api.build(result.directory / file, engine="tensorrt-rtx", targets=["sm89"])
        assert (result.directory / record.engine).is_file()
