"""Configurations: their text forms, and that what cannot be built is refused with what to do instead."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from s2mlp_deploy.errors import InputError, ShiftError, SourceError
from s2mlp_deploy.models.config import DIRECTION_SETS, STEPS, S2MLPConfig, S2MLPv2Config, parse_directions
from s2mlp_deploy.models.registry import configure, create_model, get_model, list_models

V1 = S2MLPConfig(dims=(16,), depths=(2,), patches=(16,))
V2 = S2MLPv2Config(dims=(16, 32), depths=(1, 2), patches=(7, 2))


class TestTextForms:
    """What ``--set FIELD=VALUE`` passes on."""

    @pytest.mark.parametrize(
        ("field", "text", "value"),
        [
            ("classes", "37", 37),
            ("classes", 37, 37),
            ("dims", "[64, 128]", (64, 128)),
            ("dims", "64,128", (64, 128)),
            ("dims", " 64 , 128 ", (64, 128)),
            ("dims", [64, 128], (64, 128)),
            ("dims", (64, 128), (64, 128)),
            ("image_size", "28", (28, 28)),
            ("image_size", 28, (28, 28)),
            ("image_size", "28,42", (28, 42)),
            ("image_size", "[28, 42]", (28, 42)),
            ("layout", "channels-first", "channels-first"),
            ("border", "circular", "circular"),
            ("fusion", "sum", "sum"),
            ("branches", "shift1,identity", ("shift1", "identity")),
            ("branches", '["shift1", "identity"]', ("shift1", "identity")),
            ("branches", "shift2", ("shift2",)),
            ("shift1", "down,up", "down,up"),
            ("shift2", "b", "b"),
        ],
    )
    def test_are_read(self, field: str, text: object, value: object) -> None:
        assert getattr(configure(V2, {field: text}), field) == value

    @pytest.mark.parametrize(("field", "text", "value"), [("dims", "24", (24,)), ("patches", 8, (8,))])
    def test_one_number_is_one_stage(self, field: str, text: object, value: object) -> None:
        assert getattr(configure(V1, {field: text}), field) == value

    def test_num_classes_is_another_name_for_classes(self) -> None:
        assert configure(V1, {"num_classes": 7}).classes == 7

    def test_nothing_else_changes_and_the_original_stays(self) -> None:
        changed = configure(V2, {"classes": 7})
        assert changed.to_dict() == V2.to_dict() | {"classes": 7}
        assert V2.classes == 1000

    @pytest.mark.parametrize("config", [V1, V2, *(entry.config for entry in list_models())])
    def test_dict_through_json_comes_back(self, config: S2MLPConfig | S2MLPv2Config) -> None:
        other = V1 if isinstance(config, S2MLPConfig) else V2
        assert configure(other, json.loads(json.dumps(config.to_dict()))) == config

    @pytest.mark.parametrize("fact", ["split_attention_pool", "gelu", "head"])
    def test_facts_without_another_value_are_accepted_and_others_refused(self, fact: str) -> None:
        true = {"split_attention_pool": "sum", "gelu": "erf", "head": "norm, mean over tokens, linear"}[fact]
        assert configure(V2, {fact: true}) == V2
        with pytest.raises(SourceError, match=f"{fact} is always '{true}'") as raised:
            configure(V2, {fact: "other"})
        assert raised.value.fix


class TestRefusals:
    @pytest.mark.parametrize(
        ("overrides", "problem", "fix"),
        [
            ({"clases": 3}, "S2MLPv2Config has no field 'clases'", "did you mean classes?"),
            ({"pool": "mean"}, "has no field 'pool'", "choose one of"),
            ({"norm": "affine"}, "has no field 'norm'", "did you mean head_norm"),
            ({"classes": "many"}, "classes cannot be 'many'", "int"),
            ({"classes": 1.5}, "classes cannot be 1.5", "int"),
            ({"classes": None}, "classes cannot be None", "int"),
            ({"classes": True}, "classes cannot be True", "int"),
            ({"classes": 0}, "classes is 0", "at least 1"),
            ({"expansion": -1}, "expansion is -1", "at least 1"),
            ({"depths": [1, 0]}, "depths[1] is 0", "at least 1"),
            ({"image_size": 0}, "image_size[0] is 0", "at least 1"),
            ({"image_size": [224]}, "image_size cannot be", "tuple[int, int]"),
            ({"image_size": "large"}, "image_size cannot be", "tuple[int, int]"),
            ({"dims": "small,large"}, "dims cannot be", "tuple[int, ...]"),
            ({"dims": 16}, "one entry per stage", "same length"),
            ({"dims": []}, "one entry per stage", "same length"),
            ({"layout": "NCHW"}, "layout cannot be 'NCHW'", "channels-first"),
            ({"border": "reflect"}, "border cannot be 'reflect'", "circular"),
            ({"fusion": "mean"}, "fusion cannot be 'mean'", "split-attention"),
            ({"branches": "shift3"}, "branches cannot be", "identity"),
            ({"branches": []}, "none or not distinct", "each once"),
            ({"branches": "shift1,shift1"}, "none or not distinct", "each once"),
            ({"attention_ratio": 3}, "attention_ratio 3 does not divide 16", "divisor"),
            ({"attention_ratio": 0}, "attention_ratio 0 does not divide", "divisor"),
            ({"shift1": "down,sideways"}, "unknown shift direction 'sideways'", "down-right"),
            ({"shift1": ""}, "unknown shift direction ''", "down-right"),
            ({"image_size": 30}, "an image of 30x30 is not divided by the patches", "28x28 or 42x42"),
            ({"image_size": [28, 30]}, "an image of 28x30 is not divided by the patches", "multiple of 14"),
            ({"image_size": 7}, "an image of 7x7 is not divided by the patches", "14x14"),
        ],
    )
    def test_say_what_to_do(self, overrides: dict[str, Any], problem: str, fix: str) -> None:
        with pytest.raises(SourceError) as raised:
            configure(V2, overrides)
        assert problem in raised.value.problem
        assert raised.value.fix is not None
        assert fix in raised.value.fix

    @pytest.mark.parametrize(
        ("config", "overrides"),
        [(V1, {"dims": [18]}), (V1, {"directions": "b", "dims": [12]}), (V2, {"shift2": "down,up,left"})],
    )
    def test_groups_must_divide_the_channels(
        self, config: S2MLPConfig | S2MLPv2Config, overrides: dict[str, Any]
    ) -> None:
        with pytest.raises(ShiftError, match="shift groups do not divide") as raised:
            configure(config, overrides)
        assert raised.value.fix

    def test_a_branch_left_out_needs_no_divisible_channels(self) -> None:
        assert configure(V2, {"shift2": "down,up,left", "branches": "shift1,identity"}).branches == (
            "shift1",
            "identity",
        )

    @pytest.mark.parametrize(
        ("name", "near"),
        [("s2mlpv2_smal_7", "s2mlpv2_small_7"), ("s2mlp-wide", "s2mlp_wide"), ("S2MLPV2_NANO", "s2mlpv2_nano")],
    )
    def test_an_unknown_model_suggests_the_nearest(self, name: str, near: str) -> None:
        with pytest.raises(SourceError, match=f"unknown model '{name}'") as raised:
            create_model(name)
        assert raised.value.fix is not None
        assert near in raised.value.fix

    def test_a_model_like_none_lists_all(self) -> None:
        with pytest.raises(SourceError) as raised:
            get_model("resnet50")
        assert raised.value.fix is not None
        assert all(entry.name in raised.value.fix for entry in list_models())

    def test_overrides_of_a_created_model_are_checked(self) -> None:
        with pytest.raises(SourceError, match="has no field 'depth'"):
            create_model("s2mlp_wide", depth=3)

    def test_exit_status_says_wrong_input(self) -> None:
        assert issubclass(SourceError, InputError)
        assert issubclass(ShiftError, InputError)
        assert InputError.exit_code == 2


class TestDirections:
    @pytest.mark.parametrize("letter", DIRECTION_SETS)
    def test_a_letter_is_its_names(self, letter: str) -> None:
        names = DIRECTION_SETS[letter]
        assert parse_directions(letter) == tuple(STEPS[name] for name in names)
        if names:
            assert parse_directions(" , ".join(names)) == parse_directions(letter)

    def test_content_moves_by_rows_and_columns(self) -> None:
        assert parse_directions("down,up,right,left") == ((1, 0), (-1, 0), (0, 1), (0, -1))
        assert parse_directions("up-left") == ((-1, -1),)


def test_the_registry_needs_no_torch() -> None:
    """``s2mlp-deploy models`` answers on a machine where torch is not installed."""
    code = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "onnx", "onnx_ir", "onnxscript", "onnxruntime"}:
            raise ModuleNotFoundError(f"blocked: {name}", name=name)

sys.meta_path.insert(0, Blocked())
import s2mlp_deploy.models.config
from s2mlp_deploy.models.registry import configure, list_models

for entry in list_models():
    print(entry.name, entry.config.parameters(), configure(entry.config, {"classes": "3"}).macs())
try:
    import torch
except ModuleNotFoundError:
    print("blocked")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")
    assert lines[: len(list_models())] == [
        f"{entry.name} {entry.config.parameters()} {configure(entry.config, {'classes': 3}).macs()}"
        for entry in list_models()
    ]
    assert "blocked" in lines
