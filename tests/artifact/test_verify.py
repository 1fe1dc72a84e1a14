"""Whether files are those that the manifest describes."""

from __future__ import annotations

import hashlib

import pytest
from tiny_artifact import make_manifest, write_tiny

from s2mlp_deploy.artifact import ArtifactWriter, verify_file, verify_precision
from s2mlp_deploy.errors import ArtifactError
from s2mlp_deploy.files import sha256_of


def test_an_untouched_file_verifies(tmp_path):
    manifest = write_tiny(tmp_path)
    assert verify_file(tmp_path, manifest.files[0]) == tmp_path / "model.fp32.onnx"


def test_a_changed_file_and_a_missing_one_are_told_apart(tmp_path):
    record = write_tiny(tmp_path).files[0]
    path = tmp_path / record.path
    path.write_bytes(b"grapH")
    with pytest.raises(
        ArtifactError, match=r"not the one its manifest describes[\s\S]*model\.fp32\.onnx[\s\S]*--force"
    ):
        verify_file(tmp_path, record)
    path.unlink()
    with pytest.raises(ArtifactError, match=r"missing[\s\S]*model\.fp32\.onnx[\s\S]*--force"):
        verify_file(tmp_path, record)


def test_hashes_are_of_the_whole_file(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_the_weights_beside_a_graph_are_verified_with_it(tmp_path):
    with ArtifactWriter(tmp_path / "out") as writer:
        files = {"model.fp32.onnx": ("fp32", 1), "model.fp32.onnx.data": ("fp32", 0)}
        for name in files:
            (writer.staging / name).write_bytes(name.encode())
        manifest = writer.commit(make_manifest(), files)
    assert verify_precision(tmp_path / "out", manifest, "fp32") == tmp_path / "out" / "model.fp32.onnx"
    (tmp_path / "out" / "model.fp32.onnx.data").write_bytes(b"other")
    with pytest.raises(ArtifactError, match="not the one its manifest describes"):
        verify_precision(tmp_path / "out", manifest, "fp32")
