"""An engine in pieces: what is kept, what a machine with its GPU makes of it, and what is refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from s2mlp_deploy import api
from s2mlp_deploy.api import cutting, pieces
from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine
from s2mlp_deploy.errors import ArtifactError, InputError, OutputError, TargetError
from s2mlp_deploy.evidence.build import BuildRecord
from s2mlp_deploy.gpu import gpus


@pytest.fixture
def engine(artifact, monkeypatch):
    """An engine file, and a builder and a runtime that use the ONNX files instead: no library and no GPU is asked."""
    onnx = artifact / "model.fp32.onnx"
    record = BuildRecord(
        onnx=onnx.name,
        onnx_sha256=hashlib.sha256(onnx.read_bytes()).hexdigest(),
        engine="model.engine",
        engine_sha256="",
        bytes=1,
        flavour="tensorrt-rtx",
        version="1.0",
        targets=("sm89",),
        profiles=(),
        layers=1,
        layer_dtypes={},
        seconds=0.0,
        platform="",
        precision=None,
        inputs=(),
        outputs=(),
        arguments=(),
        key="",
    )

    def build(file, *, output, **options):
        assert options["engine"] == "tensorrt-rtx"
        assert set(options["opt_shapes"])
        output.write_bytes(file.read_bytes())
        sha256 = hashlib.sha256(output.read_bytes()).hexdigest()
        return replace(record, engine=output.name, engine_sha256=sha256)

    monkeypatch.setattr(cutting, "read_engine", lambda _: record)
    monkeypatch.setattr(pieces, "build", build)
    monkeypatch.setattr(pieces, "open_file", lambda path, **_: OnnxRuntimeEngine(path.read_bytes(), threads=1))
    (artifact / "model.engine").write_bytes(b"engine")
    return artifact / "model.engine"


def test_pieces_are_kept_and_judged_where_they_run(engine, captured, tmp_path):
    made = api.engine_pieces(captured, engine, tmp_path / "kept", pieces=3)
    assert len(made.pieces) == 3
    assert made.images == 2
    names = {path.name for path in (tmp_path / "kept").iterdir()}
    assert names == {"pieces.json", "tensors.safetensors"} | {
        f"piece-{number:02}.{kind}" for number in range(3) for kind in ("onnx", "engine")
    }
    report = api.judge_pieces(tmp_path / "kept")
    assert report.passed
    assert [layer.kind for layer in report.layers] == ["piece"] * 3
    with pytest.raises(OutputError, match="something is there already"):
        api.engine_pieces(captured, engine, tmp_path / "kept")


def test_the_piece_with_the_fault_is_named_and_none_behind_it(engine, captured, tmp_path, monkeypatch):
    kept = tmp_path / "kept"
    made = api.engine_pieces(captured, engine, kept, pieces=3)

    class Wrong(OnnxRuntimeEngine):
        def run(self, feeds):
            return {name: value * np.float32(1.1) for name, value in super().run(feeds).items()}

    def opened(path, **_):
        return (Wrong if "01" in path.name else OnnxRuntimeEngine)(path.read_bytes(), threads=1)

    monkeypatch.setattr(pieces, "open_file", opened)
    report = api.judge_pieces(kept)
    assert [bool(layer.failures) for layer in report.layers] == [False, True, False]
    assert report.first.path == ", ".join(made.pieces[1].modules)


def test_what_cannot_be_cut_or_judged_is_refused(engine, captured, tmp_path):
    with pytest.raises(InputError, match="it is no engine"):
        api.engine_pieces(captured, engine.with_name("model.fp32.onnx"), tmp_path / "other")
    kept = tmp_path / "kept"
    api.engine_pieces(captured, engine, kept, pieces=2)
    index = json.loads((kept / "pieces.json").read_text())

    def refused(text):
        with pytest.raises(ArtifactError, match=text):
            api.judge_pieces(kept)

    (kept / "pieces.json").write_text(json.dumps(index | {"schema_version": 9}))
    refused("schema version 9")
    (kept / "pieces.json").write_text(json.dumps(index | {"tensors_sha256": "0"}))
    refused("another hash")
    (kept / "pieces.json").write_text(json.dumps(index | {"pieces": [index["pieces"][0] | {"engine": "../x.engine"}]}))
    refused("another than was built")
    (engine.parent / "model.fp32.onnx").write_bytes(b"another")
    with pytest.raises(ArtifactError, match="is another than the engine was built from"):
        api.engine_pieces(captured, engine, tmp_path / "more")


@pytest.mark.slow
@pytest.mark.skipif(bool(gpus()), reason="this machine has a GPU")
def test_tensorrt_rtx_builds_pieces_without_a_gpu_and_says_where_they_run(artifact, captured, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    record = api.build(artifact, engine="tensorrt-rtx", targets=["sm89"], precision="fp32")
    made = api.engine_pieces(captured, artifact / record.engine, tmp_path / "kept", pieces=2)
    assert len(made.pieces) == 2
    assert made.targets == ("sm89",)
    with pytest.raises(TargetError, match="needs an NVIDIA GPU"):
        api.judge_pieces(tmp_path / "kept")
