"""Files added beside others: another command at work, older scores, a full disk."""

from __future__ import annotations

import contextlib
import errno
import json
import resource
from dataclasses import replace

import nano_artifact
import pytest

pytest.importorskip("torch")
from tiny_network import another, options

from s2mlp_deploy import api, locks
from s2mlp_deploy.api import evidence, quantizing
from s2mlp_deploy.api.evidence import save_scores
from s2mlp_deploy.artifact import METADATA_KEY, read_manifest, verify_file
from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine
from s2mlp_deploy.errors import OutputError
from s2mlp_deploy.evidence.accuracy import AccuracyReport
from s2mlp_deploy.evidence.store import read_evidence, read_record


@pytest.fixture
def no_locks(monkeypatch):
    """A file system without locks: another command may come between. Where there are locks it waits."""

    def refuse(handle):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks, "try_lock", refuse)


@pytest.mark.usefixtures("no_locks")
def test_two_quantizations_at_once_keep_each_others_files(artifact, images):
    def other(what: str, _done: int, _total: int | None) -> None:
        if what == "writing files":
            api.quantize(artifact, options(images, "fp16"))

    api.quantize(artifact, options(images, "int8"), progress=other)
    manifest = read_manifest(artifact)
    assert {file.precision for file in manifest.files} == {"fp32", "fp16", "int8", "int8-trt"}
    assert "model.fp16.onnx" in {item.file for item in manifest.precision_exceptions}
    for record in manifest.files:
        verify_file(artifact, record)


@pytest.mark.usefixtures("no_locks")
def test_files_of_a_model_that_was_replaced_meanwhile_are_not_added(artifact, images):
    replacement = another()

    def other(what: str, _done: int, _total: int | None) -> None:
        if what == "writing files":
            api.export(replacement, artifact, force=True)

    with pytest.raises(OutputError, match="replaced meanwhile") as caught:
        api.quantize(artifact, options(images, "int8"), progress=other)
    assert "run quantize again" in str(caught.value)
    manifest = read_manifest(artifact)
    assert [file.precision for file in manifest.files] == ["fp32"]
    verify_file(artifact, manifest.files[0])
    assert [path.name for path in artifact.glob("*.onnx")] == ["model.fp32.onnx"]


def test_a_manifest_that_is_old_by_now_loses_no_scores(artifact, images):
    """The scores are merged by the manifest on the disk: another command may have renewed it since."""
    fp16 = api.quantize(artifact, options(images, "fp16"))
    converted = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantizing, "save_scores", lambda *given: converted.append(given) or fp16.accuracy)
        api.quantize(artifact, options(images, "int8"))
    root, manifest, ranges, measured, *_ = converted[0]
    old = replace(manifest, files=tuple(file for file in manifest.files if file.precision != "fp16"))
    saved = save_scores(root, old, ranges, measured)
    assert [row.precision for row in saved.rows] == ["fp32", "int8", "int8-trt", "fp16"]
    assert read_record(artifact, AccuracyReport, saved.label) == saved


def test_evidence_is_saved_under_the_artifacts_lock(artifact, monkeypatch):
    held = []

    @contextlib.contextmanager
    def lock(directory):
        held.append(directory)
        yield
        held.clear()

    monkeypatch.setattr(evidence, "lock_artifact", lock)
    monkeypatch.setattr(evidence, "save_record", lambda *_: held or pytest.fail("no lock"))
    monkeypatch.setattr(evidence, "write_report", lambda *_: held or pytest.fail("no lock"))
    evidence.save_evidence(artifact, object())
    assert held == []


def test_float16_alone_leaves_the_calibration_of_quantized_files(artifact, images):
    first = api.quantize(artifact, options(images, "fp16", "int8")).manifest.calibration
    saved = (artifact / "evidence" / "calibration.json").read_bytes()
    second = api.quantize(artifact, options(images, "fp16", samples=16, eval_samples=16)).manifest.calibration
    assert second == replace(first, files=("model.int8.onnx", "model.int8-trt.onnx"))
    assert (artifact / "evidence" / "calibration.json").read_bytes() == saved
    told = json.loads(OnnxRuntimeEngine(artifact / "model.fp16.onnx").metadata[METADATA_KEY])
    assert told["calibration"]["samples"] == 16
    # Scores on other data take none away, until their files are made anew.
    assert scored(artifact) == [
        (16, ["model.fp32.onnx", "model.fp16.onnx"]),
        (40, ["model.fp32.onnx", "model.fp16.onnx", "model.int8.onnx", "model.int8-trt.onnx"]),
    ]
    api.quantize(artifact, options(images, "fp16", "int8", method="minmax", samples=16, eval_samples=16))
    assert [images for images, _ in scored(artifact)] == [16]


def scored(artifact):
    return sorted((r.images, [row.file for row in r.rows]) for r in read_evidence(artifact).newest(AccuracyReport))


def test_a_full_disk_while_adding_files_leaves_the_artifact_as_it_was(artifact, images):
    api.quantize(artifact, options(images))
    before = nano_artifact.snapshot(artifact)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(what: str, _done: int, _total: int | None) -> None:
        if what == "writing files":
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))

    try:
        with pytest.raises(OutputError):
            api.quantize(artifact, options(images, method="entropy"), progress=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert nano_artifact.snapshot(artifact) == before
