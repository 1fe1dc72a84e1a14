"""Checkpoints of public code become weights of the zoo: same logits, or a refusal that names the difference."""

from __future__ import annotations

import logging

import pytest
import torch
from public_networks import S2Attention, SplitAttention, logits, public, saved, seeded
from torch import Tensor

from s2mlp_deploy import api
from s2mlp_deploy.errors import CheckpointError, SourceError
from s2mlp_deploy.models.config import S2MLPv2Config
from s2mlp_deploy.models.registry import create_model
from s2mlp_deploy.models.s2mlpv2 import ShiftMixer
from s2mlp_deploy.sources.converters import _natural, convert_s2attention, convert_sequential
from s2mlp_deploy.sources.load import load_source

# A whole network


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dropout": False},
        {"head": "norm-mean"},
        {"bottleneck": 4, "expansion": (2, 2), "classes": 7},
        {"dims": (8,), "depths": (3,), "patches": (8,), "expansion": (4,), "channels": 1},
        {"dims": (4, 8, 12), "depths": (1, 1, 1), "patches": (2, 2, 2), "expansion": (1, 1, 1)},
        {"dims": (4,), "depths": (11,), "patches": (4,), "expansion": (1,)},
    ],
    ids=["public", "no dropout", "norm before the head", "bottleneck", "one stage", "three stages", "11 blocks"],
)
def test_a_zoo_model_with_the_converted_weights_gives_the_same_logits(tmp_path, options):
    original = public(**options)
    layout = "channels-first" if options.get("head") else "channels-last"
    source = load_source("s2mlpv2_nano", checkpoint=saved(original, tmp_path), overrides={"layout": layout})
    channels = options.get("channels", 3)
    torch.testing.assert_close(
        logits(source.module, channels=channels), logits(original, channels=channels), atol=1e-5, rtol=1e-5
    )


def test_images_need_not_be_square(tmp_path):
    original = public()
    source = load_source("s2mlpv2_nano", checkpoint=saved(original, tmp_path), overrides={"image_size": "[16, 40]"})
    assert source.example_inputs[0].shape == (2, 3, 16, 40)
    expected = logits(original, (16, 40))
    torch.testing.assert_close(logits(source.module, (16, 40)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model."])
def test_prefixes_of_wrappers_do_not_hide_the_layout(prefix):
    state = public().state_dict()
    plain, wrapped = convert_sequential(state), convert_sequential({prefix + name: t for name, t in state.items()})
    assert plain is not None
    assert wrapped is not None
    assert wrapped.settings == plain.settings
    assert wrapped.weights.keys() == plain.weights.keys()


def test_what_was_inferred_and_what_was_assumed_is_said(tmp_path, caplog):
    path = saved(public(), tmp_path)
    with caplog.at_level(logging.WARNING):
        load_source("s2mlpv2_nano", checkpoint=path)
    text = caplog.text
    assert "nested Sequentials" in text
    for told in ("dims=[8, 16] instead of [64, 128]", "patches=[4, 2]", "classes=5 instead of 10"):
        assert told in text
    assert "attention_ratio=1 instead of 4" in text
    assert "no norm before the head" in text
    assert "Assumed: " in text
    assert "sums over positions and branches" in text
    assert "`parity` of the exported files with a factory of the network's own code" in text


def test_the_manifest_can_tell_a_converted_checkpoint(tmp_path):
    info = load_source("s2mlpv2_nano", checkpoint=saved(public(), tmp_path)).info
    assert info.config["checkpoint_layout"] == "nested Sequentials"
    assert info.config["head_norm"] is False
    assert info.config["dims"] == [8, 16]
    assert info.checkpoint == "public.safetensors"
    assert info.seed is None


def test_the_zoos_own_names_are_not_converted(tmp_path, caplog):
    own = create_model("s2mlpv2_nano", dims=[8, 8], depths=[1, 1])
    assert convert_sequential(own.state_dict()) is None
    assert convert_sequential({}) is None
    with caplog.at_level(logging.WARNING):
        info = load_source(
            "s2mlpv2_nano", checkpoint=saved(own, tmp_path), overrides={"dims": "8,8", "depths": "1,1"}
        ).info
    assert "Sequentials" not in caplog.text
    assert info.config["head_norm"] is True


def test_the_size_of_the_image_is_asked_for_where_the_patches_do_not_divide_it(tmp_path):
    path = saved(public(patches=(7, 2)), tmp_path)
    with pytest.raises(SourceError, match="set image_size to a multiple of 14"):
        load_source("s2mlpv2_nano", checkpoint=path)
    original = public(patches=(7, 2))
    source = load_source("s2mlpv2_nano", checkpoint=path, overrides={"image_size": "28"})
    torch.testing.assert_close(logits(source.module, (28, 28)), logits(original, (28, 28)), atol=1e-5, rtol=1e-5)


def test_a_setting_of_the_user_that_contradicts_the_shapes_is_refused_with_both(tmp_path):
    with pytest.raises(CheckpointError, match=r"head\.weight \(5, 16\), expected \(6, 16\)"):
        load_source("s2mlpv2_nano", checkpoint=saved(public(), tmp_path), overrides={"classes": "6"})


def test_a_model_of_the_other_paper_names_the_right_family(tmp_path):
    with pytest.raises(CheckpointError, match="s2mlp_wide is none") as caught:
        load_source("s2mlp_wide", checkpoint=saved(public(), tmp_path))
    assert "s2mlpv2" in str(caught.value)


# What is another network is refused


def edited(change, **options: object) -> dict[str, Tensor]:
    state = public(**options).state_dict()
    change(state)
    return state


def rename(old: str, new: str):
    def change(state: dict[str, Tensor]) -> None:
        for key in [key for key in state if key.startswith(old)]:
            state[new + key.removeprefix(old)] = state.pop(key)

    return change


BLOCK = "stages.0.1.model.0"


@pytest.mark.parametrize(
    ("change", "options", "says"),
    [
        (lambda _: None, {"patch_norm": True}, r"a norm follows a patch convolution"),
        (lambda _: None, {"head": "mean-norm"}, r"norm of the head follows the pooling"),
        (lambda _: None, {"expansion": (3, 4)}, r"not the same everywhere.*3 at .*4 at "),
        (lambda s: s.pop(f"{BLOCK}.0.norm.weight"), {}, r"one norm directly in it"),
        (lambda s: s.update({f"{BLOCK}.1.fn.5.weight": torch.ones(8)}), {}, r"2 norms in all"),
        (lambda s: s.update({f"{BLOCK}.1.fn.5.weight": torch.ones(8, 8)}), {}, r"3 fully connected layers"),
        (lambda s: s.update({f"{BLOCK}.0.fn.split_attention.mlp1.bias": torch.ones(8)}), {}, r"has .*mlp1\.bias"),
        (lambda s: s.update({f"{BLOCK}.0.gamma": torch.ones(8)}), {}, r"more than a norm and an S2Attention"),
        (lambda s: s.update({"pos_embed": torch.ones(1, 8, 8)}), {}, r"no place.*pos_embed"),
        (lambda s: s.update({"aux.weight": torch.ones(5, 16)}), {}, r"one fully connected layer.*2 and 0"),
        (lambda s: s.pop("mlp_head.1.bias"), {}, r"mlp_head\.1\.bias is missing"),
        (lambda s: s.pop("stages.1.0.weight"), {}, r"norm of the shape .16,. for 8 channels"),
        (lambda s: s.update({"stages.0.0.weight": torch.ones(8, 3, 4, 2)}), {}, r"4x2, not square"),
        (lambda s: s.update({f"{BLOCK}.0.fn.mlp1.weight": torch.ones(32, 8)}), {}, r"three branches of 8 channels"),
        (lambda s: s.update({f"{BLOCK}.1.fn.3.weight": torch.ones(8, 25)}), {}, r"an MLP of the shapes"),
        (rename(f"{BLOCK}.1.", "elsewhere.1."), {}, r"not followed by its MLP"),
        (lambda s: s.update({"mlp_head.1.weight": torch.ones(5, 8)}), {}, r"head reads 8 channels"),
    ],
)
def test_a_network_the_zoo_cannot_express_is_refused_with_the_key_and_the_way_out(change, options, says):
    with pytest.raises(CheckpointError, match=says) as caught:
        convert_sequential(edited(change, **options))
    assert "file.py:factory" in str(caught.value)


def test_an_mlp_before_its_attention_is_not_taken_for_the_paper():
    """The order of the residual branches is in the keys: branch 0 is the MLP."""
    state = public(dims=(8,), depths=(1,), patches=(4,), expansion=(3,)).state_dict()
    swapped = {}
    for key, value in state.items():
        for old, new in ((f"{BLOCK}.0.", f"{BLOCK}.1."), (f"{BLOCK}.1.", f"{BLOCK}.0.")):
            if key.startswith(old):
                swapped[new + key.removeprefix(old)] = value
                break
        else:
            swapped[key] = value
    with pytest.raises(CheckpointError, match="not followed by its MLP"):
        convert_sequential(swapped)


def test_every_tensor_goes_to_exactly_one_place():
    state = public().state_dict()
    converted = convert_sequential(state)
    assert converted is not None
    assert sorted(t.data_ptr() for t in converted.weights.values()) == sorted(t.data_ptr() for t in state.values())


def test_the_head_may_be_any_linear_layer_and_the_norm_a_sibling_of_it():
    state = public(head="norm-mean").state_dict()
    rename("mlp_head.0.", "norm.")(state)
    rename("mlp_head.2.", "classifier.")(state)
    converted = convert_sequential(state)
    assert converted is not None
    assert converted.settings["head_norm"] is True


def test_a_refusal_names_the_file(tmp_path):
    path = saved(public(head="mean-norm"), tmp_path)
    with pytest.raises(CheckpointError, match=r"where: .*public\.safetensors: mlp_head\.1"):
        load_source("s2mlpv2_nano", checkpoint=path)


# A single block


def mixer(ratio: int = 1, layout: str = "channels-last") -> ShiftMixer:
    config = S2MLPv2Config(
        dims=(8,), depths=(1,), patches=(2,), image_size=(8, 8), attention_ratio=ratio, layout=layout
    )
    return ShiftMixer(config, 8).eval()


@pytest.mark.parametrize("ratio", [1, 4])
@pytest.mark.parametrize("prefix", ["", "neck.attention."])
def test_a_pasted_block_gives_what_the_zoos_mixer_gives(ratio, prefix):
    block = seeded(S2Attention(8, 8 // ratio))
    state = {prefix + name: value for name, value in block.state_dict().items()}
    if prefix:
        state["backbone.weight"] = torch.ones(3)
    ours = mixer(ratio)
    ours.load_state_dict(convert_s2attention(state, prefix))
    x = torch.randn(2, 5, 7, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), block(x), atol=1e-5, rtol=1e-5)


def test_weights_of_pointwise_convolutions_are_taken_for_what_they_are():
    state = seeded(S2Attention(8)).state_dict()
    wide = {name: value[:, :, None, None] if value.dim() == 2 else value for name, value in state.items()}
    converted = convert_s2attention(wide)
    assert all(torch.equal(converted[name], value) for name, value in convert_s2attention(state).items())


def test_logits_that_are_ordered_by_channel_are_put_in_order_where_that_is_said():
    """Nothing in a state dict shows the order: said rightly the outputs agree, taken for the paper's they do not."""
    block = seeded(S2Attention(8))
    block.split_attention.channel_major = True
    x = torch.randn(2, 5, 7, 8, generator=torch.Generator().manual_seed(1))
    outputs = {}
    for order in ("branch-major", "channel-major"):
        ours = mixer()
        ours.load_state_dict(convert_s2attention(block.state_dict(), logits=order))
        with torch.no_grad():
            outputs[order] = (ours(x) - block(x)).abs().max()
    assert outputs["channel-major"] < 1e-5
    assert outputs["branch-major"] > 1e-3
    with pytest.raises(CheckpointError, match="branch-major or channel-major"):
        convert_s2attention(block.state_dict(), logits="by-row")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop("mlp2.bias"), r"lacks mlp2\.bias"),
        (lambda s: s.update({"mlp3.weight": torch.ones(8, 8)}), r"has mlp3\.weight"),
        (lambda s: s.clear(), "lacks mlp1.bias"),
        (lambda s: s.update({"mlp1.weight": torch.ones(16, 8)}), "three branches of 8 channels need"),
        (lambda s: s.update({"split_attention.mlp2.weight": torch.ones(24, 4)}), "need "),
    ],
)
def test_what_is_no_s2attention_is_refused(change, says):
    state = S2Attention(8).state_dict()
    change(state)
    with pytest.raises(CheckpointError, match=says) as caught:
        convert_s2attention(state)
    assert "fix:" in str(caught.value)


@pytest.mark.parametrize("prefix", ["", "neck."])
def test_a_network_named_for_the_checkpoint_of_a_block_points_to_the_function(tmp_path, prefix):
    path = saved(S2Attention(8), tmp_path, prefix)
    with pytest.raises(CheckpointError, match="convert_s2attention"):
        load_source("s2mlpv2_nano", checkpoint=path)


# Differences that only running both can show


def test_parity_of_the_public_code_finds_what_weights_cannot_show(tmp_path, caplog):
    """A network whose attention orders its logits by channel converts without complaint; its own code tells."""
    from s2mlp_deploy import api

    original = public(dims=(8,), depths=(1,), patches=(4,), expansion=(1,))
    source = load_source("s2mlpv2_nano", checkpoint=saved(original, tmp_path))
    api.export(source, tmp_path / "out")
    example = torch.randn(2, 3, 32, 32)
    files = [tmp_path / "out" / "model.fp32.onnx"]
    (report,) = api.parity(api.from_module(original, example), files, samples=4)
    assert report.passed
    for module in original.modules():
        if isinstance(module, SplitAttention):
            module.channel_major = True
    (report,) = api.parity(api.from_module(original, example), files, samples=4)
    assert not report.passed


def test_the_api_has_the_converters():
    assert api.convert_s2attention is convert_s2attention
    assert api.convert_sequential is convert_sequential
    with pytest.raises(AttributeError, match="has no attribute 'convert_anything'"):
        _ = api.convert_anything


def test_parts_of_names_that_look_like_numbers_have_an_order_too():
    assert sorted(["a.\u00b2", "a.10", "a.9", "a." + "9" * 5000, "a.b"], key=_natural)[:2] == ["a.9", "a.10"]
