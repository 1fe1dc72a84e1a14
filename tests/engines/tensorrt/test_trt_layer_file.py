"""Layers, profiles and times of trtexec, in files made by hand from the documented schema of 10.x and 11.x."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from s2mlp_deploy import api
from s2mlp_deploy.errors import ArtifactError, InputError
from s2mlp_deploy.evidence.engine_layers import EngineLayers, RunTimes
from s2mlp_deploy.evidence.profile import Profile

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
    assert found.unclear == ("1 rows of the profile are of no layer that the file names",)


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
    with pytest.raises(ArtifactError, match="no profile of"):
        layers("objects-10.json", "objects-10.json")
