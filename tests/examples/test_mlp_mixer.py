"""The baseline of the papers goes the way of every source, without a shift in it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from s2mlp_deploy import api  # noqa: E402
from s2mlp_deploy.errors import ExportError, SourceError  # noqa: E402

FACTORY = f"{Path(__file__).resolve().parents[2] / 'examples' / 'mlp_mixer.py'}:make"
TINY = {"size": "16", "patch": "4", "dim": "8", "depth": "2", "tokens": "6", "channels": "10", "classes": "3"}


def test_it_is_exported_with_parity_and_says_that_it_holds_no_shift(tmp_path):
    source = api.load(FACTORY, overrides=TINY)
    manifest = api.export(source, tmp_path / "out").manifest
    assert manifest.shifts == ()
    assert manifest.hazards == ()
    assert manifest.inputs[0].shape == ("batch", 3, 16, 16)
    assert manifest.outputs[0].shape == ("batch", 3)
    assert manifest.source.config["depth"] == 2
    (report,) = api.parity(source, [tmp_path / "out" / "model.fp32.onnx"], samples=8)
    assert report.passed
    inspected = api.inspect_source(FACTORY, overrides=TINY)
    assert inspected.shifts == ()


def test_the_defaults_are_the_papers_mixer_b_16():
    example = sys.modules[type(api.load(FACTORY, overrides=TINY).module).__module__]
    with torch.device("meta"):
        module, _ = example.make()
    # Table 1 of the paper: 59 M parameters for B/16.
    assert sum(parameter.numel() for parameter in module.parameters()) == 59_880_472


def test_settings_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(SourceError, match="do not divide an image of 18"):
        api.load(FACTORY, overrides=TINY | {"size": "18"})
    with pytest.raises(ExportError, match="height"):
        api.analyze(api.load(FACTORY, overrides=TINY), dynamic=("batch", "height"))


def test_each_block_mixes_patches_and_channels():
    """Changing one patch changes every other; the paper's equation 1, written out for one block."""
    module = api.load(FACTORY, overrides=TINY | {"depth": "1"}).module
    x = torch.randn(1, 16, 8, generator=torch.Generator().manual_seed(0))
    block = module.blocks[0]
    with torch.no_grad():
        first, second = block.mix_tokens, block.mix_channels
        norm = torch.nn.functional.layer_norm
        y = norm(x, (8,), block.norm1.weight, block.norm1.bias)
        hidden = torch.nn.functional.gelu(torch.einsum("ncd,hc->nhd", y, first.fc1.weight) + first.fc1.bias[:, None])
        u = x + torch.einsum("nhd,ch->ncd", hidden, first.fc2.weight) + first.fc2.bias[:, None]
        z = norm(u, (8,), block.norm2.weight, block.norm2.bias)
        hidden = torch.nn.functional.gelu(z @ second.fc1.weight.T + second.fc1.bias)
        expected = u + hidden @ second.fc2.weight.T + second.fc2.bias
        torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-5)
