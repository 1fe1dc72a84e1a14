"""Shifts read off files in which other movement stands around them."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
import torch
from torch import Tensor, nn

from s2mlp_deploy import api


class TokenOfEachFrame(nn.Module):
    """The first token of each frame is shifted with zeros coming in, and a layer reads it with the others."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        first = x[:, :, :1]
        earlier = torch.cat((torch.zeros_like(first[:, :1, :, :3]), first[:, :-1, :, :3]), 1)
        return self.mix(torch.cat((torch.cat((earlier, first[..., 3:]), -1), x[:, :, 1:]), 2))


@pytest.mark.parametrize("form", ["slice-concat", "pad-slice"])
def test_zeros_of_integers_are_known_below_other_movement(tmp_path, form):
    torch.manual_seed(0)
    captured = api.capture(api.from_module(TokenOfEachFrame().eval(), torch.randn(2, 5, 4, 8), name="tokens"))
    data = torch.randn(32, 5, 4, 8).numpy()
    options = api.PrecisionOptions(precisions=("int8",), data=data, threads=1)
    made = api.export(captured, tmp_path / "made", shift_form=form, precision=options)
    assert len(made.manifest.shifts) == 1
    for report in api.parity(captured, [made.file("int8"), made.file("int8-trt")]):
        assert report.proof is not None
        assert report.proof.shifts == 1
        assert not report.proof.failures
