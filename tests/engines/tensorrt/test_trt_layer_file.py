"""Layers, profiles and times of trtexec, in files made by hand from the documented schema of 10.x and 11.x."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from s2mlp_deploy import api
from s2mlp_deploy.errors import ArtifactError, InputError
from s2mlp_deploy.evidence.engine_layers import EngineLayers, RunTimes
from s2mlp_deploy.evidence.profile import Profile
from s2mlp_deploy.report.engine_layers import written_by

FILES = Path(__file__).with_name("layer_files")


def layers(name: str, profile: str | None = None) -> EngineLayers:
    found = api.inspect_json(FILES / name, profile=None if profile is None else FILES / profile)
    assert isinstance(found, EngineLayers)
    return found


@pytest.mark.parametrize(
    ("name", "schema", "bindings", "count"),
    [
        ("objects-10.json", "10.x", ("image", "logits"), 8),
        ("names-10.json", "10.x", ("image", "logits"), 7),
        ("objects-11.json", "11.x", ("image", "logits"), 4),
        ("names-11.json", "11.x", ("image", "logits"), 4),
        ("objects-list.json", "10.x", (), 8),
        ("layer-info.json", "11.x", (), 4),
    ],
)
def test_every_kind_of_file_is_read(name, schema, bindings, count):
    found = layers(name)
    assert (found.schema, found.bindings, len(found.layers)) == (schema, bindings, count)
    assert bool(found.unclear) == name.startswith("names")
    assert found.ms is None


def test_objects_of_10_tell_types_nodes_and_weights():
    found = layers("objects-10.json")
    conv, shift, fc1 = found.layers[3:6]
    assert (conv.op, conv.nodes, conv.module) == ("Conv", ("stem/Conv", "stem/Relu"), "stem")
    assert (conv.dtype, conv.weights, conv.matrix) == ("int8", "int8", True)
    assert (shift.op, shift.module, shift.dtype) == ("Slice+Concat", "blocks.0.mixer.shift", "fp16")
    assert (fc1.op, fc1.weights, fc1.outputs[0].shape) == ("MatMul", "fp32", (1024, 256))
    assert [layer.reformat for layer in found.layers] == [True, False, True, *[False] * 5]
    assert next(share for share in found.by_module(1) if share.name == "blocks").dtypes == {"fp16": 2, "fp32": 1}


def test_names_alone_still_tell_modules_and_operators():
    *_, foreign, head = layers("names-10.json").layers
    assert (foreign.op, foreign.module, foreign.dtype) == ("MatMul", "blocks.0", "unknown")
    assert (head.op, head.module) == ("Gemm", "head")
    (stem, *_) = layers("names-11.json").layers
    assert (stem.nodes, stem.module) == (("stem/Conv", "stem/Relu"), "stem")


def test_times_come_from_a_profile_in_order_of_equal_names():
    found = layers("objects-11.json", "profile-11.json")
    assert [layer.ms for layer in found.layers] == [0.1, 0.02, 0.03, 0.01]
    assert {share.name: share.ms for share in found.by_module()} == {
        "stem": 0.1,
        "blocks.0.mul": 0.02,
        "blocks.1.mul": 0.03,
        "head": 0.01,
    }
    ten = layers("objects-10.json", "profile-10.json")
    assert ten.ms == pytest.approx(0.8)
    assert ten.by_operator()[0].name == "MatMul"


def test_times_go_to_the_layers_of_the_profile_that_was_run(tmp_path):
    """An engine with two profiles has layers for each: `trtexec --useProfile=1` times those of the second."""
    of_both = ("fc1/MatMul", "head/Gemm", "fc1/MatMul [profile 1]", "head/Gemm [profile 1]")
    document = {"Layers": list(of_both), "Bindings": ["x", "y", "x [profile 1]", "y [profile 1]"]}
    (tmp_path / "layers.json").write_text(json.dumps(document))
    for ran, expected in ((of_both[2:], [None, None, 1.0, 2.0]), (of_both[:2], [1.0, 2.0, None, None])):
        rows = [{"name": name, "averageMs": ms} for name, ms in zip(ran, (1.0, 2.0), strict=True)]
        found = api.inspect_json(tmp_path / "layers.json", profile=write(tmp_path, [{"count": 9}, *rows]))
        assert [layer.ms for layer in found.layers] == expected
    # A name without that end in one of the files alone still fits.
    found = layers("names-10.json", "profile-10.json")
    assert found.layers[-1].ms == 0.03


def test_what_costs_time_for_nothing_is_told_with_what_mends_it():
    found = layers("objects-10.json", "profile-10.json").findings
    assert [(item.kind, item.layers, item.ms) for item in found] == [
        ("fp32 weights", ("blocks.0.fc1/MatMul",), 0.4),
        ("fp32 islands", ("blocks.0.norm/LayerNormalization",), 0.06),
        ("shifts as copies", ("blocks.0.mixer.shift/Shift/Slice + blocks.0.mixer.shift/Shift/Concat",), 0.05),
        ("reformats", ("Reformatting CopyNode for Input Tensor 0 to stem/Conv",), 0.03),
    ]
    assert all("--" in item.fix for item in found)
    assert layers("objects-11.json").findings == ()


def test_quantizing_at_the_edge_is_seen_in_files_that_do_not_list_inputs_and_outputs(tmp_path):
    """A list of layers alone; and layers by name alone, of which only the order tells."""
    listed = [(item.kind, item.layers) for item in layers("objects-list.json").findings]
    assert listed == [(item.kind, item.layers) for item in layers("objects-10.json").findings]
    assert "Q/DQ not fused" not in {item.kind for item in layers("names-10.json").findings}
    names = [f"Reformatting CopyNode for {name}" if name == "in" else name for name in ("in", *NAMES)]
    (found,) = api.inspect_json(
        write(tmp_path, {"Layers": [*names, *(f"{name} [profile 1]" for name in NAMES)], "Bindings": ["x", "y"]})
    ).findings
    assert found.layers == ("b/DequantizeLinear", "b/DequantizeLinear")


NAMES = ("x_QuantizeLinear", "a/MatMul", "b/DequantizeLinear", "b/Relu", "y_DequantizeLinear")


def tensor(name: str, dtype: str, shape: tuple[int, ...] = (4, 8)) -> dict:
    return {"Name": name, "Dimensions": list(shape), "Format": "kLINEAR", "Datatype": dtype}


def layer(node: str, before: dict, after: dict, kind: str = "kgen") -> dict:
    return {"Name": node, "LayerType": kind, "Inputs": [before], "Outputs": [after]}


def kinds_in(tmp_path: Path, *entries: dict) -> dict[str, tuple[str, ...]]:
    document = {"Layers": list(entries), "Bindings": ["image", "logits"]}
    found = api.inspect_json(write(tmp_path, document))
    assert isinstance(found, EngineLayers)
    return {item.kind: item.layers for item in found.findings}


def test_quantizing_at_the_edge_must_be_and_in_the_middle_is_told(tmp_path):
    assert kinds_in(
        tmp_path,
        layer("Reformatting CopyNode", tensor("image", "Float"), tensor("a", "Half"), "Reformat"),
        layer("stem/QuantizeLinear_1", tensor("a", "Half"), tensor("b", "Int8")),
        layer("a/DequantizeLinear", tensor("b", "Int8"), tensor("c", "Half")),
        layer("a/Relu", tensor("c", "Half"), tensor("d", "Half")),
        layer("head/DequantizeLinear", tensor("d", "Int8"), tensor("logits", "Half")),
    ) == {"Q/DQ not fused": ("a/DequantizeLinear",)}


def test_conversions_tiny_gemms_and_foreign_copies_are_told(tmp_path):
    small, free = (4, 8), (-1, 8)
    assert kinds_in(
        tmp_path,
        layer("fc1/MatMul", tensor("image", "Half"), tensor("a", "Half", small), "gemm"),
        layer("Reformatting CopyNode", tensor("a", "Half"), tensor("b", "Int8"), "Reformat"),
        layer("fc2/MatMul", tensor("b", "Int8"), tensor("c", "Half", small), "gemm"),
        layer("/blocks.0/Slice_3 + /blocks.0/Concat", tensor("c", "Half"), tensor("d", "Half")),
        layer("blocks.0/Reshape", tensor("d", "Half"), tensor("e", "Half")),
        layer("fc3/MatMul", tensor("e", "Half"), tensor("logits", "Half", free), "gemm"),
    ) == {
        "conversions": ("Reformatting CopyNode",),
        "tiny shapes": ("fc1/MatMul", "fc2/MatMul"),
        "copies": ("/blocks.0/Slice_3 + /blocks.0/Concat",),
    }


def test_a_profile_of_another_engine_is_refused_and_rows_of_no_layer_are_told(tmp_path):
    with pytest.raises(InputError, match="of another engine"):
        api.inspect_json(
            FILES / "names-11.json", profile=write(tmp_path, [{"count": 1}, {"name": "x", "averageMs": 1.0}])
        )
    rows = json.loads((FILES / "profile-11.json").read_text())
    found = api.inspect_json(
        FILES / "objects-11.json", profile=write(tmp_path, [*rows, {"name": "x", "averageMs": 1.0}])
    )
    assert isinstance(found, EngineLayers)
    assert found.unclear == ("1 of 5 rows of the profile, 1 of 1.16 ms, are of no layer that the file names",)


@pytest.mark.parametrize(
    ("name", "profile", "lost"),
    [("objects-11.json", "profile-10.json", "7 of 8 rows"), ("objects-10.json", "profile-11.json", "3 of 4 rows")],
)
def test_a_profile_that_shares_a_layer_alone_is_of_another_engine(name, profile, lost):
    """Both have a `head/Gemm`."""
    with pytest.raises(InputError, match=f"of another engine .*: {lost}") as caught:
        layers(name, profile)
    assert "export both in one run" in str(caught.value)
    assert layers("names-10.json", "profile-10.json").ms == pytest.approx(0.34)


def test_the_layers_of_a_parsed_network_take_no_times(tmp_path):
    """What the builder fuses is timed under the names of several; the layer that kept its own is not the whole."""
    document = json.loads((FILES / "objects-11.json").read_text()) | {"Source": "network"}
    with pytest.raises(InputError, match="parsed network") as caught:
        api.inspect_json(write(tmp_path, document), profile=FILES / "profile-11.json")
    assert "--exportLayerInfo" in str(caught.value)


def test_why_an_engine_was_not_inspected_is_not_guessed(tmp_path):
    """Without its GPU, without weights, for another target, or because it does not load."""
    document = json.loads((FILES / "objects-11.json").read_text()) | {"Source": "network"}
    found = api.inspect_json(write(tmp_path, document))
    assert isinstance(found, EngineLayers)
    assert "the built engine was not inspected" in written_by(found)


def test_runs_are_summed_up_and_profiles_are_still_read():
    found = api.inspect_json(FILES / "times.json")
    assert isinstance(found, RunTimes)
    spreads = {item.name: item for item in found.spreads}
    compute = spreads["compute"]
    assert (found.runs, compute.median, compute.p90, compute.p99, compute.max) == (10, 1.45, 1.8, 1.9, 1.9)
    assert set(spreads) == {"latency", "compute", "host to device", "device to host", "enqueue"}
    assert isinstance(api.inspect_json(FILES / "profile-10.json"), Profile)


def write(folder: Path, document: object) -> Path:
    path = folder / "file.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ('{"Layers": [{"Name": "a", "LayerT', "truncated"),
        ({"layers": [{"class_name": "Dense"}]}, "layer 0 is neither"),
        ({"Layers": [3]}, "layer 0 is neither"),
        ({"Layers": {}}, "no profile of"),
        ({"Layers": []}, "is empty"),
        ([{"computeMs": 1.0}, {"computeMs": "fast"}], "run 1 has no computeMs"),
        ({"nodes": 3}, "no profile of"),
        ([{"count": 0}], "no run was profiled"),
        ([{"count": -1}, {"name": "a", "averageMs": 1.0}], "no run was profiled"),
        ([{"count": 7}], "it times no layers"),
        ([{"count": 7}, {"name": "a", "averageMs": 0.0}], "are none"),
        ([{"count": 7}, {"name": "a", "averageMs": -1.0}], "are none"),
        ([{"cat": "Session", "name": "model_run", "dur": 5}], "it times no layers"),
        ([{"cat": "Node", "name": "a"}], "no run was profiled"),
        ("[]", "no layers|is empty"),
        ("", "truncated"),
    ],
)
def test_what_is_none_of_them_is_refused(tmp_path, document, message):
    with pytest.raises(ArtifactError, match=message) as caught:
        api.inspect_json(write(tmp_path, document))
    assert "exportProfile" in str(caught.value)


def test_a_profile_is_only_for_layers(tmp_path):
    with pytest.raises(InputError, match="this file has none"):
        api.inspect_json(FILES / "times.json", profile=FILES / "profile-10.json")
    with pytest.raises(ArtifactError, match="times of whole runs"):
        layers("objects-10.json", "times.json")
    for given in ("objects-list.json", "objects-10.json", "names-11.json"):
        with pytest.raises(ArtifactError, match="it has layers"):
            layers("objects-10.json", given)


@pytest.mark.parametrize("tensors", [5, "x", {"Name": "x"}, [None, 7], True])
def test_tensors_of_another_kind_are_none(tensors, tmp_path):
    path = tmp_path / "layers.json"
    path.write_text(json.dumps([{"Name": "fc1/MatMul", "Inputs": tensors, "Outputs": tensors}]))
    (layer,) = api.inspect_json(path).layers
    assert (layer.inputs, layer.outputs) == ((), ())


@pytest.mark.parametrize("key", ["computeMs", "latencyMs", "endEnqMs"])
def test_a_time_that_is_too_large_for_a_float_is_damage(key, tmp_path):
    path = tmp_path / "times.json"
    row = {"startEnqMs": 0.0, "endEnqMs": 1.0, "computeMs": 1.0, "latencyMs": 1.0} | {key: 10**399}
    path.write_text(json.dumps([row]))
    with pytest.raises(ArtifactError, match="no layers, times or profile"):
        api.inspect_json(path)
