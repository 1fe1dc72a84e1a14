"""Weights that a user's own module has, lacks or is given."""

from __future__ import annotations

import logging

import pytest
import torch
from own_models import not_exported, refused
from safetensors.torch import save_file
from torch import Tensor, nn

from s2mlp_deploy import api
from s2mlp_deploy.errors import CheckpointError


def test_weights_on_the_meta_device_are_refused_without_a_checkpoint_and_loaded_with_one(tmp_path, out):
    def on_meta() -> nn.Module:
        with torch.device("meta"):
            return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))

    error = not_exported(on_meta(), torch.zeros(2, 4), out, CheckpointError)
    assert "meta device" in error.problem
    assert "0.weight" in error.where
    whole = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).eval()
    save_file({name: value.half() for name, value in whole.state_dict().items()}, tmp_path / "w.safetensors")
    source = api.from_module(on_meta(), torch.zeros(2, 4), checkpoint=tmp_path / "w.safetensors")
    assert source.module[0].weight.dtype == torch.float32
    api.export(source, out)
    x = torch.randn(2, 4)
    torch.testing.assert_close(source.module.eval()(x), whole(x), atol=1e-2, rtol=1e-2)


def test_a_buffer_that_is_not_saved_counts_as_a_weight(out):
    class Tabled(nn.Module):
        def __init__(self, value: float, device: str) -> None:
            super().__init__()
            self.register_buffer("table", torch.full((3,), value, device=device), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.table

    assert "table" in not_exported(Tabled(0.0, "meta"), torch.zeros(2, 3), out, CheckpointError).where
    assert "table" in not_exported(Tabled(float("nan"), "cpu"), torch.zeros(2, 3), out, CheckpointError).where


def test_lazy_layers_that_have_seen_nothing_are_refused(out):
    error = not_exported(nn.LazyLinear(3), torch.zeros(2, 4), out, CheckpointError)
    assert "lazy" in error.problem
    assert "call the module once" in error.fix


LINEAR = """
def make(prefix=False):
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)), torch.zeros(2, 2)
"""


def plain(value: float) -> dict[str, Tensor]:
    shapes = {"0.weight": (3, 2), "0.bias": (3,), "1.weight": (2, 3), "1.bias": (2,)}
    return {name: torch.full(shape, float(value)) for name, shape in shapes.items()}


def under(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in weights.items()}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (plain(3), None),
        (under("module.", plain(3)), None),
        (under("_orig_mod.", plain(3)), None),
        (under("model.", plain(3)), None),
        (under("module._orig_mod.model.", plain(3)), None),
        ({"state_dict": plain(3), "epoch": 7, "optimizer": {"lr": 0.1}}, None),
        ({"model": under("module.", plain(3)), "step": torch.tensor(4)}, None),
        ({"state_dict": {"model": plain(3)}}, None),
        ({"state_dict": plain(1), "state_dict_ema": plain(3)}, "state_dict_ema is used"),
        ({"model": plain(1), "model_ema": plain(3)}, "model_ema is used"),
        ({"model": plain(1), "ema": {"decay": torch.tensor(0.9), "module": plain(3)}}, "ema is used"),
        ({"model": plain(3), "ema": {"decay": 0.9, "steps": 3}}, None),
        ({"model": plain(3), "model_ema": {}}, None),
        ({"n_averaged": torch.tensor(4)} | under("module.", plain(3)), None),
    ],
    ids=lambda value: "-".join(value)[:40] if isinstance(value, dict) else "",
)
def test_a_checkpoint_is_found_inside_what_training_scripts_save(write, tmp_path, caplog, content, told):
    torch.save(content, tmp_path / "last.pt")
    with caplog.at_level(logging.WARNING):
        source = api.load(write(LINEAR), checkpoint=tmp_path / "last.pt")
    assert all(bool((value == 3).all()) for value in source.module.state_dict().values())
    assert (told in caplog.text) if told else ("is used" not in caplog.text)
    assert (source.name, source.info.checkpoint) == ("last", "last.pt")
    assert source.info.checkpoint_sha256


def test_a_checkpoint_that_does_not_fit_lists_what_is_wrong(write, tmp_path):
    weights = plain(3) | {"0.weight": torch.zeros(4, 2), "2.weight": torch.zeros(1)}
    del weights["1.bias"]
    torch.save(weights, tmp_path / "w.pt")
    error = refused(write(LINEAR), CheckpointError, checkpoint=tmp_path / "w.pt")
    for told in ("1.bias (2,)", "2.weight (1,)", "0.weight (4, 2), expected (3, 2)"):
        assert told in error.problem


def test_a_prefix_that_the_model_has_itself_stays(tmp_path):
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x)

    trained, other = Wrapped(), Wrapped()
    torch.save(under("module.", trained.state_dict()), tmp_path / "w.pt")
    api.from_module(other, torch.zeros(2, 2), checkpoint=tmp_path / "w.pt")
    assert torch.equal(other.model.weight, trained.model.weight)
