"""Layers compared, as a chart: what is drawn where, what is marked, and what is of other files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from report_samples import artifact, layer, layers, manifest, page_of

from s2mlp_deploy.evidence.layers import Bisection, Mend
from s2mlp_deploy.evidence.store import read_evidence
from s2mlp_deploy.metrics import TensorMetrics
from s2mlp_deploy.report.page.layers import LayersView, view_layers


def chart(directory: Path, **evidence: object) -> LayersView | None:
    return view_layers(manifest(), read_evidence(artifact(directory, **evidence)))


@pytest.fixture
def weightless():
    """Of the weights that the sample manifest names."""
    return lambda *found: replace(layers(*found), weights=None)


def test_the_limit_is_a_line_and_the_first_past_it_is_marked(tmp_path: Path, weightless):
    view = chart(tmp_path, layers_a=weightless(layer("a"), layer("b", 1.0), layer("c", 2.0)))
    (series,) = view.series
    assert series.first[2] == "b"
    assert series.first[0] == 50
    assert series.first[1] < view.limit
    assert (view.limit, "limit") in view.ticks
    assert series.verdict == "first past its limit is b, 2 layers in all"
    assert [row[0].text for row in series.table.rows] == ["a", "b", "c"]
    assert series.table.rows[1][0].note == "Linear, net.py:12, first past its limit"
    assert all(len(row) == len(series.table.columns) for row in series.table.rows)


def test_files_share_the_places_of_their_layers(tmp_path: Path, weightless):
    several = {
        "layers_a": weightless(layer("a"), layer("b"), layer("c")),
        "layers_b": replace(weightless(layer("b"), layer("extra"), layer("c")), candidate="another"),
    }
    first, second = chart(tmp_path, **several).series
    places = [[point.split()[0] for point in item.line[1:].split("L")] for item in (first, second)]
    assert places[0] == ["125", "375", "875"]
    assert places[1] == ["375", "625", "875"]
    assert first.dash != second.dash


def test_what_is_no_number_is_at_the_top_and_what_is_equal_at_the_bottom(tmp_path: Path, weightless):
    broken = replace(layer("a"), metrics=replace(layer("a").metrics, max_abs=None, not_finite=3))
    equal = replace(layer("b"), metrics=TensorMetrics(0.0, 1.0, 0.0, 1.0, None, 4))
    view = chart(tmp_path, layers_a=weightless(broken, equal))
    assert [point.split()[1] for point in view.series[0].line[1:].split("L")] == ["0", "240"]


def test_other_files_and_weights_are_counted_and_not_drawn(tmp_path: Path, weightless):
    assert chart(tmp_path / "none") is None
    view = chart(tmp_path / "old", layers_a=replace(weightless(), file_sha256="1" * 64), layers_b=layers())
    assert (view.series, view.stale) == ((), 2)
    assert "2 comparisons by layer are of older files or other weights" in page_of(tmp_path / "old").body


def test_what_was_tried_is_told(tmp_path: Path, weightless):
    found = Bisection("b", "net.py:7", ("a",), (Mend("higher precision", "quantize --exclude b", layer=layer("b")),))
    page = page_of(artifact(tmp_path, layers_a=replace(weightless(layer("a"), layer("b", 1.0)), bisection=found)))
    assert "b (net.py:7)" in page.body
    assert "helps: b max abs" in page.body
    assert "quantize --exclude b" in page.of("code")
