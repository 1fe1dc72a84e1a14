"""Layers that parity saved, and were damaged since."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
import report_samples
from safetensors.numpy import save

pytest.importorskip("onnx_ir")
from s2mlp_deploy.api.saved_layers import INDEX, LayerWriter, rejudge_layers
from s2mlp_deploy.errors import ArtifactError, OutputError
from s2mlp_deploy.evidence.store import document_of

SIDES = ("reference", "candidate")


def write(folder: Path, tensors: bytes) -> Path:
    report = report_samples.layers(report_samples.layer("head"))
    index = {"kind": "saved layers", "schema_version": 2, "reports": [document_of(report)]}
    index["tensors"] = {"t.safetensors": hashlib.sha256(tensors).hexdigest()}
    (folder / INDEX).write_bytes(msgspec.json.encode(index))
    (folder / "t.safetensors").write_bytes(tensors)
    return folder


def named(number: str) -> bytes:
    return save({f"{number}/head/0/{side}": np.float32([1, 2]) for side in SIDES})


def test_what_is_whole_is_judged(tmp_path):
    (report,) = rejudge_layers(write(tmp_path, named("0")))
    assert report.layers[0].metrics.max_abs == 0


@pytest.mark.parametrize("number", ["\u00b2", "9" * 5000, "x", ""])
def test_a_number_of_a_report_that_is_none_is_damage(tmp_path, number):
    with pytest.raises(ArtifactError, match="damaged"):
        rejudge_layers(write(tmp_path, named(number)))


@pytest.mark.parametrize("kind", [b"BF16", b"F8_E8M0", b"F4"])
def test_a_type_that_numpy_has_not_is_damage(tmp_path, kind):
    data = named("0").replace(b'"F32"', b'"' + kind + b'"')
    tensors = data[8:].replace(b"  ", b"")
    head = tensors[: tensors.index(b"}}") + 2]
    sizes = len(head).to_bytes(8, "little")
    with pytest.raises(ArtifactError, match="damaged"):
        rejudge_layers(write(tmp_path, sizes + head + bytes(16)))


def test_a_folder_that_cannot_be_made_leaves_none_above_it(tmp_path):
    with pytest.raises(OutputError, match="too long") as caught:
        LayerWriter(tmp_path / "new" / ("long" * 100), [])
    assert list(tmp_path.iterdir()) == []
    assert caught.tb  # It keeps the writer, whose end would remove them too.
