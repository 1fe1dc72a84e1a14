"""The layers of engines on an artifact's page: of which engine, by module and operator, with what mends them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from report_samples import artifact, build, manifest, page_of

from s2mlp_deploy import api
from s2mlp_deploy.evidence.engine_layers import EngineLayers
from s2mlp_deploy.evidence.store import Evidence, Saved
from s2mlp_deploy.report.page.engine_layers import view_engine_layers

FILES = Path(__file__).parents[2] / "engines" / "tensorrt" / "layer_files"


def layers(name: str = "objects-10.json", profile: str | None = "profile-10.json") -> EngineLayers:
    found = api.inspect_json(FILES / name, profile=None if profile is None else FILES / profile)
    assert isinstance(found, EngineLayers)
    return replace(found, engine=build().engine, engine_sha256=build().engine_sha256)


def view(found: EngineLayers):
    saved = Evidence((Saved("build-x.json", build()), Saved("engine-layers-x.json", found)))
    (one,) = view_engine_layers(manifest(), saved)
    return one


def test_bars_are_as_long_as_their_time_and_coloured_by_type() -> None:
    found = view(layers())
    (_, modules), (_, operators) = found.groups
    assert found.timed
    assert operators[0].name == "MatMul"
    assert [part[0] for part in operators[0].parts] == ["p2"]
    assert operators[0].parts[0][1:] == (0, 100)
    assert all(sum(part[2] for part in bar.parts) <= 100.1 for bar in (*modules, *operators))
    assert {colour for bar in modules for colour, *_ in bar.parts} <= {colour for colour, _ in found.legend}
    assert not found.stale
    assert view(replace(layers(), engine_sha256="0" * 64)).stale


def test_without_times_bars_are_numbers_of_layers() -> None:
    found = view(layers("names-11.json", None))
    assert not found.timed
    assert found.groups[0][1][0].words.endswith("layers") or found.groups[0][1][0].words.endswith("layer")
    assert [name for _, name in found.legend] == ["other, or not known"]
    assert found.unclear
    of_network = view(replace(layers("names-11.json", None), source="network"))
    assert dict(of_network.facts)["Layers"].endswith(", without constants and computations of shapes")


def test_the_page_draws_them_with_findings_and_figures(tmp_path) -> None:
    kept = replace(layers(), layers=tuple(replace(item, module="<b>x</b>") for item in layers().layers))
    page = page_of(artifact(tmp_path / "out", build_x=build(), engine_layers_x=kept))
    assert f"Layers of {build().engine}" in page.body
    assert "<b>x</b>" in page.body, "a module's name is text"
    assert "--shift-form" in page.body
    assert "0.400" in page.body
    assert "of an older file" not in page.body
