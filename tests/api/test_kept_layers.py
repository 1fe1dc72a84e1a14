"""The layers that a build keeps in the artifact are those of the engine that it wrote, wherever that lies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from report_samples import artifact, build

from s2mlp_deploy.api import engines, evidence, inspecting_layers
from s2mlp_deploy.engines.sidecar import layers_of
from s2mlp_deploy.errors import MissingDependencyError
from s2mlp_deploy.evidence.build import BuildRecord
from s2mlp_deploy.evidence.engine_layers import EngineLayers
from s2mlp_deploy.evidence.store import read_evidence
from s2mlp_deploy.files import sha256_of


def written(folder: Path, layer: str, name: str = build().engine) -> BuildRecord:
    folder.mkdir(exist_ok=True)
    engine = folder / name
    engine.write_text(layer)
    layers_of(engine).write_text(f'{{"Layers": ["{layer}/MatMul"], "Bindings": []}}')
    return replace(build(), engine=name, engine_sha256=sha256_of(engine))


@pytest.mark.parametrize("name", [build().engine, "other.engine"])
def test_an_engine_written_elsewhere_keeps_its_own_layers(tmp_path, monkeypatch, name):
    out, graph = artifact(tmp_path / "out"), tmp_path / "out" / build().onnx
    written(out, "old")
    record = written(tmp_path / "srv", "new", name)
    monkeypatch.setattr(engines.builder, "build", lambda *_, **__: record)
    engines.build(graph, output=tmp_path / "srv" / name)
    (kept,) = read_evidence(out).of(EngineLayers)
    assert (kept.record.engine_sha256, kept.record.layers[0].module) == (record.engine_sha256, "new")


def test_layers_of_an_engine_that_was_replaced_meanwhile_are_not_kept(tmp_path, monkeypatch):
    out = artifact(tmp_path / "out")
    record = replace(written(out, "old"), engine_sha256="f" * 64)
    monkeypatch.setattr(engines.builder, "build", lambda *_, **__: record)
    engines.build(out / record.onnx)
    assert read_evidence(out).of(EngineLayers) == ()


def test_evidence_is_kept_where_nothing_draws_pages(tmp_path, monkeypatch, caplog):
    out = artifact(tmp_path / "out")
    written(out, "old")

    def missing(_):
        raise MissingDependencyError("jinja2", extra="onnx", purpose="writing HTML reports")

    monkeypatch.setattr(evidence, "write_report", missing)
    inspecting_layers.keep_layers(layers_of(out / build().engine), out)
    assert len(read_evidence(out).of(EngineLayers)) == 1
    assert "the artifact's report was not written anew" in caplog.text
