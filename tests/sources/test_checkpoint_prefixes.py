"""A checkpoint whose names are the model's but for one prefix loads, with a word about it."""

from __future__ import annotations

import logging

import pytest

torch = pytest.importorskip("torch")
from s2mlp_deploy.errors import CheckpointError  # noqa: E402
from s2mlp_deploy.sources.checkpoint import load_weights  # noqa: E402


class Inner(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(2, 3)
        self.norm = torch.nn.BatchNorm1d(3)


class Outer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Inner()


def state(module, prefix=""):
    return {prefix + name: torch.ones_like(value) for name, value in module.state_dict().items()}


@pytest.mark.parametrize("prefix", ["module.", "model.", "backbone.", "module.model.", "encoder.", "student.backbone."])
def test_a_prefix_of_the_checkpoint_is_left_out(caplog, prefix):
    module = Inner()
    with caplog.at_level(logging.INFO, "s2mlp_deploy.sources"):
        load_weights(module, state(module, prefix), where="w.pt")
    assert all((value == 1).all() for value in module.state_dict().values())
    assert f"w.pt: its names are the model's behind '{prefix}', which is left out" in caplog.text


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_prefix_of_the_model_is_put_in_front(caplog, wrapped):
    module = Outer()
    weights = state(Inner(), "module." if wrapped else "")
    with caplog.at_level(logging.INFO, "s2mlp_deploy.sources"):
        load_weights(module, weights, where="w.pt")
    assert all((value == 1).all() for value in module.state_dict().values())
    assert "w.pt: " in caplog.text


def test_names_that_fit_are_not_spoken_of(caplog):
    module = Inner()
    with caplog.at_level(logging.INFO, "s2mlp_deploy.sources"):
        load_weights(module, state(module), where="w.pt")
    assert caplog.text == ""


def test_what_differs_by_more_than_a_prefix_is_refused():
    module, weights = Inner(), state(Inner(), "encoder.")
    weights["encoder.head.weight"] = weights.pop("encoder.first.weight")
    with pytest.raises(CheckpointError, match=r"missing: first\.weight"):
        load_weights(module, weights, where="w.pt")
    weights = state(Inner(), "encoder.")
    weights["other.norm.bias"] = weights.pop("encoder.norm.bias")
    with pytest.raises(CheckpointError, match="does not fit"):
        load_weights(module, weights, where="w.pt")
