"""Parameters, multiply-accumulates and names of every network of the zoo, against the networks and the papers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from s2mlp_deploy.models.config import ModelConfig
from s2mlp_deploy.models.registry import MODELS, ModelEntry, build_model, configure, get_model, list_models

ENTRIES = pytest.mark.parametrize("entry", list_models(), ids=lambda entry: entry.name)

SMALL_V1 = {"dims": [8], "depths": [2], "patches": [4], "image_size": 16, "classes": 3}
SMALL_V2 = {"dims": [16, 32], "depths": [2, 1], "patches": [4, 2], "image_size": 16, "classes": 3}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("s2mlpv2_nano", {"head_norm": "false"}),
    ("s2mlp_wide", SMALL_V1),
    ("s2mlp_wide", SMALL_V1 | {"norm": "affine", "expansion": 1, "directions": "b"}),
    ("s2mlp_wide", SMALL_V2 | {"directions": "none", "in_channels": 1}),
    ("s2mlp_deep", SMALL_V1 | {"image_size": [8, 24]}),
    ("s2mlpv2_nano", SMALL_V2),
    ("s2mlpv2_nano", SMALL_V2 | {"fusion": "sum", "expansion": 2}),
    ("s2mlpv2_nano", SMALL_V2 | {"branches": ["shift1", "identity"], "attention_ratio": 1}),
    ("s2mlpv2_nano", SMALL_V2 | {"branches": ["shift2"], "attention_ratio": 16}),
    ("s2mlpv2_nano", {"dims": [16], "depths": [3], "patches": [8], "image_size": [16, 40], "in_channels": 4}),
]


def on_meta(config: ModelConfig) -> nn.Module:
    """The network without memory behind its weights: the largest builds in a moment."""
    with torch.device("meta"):
        return build_model(config)


def counted_macs(model: nn.Module, config: ModelConfig) -> int:
    """Multiply-accumulates of the layers that ran, from what came out of them."""
    total = 0

    def count(layer: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal total
        assert isinstance(layer, (nn.Linear, nn.Conv2d))
        # Each output value is one dot product with as many factors as one output channel has weights.
        total += output.numel() * layer.weight[0].numel()

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    with torch.no_grad():
        model(torch.empty(1, config.in_channels, *config.image_size, device="meta"))
    for hook in hooks:
        hook.remove()
    return total


class TestCountsWithoutTorchAreTheNetworks:
    @ENTRIES
    @pytest.mark.parametrize("layout", ["channels-last", "channels-first"])
    def test_zoo(self, entry: ModelEntry, layout: str) -> None:
        config = configure(entry.config, {"layout": layout})
        model = on_meta(config)
        assert config.parameters() == sum(p.numel() for p in model.parameters())
        assert config.macs() == counted_macs(model, config)

    @pytest.mark.parametrize(("name", "overrides"), VARIANTS)
    def test_other_configurations(self, name: str, overrides: dict[str, Any]) -> None:
        config = configure(get_model(name).config, overrides)
        model = on_meta(config)
        assert config.parameters() == sum(p.numel() for p in model.parameters())
        assert config.macs() == counted_macs(model, config)


class TestPapersFigures:
    """arXiv 2106.07477 and 2108.01072 at 224²: millions of parameters, billions of multiply-accumulates."""

    @pytest.mark.parametrize(
        ("name", "parameters", "flops", "top1"),
        [
            ("s2mlp_wide", 71, 14.0, 80.0),
            ("s2mlp_deep", 51, 10.5, 80.7),
            ("s2mlpv2_small_7", 25, 6.9, 82.0),
            ("s2mlpv2_medium_7", 55, 16.3, 83.6),
            ("s2mlpv2_small_14", 30, 5.7, 80.9),
        ],
    )
    def test_registry_quotes_them(self, name: str, parameters: float, flops: float, top1: float) -> None:
        paper = get_model(name).paper
        assert paper is not None
        assert (paper.parameters, paper.flops, paper.top1) == (parameters, flops, top1)

    @pytest.mark.parametrize("name", ["s2mlpv2_small_7", "s2mlpv2_medium_7", "s2mlpv2_small_14"])
    def test_parameters_are_met(self, name: str) -> None:
        entry = get_model(name)
        assert entry.paper is not None
        assert round(entry.config.parameters() / 1e6) == entry.paper.parameters

    @pytest.mark.parametrize("name", ["s2mlp_wide", "s2mlp_deep", "s2mlpv2_small_7", "s2mlpv2_medium_7"])
    def test_flops_are_met(self, name: str) -> None:
        entry = get_model(name)
        assert entry.paper is not None
        # One place after the point, and the papers do not say which layers they count: allow one unit of it.
        assert entry.config.macs() / 1e9 == pytest.approx(entry.paper.flops, abs=0.1)

    def test_wide_meets_71_million_only_without_its_head(self) -> None:
        entry = get_model("s2mlp_wide")
        assert entry.paper is not None
        head = (768 + 1) * 1000
        assert (entry.config.parameters() - head) / 1e6 == pytest.approx(71.5, abs=0.05)
        assert "head" in entry.paper.remark

    def test_deep_meets_51_million_only_in_units_of_2_to_the_20(self) -> None:
        """36 blocks of 384 channels, with or without a head, are more than 51 million numbers."""
        entry = get_model("s2mlp_deep")
        assert entry.paper is not None
        with_head = entry.config.parameters()
        without_head = with_head - (384 + 1) * 1000
        assert without_head / 1e6 == pytest.approx(53.5, abs=0.05)
        assert round(without_head / 2**20) == round(with_head / 2**20) == 51
        assert "53.5 M without the head: 51 fits units of 2**20" in entry.paper.remark

    def test_small_14_cannot_meet_5_7_billion(self) -> None:
        """18 blocks of 384 channels on 16x16 cells: the blocks' matrices alone need more."""
        entry = get_model("s2mlpv2_small_14")
        assert entry.paper is not None
        assert entry.config.macs() / 1e9 == pytest.approx(6.86, abs=0.01)
        assert entry.paper.flops < 18 * 256 * (3 + 1 + 6) * 384**2 / 1e9
        assert "6.9 G, not 5.7 G" in entry.paper.remark

    def test_a_remark_stands_where_a_figure_is_missed_and_nowhere_else(self) -> None:
        remarked = {entry.name for entry in list_models() if entry.paper is not None and entry.paper.remark}
        assert remarked == {"s2mlp_wide", "s2mlp_deep", "s2mlpv2_small_14"}

    @pytest.mark.parametrize(
        ("name", "published", "full"), [("s2mlpv2_small_7", 25.1, 31.7), ("s2mlpv2_medium_7", 55.3, 70.0)]
    )
    def test_only_a_bottleneck_of_a_quarter_meets_v2s_parameters(
        self, name: str, published: float, full: float
    ) -> None:
        config = get_model(name).config
        assert config.parameters() / 1e6 == pytest.approx(published, abs=0.05)
        assert configure(config, {"attention_ratio": 1}).parameters() / 1e6 == pytest.approx(full, abs=0.05)


class TestStateDictNames:
    """Written out by hand: checkpoints out there have these names."""

    @staticmethod
    def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}

    @pytest.mark.parametrize("norm", ["layernorm", "affine"])
    def test_v1(self, norm: str) -> None:
        config = configure(get_model("s2mlp_wide").config, SMALL_V1 | {"norm": norm})
        expected: dict[str, tuple[int, ...]] = {
            "stages.0.patch_embed.proj.weight": (8, 3, 4, 4),
            "stages.0.patch_embed.proj.bias": (8,),
            "stages.0.patch_embed.norm.weight": (8,),
            "stages.0.patch_embed.norm.bias": (8,),
            "head.weight": (3, 8),
            "head.bias": (3,),
        }
        for block in ("stages.0.blocks.0", "stages.0.blocks.1"):
            for layer, outputs, inputs in (
                ("mixer.fc1", 8, 8),
                ("mixer.fc2", 8, 8),
                ("mlp.fc1", 32, 8),
                ("mlp.fc2", 8, 32),
            ):
                expected |= {f"{block}.{layer}.weight": (outputs, inputs), f"{block}.{layer}.bias": (outputs,)}
            for layer in ("norm1", "norm2"):
                expected |= {f"{block}.{layer}.weight": (8,), f"{block}.{layer}.bias": (8,)}
        assert self.shapes(on_meta(config)) == expected

    def test_v2(self) -> None:
        config = configure(get_model("s2mlpv2_nano").config, SMALL_V2)
        expected: dict[str, tuple[int, ...]] = {
            "stages.0.patch_embed.proj.weight": (16, 3, 4, 4),
            "stages.0.patch_embed.proj.bias": (16,),
            "stages.1.patch_embed.proj.weight": (32, 16, 2, 2),
            "stages.1.patch_embed.proj.bias": (32,),
            "norm.weight": (32,),
            "norm.bias": (32,),
            "head.weight": (3, 32),
            "head.bias": (3,),
        }
        for block, c in (("stages.0.blocks.0", 16), ("stages.0.blocks.1", 16), ("stages.1.blocks.0", 32)):
            layers = (("mixer.expand", 3 * c, c), ("mixer.project", c, c), ("mlp.fc1", 3 * c, c), ("mlp.fc2", c, 3 * c))
            for layer, outputs, inputs in layers:
                expected |= {f"{block}.{layer}.weight": (outputs, inputs), f"{block}.{layer}.bias": (outputs,)}
            for layer in ("norm1", "norm2"):
                expected |= {f"{block}.{layer}.weight": (c,), f"{block}.{layer}.bias": (c,)}
            expected |= {
                f"{block}.mixer.attention.reduce.weight": (c // 4, c),
                f"{block}.mixer.attention.expand.weight": (3 * c, c // 4),
            }
        assert self.shapes(on_meta(config)) == expected

    @ENTRIES
    def test_channels_first_has_the_same_names_and_pointwise_kernels(self, entry: ModelEntry) -> None:
        last = self.shapes(on_meta(entry.config))
        first = self.shapes(on_meta(configure(entry.config, {"layout": "channels-first"})))
        assert first.keys() == last.keys()
        for name, shape in last.items():
            pointwise = ".fc" in name or ".mixer.expand." in name or ".mixer.project." in name
            assert first[name] == ((*shape, 1, 1) if pointwise and name.endswith("weight") else shape)


def test_every_entry_is_found_by_its_name() -> None:
    assert [entry.name for entry in list_models()] == list(MODELS)
    for name, entry in MODELS.items():
        assert get_model(name) is entry
        assert entry.description
