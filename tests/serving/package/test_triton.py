"""Model repositories, read with Triton's own definition of a configuration."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import report_samples
from image_artifact import CLASSES, write_image_artifact

from s2mlp_deploy.artifact import SizeLimit, read_manifest
from s2mlp_deploy.engines.record import write_sidecar
from s2mlp_deploy.errors import ArtifactError, InputError, OutputError, TargetError
from s2mlp_deploy.evidence.build import InputProfile
from s2mlp_deploy.evidence.tune import EngineSettings
from s2mlp_deploy.serving.package import triton
from s2mlp_deploy.serving.package.result import PackageOptions
from s2mlp_deploy.serving.package.triton import write_triton
from s2mlp_deploy.serving.plan import RunPlan, plan_run

PROFILE = {"image": InputProfile((1, 3, 8, 8), (4, 3, 8, 8), (6, 3, 8, 8))}


def read(path: Path):
    """A configuration, as Triton reads it."""
    pytest.importorskip("tritonclient")
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


@pytest.fixture
def write(tmp_path):
    def write(options: PackageOptions | None = None, *, engine: str = "onnxruntime", settings=None, **artifact):
        source = tmp_path / "a"
        if not source.exists():
            write_image_artifact(source, **artifact)
        plan = plan_run(source, engine=engine)
        plan = plan if settings is None else replace(plan, settings=settings)
        return write_triton(tmp_path / "repository", read_manifest(source), plan, options or PackageOptions())

    return write


def test_a_model_of_images_for_onnx_runtime(write, tmp_path):
    package = write(settings=EngineSettings(threads=2))
    home = tmp_path / "repository" / "colours"
    config = read(home / "config.pbtxt")
    assert (config.name, config.backend, config.max_batch_size) == ("colours", "onnxruntime", 8)
    assert [(item.name, list(item.dims)) for item in config.input] == [("image", [3, 8, 8])]
    # TYPE_FP32 of model_config.proto
    assert {item.data_type for item in (*config.input, *config.output)} == {11}
    assert {item.name: item.label_filename for item in config.output} == {
        "features": "",
        "means": "",
        "logits": "labels.txt",
    }
    assert config.dynamic_batching.max_queue_delay_microseconds == 2000
    assert config.instance_group[0].Kind.Name(config.instance_group[0].kind) == "KIND_CPU"
    assert config.parameters["intra_op_thread_count"].string_value == "2"
    assert [(item.batch_size, list(item.inputs["image"].dims)) for item in config.model_warmup] == [
        (1, [3, 8, 8]),
        (8, [3, 8, 8]),
    ]
    assert (home / "labels.txt").read_text().split() == list(CLASSES)
    assert (home / "1" / "model.onnx").read_bytes() == (tmp_path / "a" / "model.fp32.onnx").read_bytes()
    assert package.files == ("colours/config.pbtxt", "colours/labels.txt", "colours/1/model.onnx")
    assert sorted(str(path.relative_to(home.parent)) for path in home.rglob("*.*")) == sorted(package.files)
    assert package.commands == (f"tritonserver --model-repository={tmp_path / 'repository'}",)


def test_weights_beside_the_graph_are_found_there(write, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    package = write(beside=True)
    home = tmp_path / "repository" / "colours" / "1"
    assert "colours/1/model.fp32.onnx.data" in package.files
    session = onnxruntime.InferenceSession(home / "model.onnx")
    session.run(None, {"image": np.zeros((2, 3, 8, 8), np.float32)})


def test_openvino_promises_float32(write, tmp_path):
    write(engine="openvino", settings=EngineSettings(threads=3))
    config = read(tmp_path / "repository" / "colours" / "config.pbtxt")
    assert (config.backend, config.default_model_filename) == ("openvino", "model.onnx")
    assert {key: value.string_value for key, value in config.parameters.items()} == {
        "HINT_BF16": "NO",
        "INFERENCE_NUM_THREADS": "3",
    }


def test_a_fixed_batch_is_no_batch_of_tritons(write, tmp_path):
    package = write(batch=4)
    config = read(tmp_path / "repository" / "colours" / "config.pbtxt")
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert list(config.input[0].dims) == [4, 3, 8, 8]
    assert [(item.batch_size, list(item.inputs["image"].dims)) for item in config.model_warmup] == [(1, [4, 3, 8, 8])]
    assert any("fixed" in note for note in package.notes)


@pytest.mark.parametrize(
    ("limit", "batch", "note"),
    [
        ({"max": 5}, 5, "at most 5"),
        ({"max": 100}, 8, ""),
        ({"multiple": 2}, 0, "does not take every number"),
        ({"min": 2}, 0, "does not take every number"),
    ],
)
def test_what_the_model_takes_bounds_the_batch(write, tmp_path, limit, batch, note):
    package = write(limits=(SizeLimit("image", 0, "batch", **limit),))
    assert read(tmp_path / "repository" / "colours" / "config.pbtxt").max_batch_size == batch
    assert any(note in told for told in package.notes) if note else not package.notes


def plan_of_engine(folder: Path, **flags: bool) -> RunPlan:
    engine = folder / "model.fp32.tensorrt.sm89.engine"
    record = replace(report_samples.build(), flavour="tensorrt", engine=engine.name, profiles=(PROFILE,), flags=flags)
    engine.write_bytes(b"plan")
    write_sidecar(engine, replace(record, engine_sha256=hashlib.sha256(b"plan").hexdigest()))
    return RunPlan(folder, engine.name, "fp32", "tensorrt", EngineSettings(), "engine", "asked", "holds")


def test_an_engine_is_batched_within_its_profile(tmp_path):
    write_image_artifact(tmp_path / "a")
    manifest = read_manifest(tmp_path / "a")
    plan = plan_of_engine(tmp_path / "a")
    package = write_triton(tmp_path / "repository", manifest, plan, PackageOptions(max_batch=16, instances=2))
    config = read(tmp_path / "repository" / "colours" / "config.pbtxt")
    assert (config.backend, config.max_batch_size) == ("tensorrt", 6)
    (group,) = config.instance_group
    assert (group.Kind.Name(group.kind), group.count, list(group.profile)) == ("KIND_GPU", 2, ["0"])
    assert [item.batch_size for item in config.model_warmup] == [1, 6]
    assert (tmp_path / "repository" / "colours" / "1" / "model.plan").read_bytes() == b"plan"
    assert any("at most 6 samples" in note for note in package.notes)
    assert "version-compatible" not in " ".join(package.commands)


def test_an_engine_that_loads_in_later_versions_is_said_to_triton(tmp_path):
    write_image_artifact(tmp_path / "a")
    plan = plan_of_engine(tmp_path / "a", version_compatible=True)
    package = write_triton(tmp_path / "repository", read_manifest(tmp_path / "a"), plan, PackageOptions())
    assert package.commands[0].endswith(" --backend-config=tensorrt,version-compatible=true")


def test_an_engine_without_weights_or_that_was_changed_is_not_packaged(tmp_path):
    write_image_artifact(tmp_path / "a")
    manifest, plan = read_manifest(tmp_path / "a"), plan_of_engine(tmp_path / "a", strip_plan=True)
    with pytest.raises(InputError, match="no weights"):
        write_triton(tmp_path / "r", manifest, plan, PackageOptions())
    plan = plan_of_engine(tmp_path / "a")
    plan.path.write_bytes(b"another plan")
    with pytest.raises(ArtifactError, match="not the one its sidecar describes"):
        write_triton(tmp_path / "r", manifest, plan, PackageOptions())
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("engine", "says"), [("tensorrt-rtx", "build one with --engine tensorrt"), ("openvino:GPU", "choose --engine")]
)
def test_what_triton_does_not_run(tmp_path, engine, says):
    write_image_artifact(tmp_path / "a")
    plan = replace(plan_run(tmp_path / "a", engine="onnxruntime"), engine=engine)
    with pytest.raises(TargetError, match=says):
        write_triton(tmp_path / "r", read_manifest(tmp_path / "a"), plan, PackageOptions())
    assert not (tmp_path / "r").exists()


def test_further_versions_share_one_configuration(write, tmp_path):
    write()
    package = write(PackageOptions(version=2))
    assert package.files == ("colours/2/model.onnx",)
    home = tmp_path / "repository" / "colours"
    assert {path.name for path in home.iterdir()} == {"1", "2", "config.pbtxt", "labels.txt"}
    with pytest.raises(OutputError, match="something in the place"):
        write(PackageOptions(version=2))
    before = (home / "config.pbtxt").read_bytes()
    with pytest.raises(OutputError, match="another config"):
        write(PackageOptions(version=3, max_batch=4))
    assert (home / "config.pbtxt").read_bytes() == before
    assert not (home / "3").exists()


def test_a_full_disk_leaves_nothing(write, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(triton.shutil, "copyfile", full)
    with pytest.raises(OutputError, match="No space left"):
        write()
    assert not (tmp_path / "repository").exists()


def test_element_types_without_a_name_are_refused(tmp_path):
    write_image_artifact(tmp_path / "a")
    manifest = read_manifest(tmp_path / "a")
    odd = replace(manifest, inputs=(replace(manifest.inputs[0], dtype="float8_e4m3fn"),))
    with pytest.raises(InputError, match="no element type"):
        write_triton(tmp_path / "r", odd, plan_run(tmp_path / "a"), PackageOptions())


def test_outputs_that_count_other_things_than_samples_are_not_cut_among_requests(tmp_path):
    write_image_artifact(tmp_path / "a")
    manifest = read_manifest(tmp_path / "a")
    found = replace(manifest.outputs[0], shape=("count", *manifest.outputs[0].shape[1:]))
    odd = replace(manifest, outputs=(found, *manifest.outputs[1:]))
    package = write_triton(tmp_path / "r", odd, plan_run(tmp_path / "a"), PackageOptions())
    assert any("requests share no run" in note for note in package.notes)


def test_a_tensor_without_an_axis_is_refused(tmp_path):
    write_image_artifact(tmp_path / "a")
    manifest = read_manifest(tmp_path / "a")
    odd = replace(manifest, outputs=(*manifest.outputs, replace(manifest.outputs[0], name="loss", shape=())))
    with pytest.raises(InputError, match="without an axis"):
        write_triton(tmp_path / "r", odd, plan_run(tmp_path / "a"), PackageOptions())
    assert not (tmp_path / "r").exists()


def test_others_can_read_what_a_careful_user_wrote(write, tmp_path):
    before = os.umask(0o077)
    try:
        write()
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "repository" / "colours").rglob("*") if path.is_file()}
    assert modes == {0o644}
    assert (tmp_path / "repository" / "colours" / "1").stat().st_mode & 0o777 == 0o755


def test_what_was_tuned_and_triton_cannot_do_is_told(write):
    settings = EngineSettings(spin=False, optimize="basic", flush_denormals=True)
    notes = " ".join(write(settings=settings).notes)
    assert "spinning" in notes
    assert "subnormal" in notes
    assert "as `tune` chose" in notes
