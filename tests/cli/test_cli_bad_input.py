"""Every bad input: exit status 2, a message that names the fix, no traceback, nothing written."""

from __future__ import annotations

import os
import pickle
import zipfile

import nano_artifact
import pytest
from preprocess_images import claimed_png

torch = pytest.importorskip("torch")
from safetensors.torch import load_file, save_file  # noqa: E402

MODELS = ("s2mlp_wide", "s2mlp_deep", "s2mlpv2_small_7", "s2mlpv2_medium_7", "s2mlpv2_small_14", "s2mlpv2_nano")


@pytest.fixture
def no_export(refused, tmp_path):
    """Runs an export that must be refused and leave no trace."""

    def run(*arguments, source="s2mlpv2_nano"):
        place = tmp_path / "out"
        place.mkdir()
        text = refused("export", source, "--output", place / "deep" / "artifact", *arguments)
        assert list(place.iterdir()) == [], "something was written"
        return text

    return run


@pytest.fixture
def weights():
    return dict(load_file(nano_artifact.weights()))


# Model and settings


@pytest.mark.parametrize(
    ("given", "meant"),
    [("s2mlpv2_nan", "s2mlpv2_nano"), ("S2MLPv2_small7", "s2mlpv2_small_7"), ("s2mlp-wide", "s2mlp_wide")],
)
def test_an_unknown_model_suggests_the_nearest(no_export, given, meant):
    text = no_export(source=given)
    assert given in text
    assert f"did you mean {meant}" in text


@pytest.mark.parametrize("given", ["qqqq", "résnet"])
def test_a_model_nobody_could_have_meant_lists_them_all(no_export, given):
    text = no_export(source=given)
    assert all(name in text for name in MODELS)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("clases=3", ("'clases'", "classes")),
        ("qqqq=3", ("'qqqq'", "choose one of", "image_size")),
        ("classes=many", ("classes", "int")),
        ("classes=3.5", ("classes", "int")),
        ("classes=true", ("classes", "int")),
        ("classes=[3]", ("classes", "int")),
        ("classes=0", ("classes is 0", "at least 1")),
        ("classes=-5", ("classes is -5", "at least 1")),
        ("dims=64,many", ("dims", "int")),
        ("dims=64", ("dims, depths and patches must have one entry per stage",)),
        ("border=reflect", ("border", "keep", "edge", "zero", "circular")),
        ("layout=sideways", ("layout", "channels-last", "channels-first")),
        ("branches=shift3", ("branches", "shift1")),
        ("image_size=33", ("33x33 is not divided by the patches", "multiple of 4", "32x32 or 36x36")),
        ("image_size=32,30", ("32x30 is not divided", "multiple of 4")),
        ("dims=66,128", ("66", "4")),
        ("attention_ratio=3", ("attention_ratio 3 does not divide 64",)),
        ("shift1=sideways", ("unknown shift direction 'sideways'", "down-right", "letter")),
        ("shift1=k", ("unknown shift direction 'k'", "a, b, c")),
        ("classes", ("no value", "--set FIELD=VALUE")),
        ("=3", ("no value", "--set FIELD=VALUE")),
        ("classes=", ("classes", "int")),
    ],
)
def test_a_setting_that_cannot_be_is_explained(no_export, setting, says):
    text = no_export("--set", setting)
    for part in says:
        assert part in text


def test_directions_of_the_first_paper_are_checked_too(no_export):
    assert "unknown shift direction 'z'" in no_export("--set", "directions=z", source="s2mlp_wide")


@pytest.mark.parametrize("opset", ["17", "26", "0", "-1"])
def test_an_opset_out_of_range_names_the_range(no_export, opset):
    text = no_export("--opset", opset)
    assert f"opset {opset} cannot be written" in text
    assert "18 to 25" in text


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--opset", "new", "--opset"),
        ("--seed", "-1", "--seed"),
        ("--seed", str(2**70), "--seed"),
        ("--seed", "x", "--seed"),
        ("--shift-form", "magic", "choose auto, slice-concat"),
    ],
)
def test_options_out_of_range_are_refused(no_export, option, value, says):
    text = no_export(option, value)
    assert says in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--dynamic", "batch,length"), "no axis is called 'length'"),
        (("--on-hazard", "ignore"), "choose warn or error"),
        (("--dynamic", "batch,height", "--with-preprocessing"), "leave height and width out of --dynamic"),
        (("--shift-form", "magic"), "choose auto, slice-concat"),
        (("--opset", "26"), "18 to 25"),
    ],
)
def test_options_are_refused_before_a_model_is_loaded(no_export, monkeypatch, arguments, says):
    from s2mlp_deploy.api import exporting

    def load(*args, **kwargs):
        raise AssertionError("the model was loaded first")

    monkeypatch.setattr(exporting, "load", load)
    assert says in no_export(*arguments)


@pytest.mark.parametrize("empty", ["", " "])
@pytest.mark.parametrize("command", [("export", "s2mlpv2_nano"), ("build", "x.onnx", "--target", "sm89"), ("demo",)])
def test_an_empty_output_is_not_the_current_folder(refused, tmp_path, monkeypatch, command, empty):
    monkeypatch.chdir(tmp_path)
    for text in (refused(*command, "--output", empty), refused(*command, f"--output={empty}")):
        assert "--output is empty" in text
        assert "the current folder is '.'" in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [("predict", "", "x.png"), ("predict", "out", ""), ("inspect", ""), ("bench", " "), ("doctor", "")]
)
def test_an_empty_argument_is_not_the_current_folder(refused, arguments):
    assert "an argument is empty" in refused(*arguments)


# Checkpoints


def test_a_checkpoint_that_is_not_there(no_export, tmp_path):
    assert "no such checkpoint file" in no_export("--checkpoint", tmp_path / "nothing.pt")


def test_missing_extra_and_wrongly_shaped_keys_are_listed_with_the_expected_shapes(no_export, weights, tmp_path):
    del weights["norm.weight"]
    weights["stranger"] = torch.zeros(2, 3)
    weights["head.bias"] = torch.zeros(11)
    save_file(weights, tmp_path / "w.safetensors")
    text = no_export("--checkpoint", tmp_path / "w.safetensors")
    assert "1 missing: norm.weight (128,)" in text
    assert "1 unexpected: stranger (2, 3)" in text
    assert "1 of another shape: head.bias (11,), expected (10,)" in text


def test_a_checkpoint_of_another_model_names_it(no_export, tmp_path):
    from s2mlp_deploy.models.registry import create_model

    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in create_model("s2mlpv2_small_7").state_dict().items()}
    # Expanded from one number, the file stays small.
    torch.save({name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}, tmp_path / "w.pt")
    assert "this is a checkpoint of s2mlpv2_small_7" in no_export("--checkpoint", tmp_path / "w.pt")


def test_a_pickle_that_is_not_weights_is_not_run(no_export, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    (tmp_path / "w.pt").write_bytes(pickle.dumps(Trap(), protocol=2))
    text = no_export("--checkpoint", tmp_path / "w.pt")
    assert "would run its code" in text
    assert "state_dict" in text
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("size", [0, 7, 50_000])
def test_a_truncated_checkpoint_is_refused(no_export, weights, tmp_path, suffix, size):
    path = tmp_path / f"w{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(weights, path)
    path.write_bytes(path.read_bytes()[:size])
    text = no_export("--checkpoint", path)
    assert "cannot be read" in text
    assert f"({size:,} bytes)" in text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(no_export, weights, tmp_path, value):
    weights["stages.0.blocks.0.mixer.project.weight"][0, :2] = value
    save_file(weights, tmp_path / "w.safetensors")
    text = no_export("--checkpoint", tmp_path / "w.safetensors")
    assert "NaN or infinite" in text
    assert "stages.0.blocks.0.mixer.project.weight (2 of 4096 values)" in text


@pytest.mark.parametrize(
    ("sidecar", "says"),
    [
        ("{", "not JSON"),
        ("[]", "JSON object"),
        ('{"architecture": "s2mlp_wide", "config": {"classes": 10}}', "says it is s2mlp_wide, not s2mlpv2_nano"),
        ('{"architecture": "s2mlpv2_nano", "config": {"classes": 20}}', "expected (20, 128)"),
        ('{"architecture": "s2mlpv2_nano", "config": {"clases": 20}}', "no field 'clases'"),
        ('{"mean": [0.5, 0.5, 0.5]}', "size is missing"),
        ('{"size": [32, 32], "mean": [0.5], "std": [0.5], "color": "L"}', "makes 1 channels, the model takes 3"),
    ],
)
def test_a_sidecar_that_contradicts_or_is_damaged_is_explained(no_export, weights, tmp_path, sidecar, says):
    save_file(weights, tmp_path / "w.safetensors")
    (tmp_path / "w.json").write_text(sidecar)
    assert says in no_export("--checkpoint", tmp_path / "w.safetensors")


def test_a_preprocessing_file_that_is_not_there_is_named(no_export, tmp_path):
    assert "nothing.json" in no_export("--preprocess", tmp_path / "nothing.json")


# Outputs


def test_an_output_that_holds_an_artifact_needs_force(refused, tmp_path):
    artifact = nano_artifact.copy_to(tmp_path / "artifact")
    before = nano_artifact.snapshot(artifact)
    text = refused("export", "s2mlpv2_nano", "-o", artifact)
    assert "already holds an artifact" in text
    assert "--force" in text
    assert nano_artifact.snapshot(artifact) == before


def test_a_bad_input_with_force_leaves_the_old_artifact(refused, tmp_path):
    artifact = nano_artifact.copy_to(tmp_path / "artifact")
    before = nano_artifact.snapshot(artifact)
    refused("export", "s2mlpv2_nano", "-o", artifact, "--force", "--set", "classes=0")
    refused("export", "s2mlpv2_nano", "-o", artifact, "--force", "--checkpoint", tmp_path / "nothing.pt")
    assert nano_artifact.snapshot(artifact) == before


@pytest.mark.parametrize("below", ["", "out", "a/b"])
def test_an_output_that_is_a_file_or_below_one_is_refused(refused, tmp_path, below):
    (tmp_path / "file").write_bytes(b"mine")
    text = refused("export", "s2mlpv2_nano", "-o", tmp_path / "file" / below)
    assert "file" in text
    assert nano_artifact.snapshot(tmp_path) == {"file": b"mine"}


@pytest.mark.parametrize("place", ["/proc/self/out", "/dev/null/out"])
def test_an_output_the_kernel_refuses_is_named(cli, place):
    result = cli("export", "s2mlpv2_nano", "-o", place, "--set", "depths=1,1", "--set", "dims=8,8")
    assert result.code == 2
    assert result.out == ""
    assert place.rsplit("/", 1)[0] in result.text
    assert "fix:" in result.text


def test_an_export_without_an_output_says_which_option(cli):
    result = cli("export", "s2mlpv2_nano")
    assert result.code == 2
    assert "--output" in result.text


# Images, artifacts, comparisons


@pytest.fixture
def graph(tmp_path):
    path = tmp_path / "graph.onnx"
    path.write_bytes((nano_artifact.read_only() / "model.fp32.onnx").read_bytes())
    return path


def zip_named_png(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello")


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda path: path.write_bytes(b""), "fix:"),
        (lambda path: path.write_text("hello"), "not an image"),
        (zip_named_png, "zip"),
        (lambda path: path.write_bytes(claimed_png(50_000, 50_000)), "too large to decode safely"),
        (lambda path: path.mkdir(), "folder"),
        (lambda _: None, "does not exist"),
    ],
    ids=["empty", "text", "zip", "giant", "folder", "missing"],
)
def test_a_file_that_is_no_image_is_named(refused, tmp_path, write, says):
    path = tmp_path / "image.png"
    write(path)
    text = refused("predict", nano_artifact.read_only(), path, "--allow-unproven")
    assert "image.png" in text
    assert says in text


def test_predicting_with_something_else_is_explained(refused, tmp_path):
    assert "not an artifact" in refused("predict", tmp_path, "x.png")
    assert "no int8 file" in refused("predict", nano_artifact.read_only(), "x.png", "--precision", "int8")
    assert "CPUExecutionProvider" in refused(
        "predict", nano_artifact.read_only(), "x.png", "--allow-unproven", "--engine", "onnxruntime:Nope"
    )


@pytest.mark.parametrize("top", ["0", "-1", "few"])
def test_a_top_that_names_nobody_is_refused(cli, top):
    result = cli("predict", nano_artifact.read_only(), "x.png", "--top", top)
    assert result.code == 2
    assert "--top" in result.text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--samples", "0"), "--samples"),
        (("--batch", "0"), "--batch"),
        (("--seed", "-1"), "--seed"),
        (("--atol", "nan"), "--atol 'nan' is no limit"),
        (("--rtol", "-1"), "--rtol '-1' is no limit"),
        (("--atol", "logit=1"), "logit, which is no output"),
        (("--engine", "onnxruntime:Nope"), "CPUExecutionProvider"),
        (("--set", "classes=11"), "'logits' has the shape"),
        (("--set", "image_size=64"), "the model s2mlpv2_nano takes 3x64x64"),
    ],
)
def test_parity_that_cannot_be_measured_is_no_success(refused, graph, arguments, says):
    assert says in refused("parity", "s2mlpv2_nano", graph, *arguments)


def test_parity_of_files_that_are_no_graphs_is_refused(refused, tmp_path):
    (tmp_path / "text.onnx").write_text("hello")
    assert "nothing.onnx" in refused("parity", "s2mlpv2_nano", tmp_path / "nothing.onnx")
    assert "text.onnx" in refused("parity", "s2mlpv2_nano", tmp_path / "text.onnx")


def test_parity_on_a_folder_without_images_is_refused(refused, graph, tmp_path):
    (tmp_path / "empty").mkdir()
    arguments = ("parity", "s2mlpv2_nano", graph, "--checkpoint", nano_artifact.weights(), "--data")
    assert "no image" in refused(*arguments, tmp_path / "empty")
    assert "does not exist" in refused(*arguments, tmp_path / "nothing")
    (tmp_path / "strangers" / "cats").mkdir(parents=True)
    (tmp_path / "strangers" / "cats" / "a.png").touch()
    assert "no class of the model: cats" in refused(*arguments, tmp_path / "strangers")


def test_parity_on_a_broken_image_names_it(refused, graph, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "broken.png").write_bytes(b"hello")
    assert "broken.png" in refused(
        "parity", "s2mlpv2_nano", graph, "--checkpoint", nano_artifact.weights(), "--data", tmp_path / "data"
    )


def test_a_demo_into_a_file_is_refused_and_the_file_kept(refused, tmp_path):
    pytest.importorskip("mlxtend")
    (tmp_path / "file").write_bytes(b"mine")
    assert "file" in refused("demo", "--output", tmp_path / "file")
    assert nano_artifact.snapshot(tmp_path) == {"file": b"mine"}


@pytest.mark.parametrize(("option", "value"), [("--images", "empty"), ("--target", "sm99")])
def test_a_demo_that_cannot_end_well_is_refused_before_any_work(refused, tmp_path, monkeypatch, option, value):
    from s2mlp_deploy import api

    def work(*args, **kwargs):
        raise AssertionError("it began to work")

    monkeypatch.setattr(api, "capture", work)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    refused("demo", "--output", tmp_path / "out", option, value)
    assert not (tmp_path / "out").exists()
