"""Reading weights and nothing but weights; what does not fit is listed with the shapes that would."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import zipfile
from pathlib import Path

import nano_artifact
import pytest

from s2mlp_deploy.errors import CheckpointError

torch = pytest.importorskip("torch")
from safetensors.torch import save_file  # noqa: E402

from s2mlp_deploy.models.registry import configure, create_model, get_model  # noqa: E402
from s2mlp_deploy.sources.checkpoint import load_weights, read_weights  # noqa: E402

NANO = get_model("s2mlpv2_nano").config
TINY = {"dims": [8, 8], "depths": [1, 1], "attention_ratio": 2}


def tiny(**overrides):
    return create_model("s2mlpv2_nano", **(TINY | overrides))


def fit(weights, config=None, model=None) -> str:
    """The message of weights that do not fit."""
    model = model or tiny()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, weights, where="w.pt", config=config or configure(NANO, TINY))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items()), "it was half loaded"
    assert "w.pt" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_weights_are_read_as_they_were_saved(tmp_path, kind):
    state = tiny(seed=3).state_dict()
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt")
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    read = read_weights(path)
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], state[name]) for name in state)


def test_loading_changes_the_module():
    source, target = tiny(seed=1), tiny(seed=2)
    load_weights(target, source.state_dict(), where="w.pt", config=NANO)
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


class Trap:
    """A pickle of this creates a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.open, (str(self.path), os.O_CREAT | os.O_WRONLY)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("inside", [True, False])
def test_code_in_a_pickle_is_not_run(tmp_path, protocol, inside):
    trap = Trap(tmp_path / "sprung")
    path = tmp_path / "w.pt"
    path.write_bytes(pickle.dumps({"head.weight": trap} if inside else trap, protocol=protocol))
    with pytest.raises(CheckpointError, match="fix:"):
        read_weights(path)
    assert not (tmp_path / "sprung").exists()
    pickle.loads(path.read_bytes())  # The trap works: without protection the file appears.
    assert (tmp_path / "sprung").exists()


def test_code_in_a_file_of_torch_save_is_not_run_and_the_user_is_told(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"weights": torch.zeros(2), "trap": Trap(tmp_path / "sprung")}, path)
    with pytest.raises(CheckpointError, match=r"more than weights[\s\S]*w\.pt[\s\S]*state_dict"):
        read_weights(path)
    assert not (tmp_path / "sprung").exists()


def test_options_that_timm_and_deit_save_beside_the_weights_are_no_obstacle(tmp_path):
    weights = tiny().state_dict()
    options = argparse.Namespace(lr=1e-3, model="deit_tiny", output_dir=Path("/tmp"), nested=argparse.Namespace(a=1))
    torch.save({"model": weights, "optimizer": {"step": 3}, "epoch": 3, "args": options}, tmp_path / "w.pth")
    read = read_weights(tmp_path / "w.pth")
    assert all(torch.equal(read[name], weights[name]) for name in weights)
    # Nothing is allowed beyond the call.
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


class Config:
    """A class of somebody's training code."""


def test_what_may_not_be_loaded_is_named(tmp_path):
    torch.save({"model": tiny().state_dict(), "config": Config()}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=rf"more than weights \({Config.__module__}\.Config\)"):
        read_weights(tmp_path / "w.pt")


def test_a_whole_saved_module_is_refused_with_the_way_to_save_its_weights(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"torch\.save\(model\.state_dict\(\)"):
        read_weights(tmp_path / "model.pt")


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, {1: torch.zeros(1)}, torch.zeros(2), "text"])
def test_a_file_that_holds_no_state_dict_is_refused(tmp_path, value):
    torch.save(value, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="no state dict"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused_with_its_size(tmp_path, suffix, share):
    path = tmp_path / f"w{suffix}"
    if suffix == ".pt":
        torch.save(tiny().state_dict(), path)
    else:
        save_file(tiny().state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"cannot be read[\s\S]*w\.[\s\S]*bytes\)[\s\S]*copy it again") as caught:
        read_weights(path)
    assert f"{path.stat().st_size:,} bytes" in str(caught.value)
    assert ("empty" in str(caught.value)) == (share == 0)


@pytest.mark.parametrize("content", [b"hello", b"\x93NUMPY", b"<html></html>", bytes(range(256))])
def test_a_file_of_something_else_is_not_accused_of_holding_code(tmp_path, content):
    path = tmp_path / "w.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        read_weights(path)
    assert "run its code" not in str(caught.value)


def test_a_zip_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["nothing.pt", "."])
def test_a_path_that_is_no_file_is_refused(tmp_path, name):
    with pytest.raises(CheckpointError, match="no such checkpoint file"):
        read_weights(tmp_path / name)


# What does not fit


def test_missing_extra_and_wrongly_shaped_weights_are_listed_with_the_expected_shapes():
    weights = tiny().state_dict()
    del weights["head.bias"]
    weights["stranger"] = torch.zeros(2, 3)
    weights["head.weight"] = torch.zeros(10, 9)
    text = fit(weights)
    assert "1 missing: head.bias (10,)" in text
    assert "1 unexpected: stranger (2, 3)" in text
    assert "1 of another shape: head.weight (10, 9), expected (10, 8)" in text


def test_a_shape_with_as_many_elements_is_another_shape_all_the_same():
    weights = tiny().state_dict()
    weights["head.weight"] = weights["head.weight"].T.contiguous()
    assert "head.weight (8, 10), expected (10, 8)" in fit(weights)


def test_an_empty_state_dict_misses_everything_and_long_lists_are_cut():
    text = fit({})
    assert f"{len(tiny().state_dict())} missing" in text
    assert "and " in text
    assert " more" in text
    assert len(text) < 2000


def test_pointwise_weights_of_the_other_layout_fit():
    weights = tiny(seed=1).state_dict()
    wide = {n: t[:, :, None, None] if t.ndim == 2 and "blocks" in n else t for n, t in weights.items()}
    assert any(wide[name].ndim != weights[name].ndim for name in weights)
    model = tiny(seed=2)
    load_weights(model, wide, where="w.pt", config=NANO)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_taken_off(prefix):
    weights = tiny(seed=1).state_dict()
    model = tiny(seed=2)
    load_weights(model, {prefix + name: tensor for name, tensor in weights.items()}, where="w.pt", config=NANO)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_a_training_scripts_checkpoint_gives_its_weights(tmp_path):
    state = tiny(seed=1).state_dict()
    torch.save({"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}}, tmp_path / "last.pt")
    assert read_weights(tmp_path / "last.pt").keys() == state.keys()


def test_a_checkpoint_of_another_model_names_that_model():
    with torch.device("meta"):
        weights = create_model("s2mlpv2_small_14").state_dict()
    text = fit(weights, config=NANO)
    assert "this is a checkpoint of s2mlpv2_small_14: name that model" in text
    assert "--set" not in text


def test_a_checkpoint_with_another_head_names_the_number_of_classes():
    with torch.device("meta"):
        weights = create_model("s2mlpv2_small_7", classes=37).state_dict()
    assert "use s2mlpv2_small_7 --set classes=37" in fit(weights, config=NANO)


def test_settings_that_break_a_fitting_model_are_blamed_and_not_the_model():
    nano = create_model("s2mlpv2_nano").state_dict()
    text = fit(nano, config=configure(NANO, {"classes": 20}), model=create_model("s2mlpv2_nano", classes=20))
    assert "expected (20, 128)" in text
    assert "s2mlpv2_nano" in text
    assert "without the settings" in text
    assert "--set" in text


def test_weights_of_nobody_say_what_can_be_adapted():
    text = fit({"conv.weight": torch.zeros(3, 3)})
    assert "no model of the zoo" in text
    assert "--set" in text


def test_the_packaged_weights_fit_and_are_described():
    path = nano_artifact.weights()
    description = json.loads(path.with_suffix(".json").read_text())
    assert description["architecture"] == "s2mlpv2_nano"
    model = create_model("s2mlpv2_nano")
    load_weights(model, read_weights(path), where=str(path), config=NANO)


def unusual() -> dict[str, object]:
    quantized = torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    return {
        "sparse": torch.eye(3).to_sparse(),
        "nested": nested,
        "quantized": quantized,
        "meta": torch.empty(2, device="meta"),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["sparse", "nested", "quantized", "meta"])
def test_tensors_that_are_no_weights_are_refused_by_name(tmp_path, kind):
    torch.save({"good": torch.ones(2), "stages.0.odd": unusual()[kind]}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=rf"stages\.0\.odd is .*{kind}") as caught:
        read_weights(tmp_path / "w.pt")
    assert str(tmp_path / "w.pt") in str(caught.value)


@pytest.mark.parametrize("name", ["model", "state_dict", "other"])
def test_a_mapping_that_holds_itself_is_refused(tmp_path, name):
    holder: dict[str, object] = {"epoch": 3}
    holder[name] = holder
    torch.save(holder, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="no state dict"):
        read_weights(tmp_path / "w.pt")
    holder["ema"] = {"weight": torch.ones(2, 2)}
    torch.save(holder, tmp_path / "w.pt")
    assert read_weights(tmp_path / "w.pt").keys() == {"weight"}


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "bool", "complex64", "float8_e4m3fn"])
def test_tensors_of_another_kind_of_number_are_refused_by_name(dtype):
    weights = tiny(seed=2).state_dict()
    names = list(weights)[1:4:2]
    for name in names:
        weights[name] = weights[name].to(getattr(torch, dtype))
    text = fit(weights)
    assert "2 of another type" in text
    for name in names:
        assert f"{name} {dtype}, expected float32" in text
    assert "dequantize" in text


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_weights_of_another_precision_load(dtype):
    weights = {name: tensor.to(getattr(torch, dtype)) for name, tensor in tiny(seed=2).state_dict().items()}
    model = tiny(seed=9)
    load_weights(model, weights, where="w.pt")
    name = next(iter(weights))
    assert torch.equal(model.state_dict()[name], weights[name].float())
