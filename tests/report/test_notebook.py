"""Records and pages in a notebook, without one: what it asks objects for."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from report_samples import Page, accuracy, artifact, bench, build, calibration, engine_layers, layers, modules, tune
from report_samples import report as parity_report

from s2mlp_deploy import api, report
from s2mlp_deploy.errors import ArtifactError
from s2mlp_deploy.evidence import notebook
from s2mlp_deploy.evidence.difference import DifferenceReport
from s2mlp_deploy.evidence.engine_difference import EngineDifference, EngineFacts
from s2mlp_deploy.evidence.engine_layers import RunTimes, Spread
from s2mlp_deploy.evidence.store import KINDS
from s2mlp_deploy.report.html import write_report
from s2mlp_deploy.report.notebook import NotebookPage

ENGINE = EngineFacts("a.engine.layers.json", "11.x", 1, 0, {"float32": 1}, None, ())
RECORDS = {
    "parity": (parity_report(), "Parity of model.fp32.onnx: holds"),
    "accuracy": (accuracy(), "top-1 accuracy, in points, on 1000 photos"),
    "layers": (layers(), "Layers of model.fp32.onnx: all hold"),
    "engine-layers": (engine_layers(), "Layers of model.fp32.tensorrt-rtx.sm86.engine"),
    "modules": (modules(), "Modules of model.fp32.onnx"),
    "calibration": (calibration(), "percentile"),
    "build": (build(), "Built model.fp32.tensorrt-rtx.sm86.engine"),
    "bench": (bench(), "Bench, single-stream"),
    "tune": (tune(), "Tune, batch 1"),
    "times": (RunTimes("times.json", 9, (Spread("latency", 1.0, 2.0, 3.0, 4.0),)), "9 runs in times.json"),
    "difference": (DifferenceReport("a", "b", (), ("model.fp16.onnx",)), "only in A: model.fp16.onnx"),
    "two engines": (
        EngineDifference(ENGINE, ENGINE, (), (), False),
        "The layers are the same",
    ),
    "profile": (bench().results[0].profile, "Where the time goes in a run"),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_a_record_is_shown_as_a_terminal_shows_it(kind):
    assert api.__all__, "the door hands over what draws"
    record, words = RECORDS[kind]
    shown = record._repr_html_()
    page = Page(shown)
    assert page.mistakes == []
    assert shown.startswith("<pre")
    assert words in page.of("pre")[0]
    colours = set(re.findall(r"color: (#[0-9a-f]{6})", shown))
    assert colours <= {"#5a6675", "#136c37", "#b3201b", "#8a5300", "#1a2029"}, "all of 4.5 to 1 on white"


def test_every_kind_of_evidence_is_shown():
    assert {kind.record for kind in KINDS} <= {type(record) for record, _ in RECORDS.values()}


def test_names_of_others_are_text():
    evil = "<script>alert(1)</script>\u202e"
    shown = replace(parity_report(), candidate=evil, reference=evil)._repr_html_()
    assert "script" not in {tag for tag, _ in Page(shown).elements}
    assert "\u202e" not in shown
    assert "&lt;script&gt;" in shown


def test_without_what_draws_a_notebook_prints_the_fields(monkeypatch):
    monkeypatch.setattr(notebook, "_drawing", None)
    assert parity_report()._repr_html_() is None


def test_a_page_is_shown_in_a_frame_that_reaches_nothing_else(tmp_path: Path):
    directory = artifact(tmp_path, parity_a=parity_report())
    shown = report.display(directory)
    assert isinstance(shown, NotebookPage)
    assert not (directory / "report.html").exists()
    ((tag, attributes),) = Page(shown._repr_html_()).elements
    assert tag == "iframe"
    assert attributes["sandbox"] == "allow-scripts", "of no origin: neither the notebook nor its cookies"
    assert attributes["srcdoc"] == write_report(directory).read_text()
    assert "srcdoc" not in repr(shown)
    assert len(repr(shown)) < 100


def test_in_ipython_it_is_shown_at_once(tmp_path: Path, monkeypatch):
    displayed: list[object] = []
    shell = SimpleNamespace(get_ipython=lambda: object(), display=SimpleNamespace(display=displayed.append))
    monkeypatch.setitem(sys.modules, "IPython", shell)
    assert report.display(artifact(tmp_path)) is None
    (page,) = displayed
    assert isinstance(page, NotebookPage)
    shell.get_ipython = lambda: None  # Imported by something, and no notebook.
    assert isinstance(report.display(tmp_path), NotebookPage)


def test_a_folder_that_is_no_artifact_is_refused(tmp_path: Path):
    with pytest.raises(ArtifactError):
        report.display(tmp_path)


def test_text_beside_the_html_is_what_a_terminal_shows():
    bundle = parity_report()._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    assert bundle["text/html"] == parity_report()._repr_html_()
    assert bundle["text/plain"].startswith("Parity of model.fp32.onnx: holds\n")
    assert "ParityReport(" not in bundle["text/plain"]
    assert not any(line != line.rstrip() for line in bundle["text/plain"].split("\n"))


def test_in_a_notebook_nothing_is_shown_besides(monkeypatch):
    displayed: list[object] = []
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("rich.jupyter.display", lambda *shown: displayed.append(shown))
    assert parity_report()._repr_html_()
    assert displayed == [], "rich shows each line by itself where it finds itself in Jupyter"


def test_layers_are_a_table():
    shown = layers()._repr_mimebundle_()["text/plain"]
    assert re.search(r"^Layer +Own SNR +Limit", shown, re.MULTILINE)


def test_evidence_of_what_is_no_artifact_is_refused(tmp_path: Path):
    with pytest.raises(ArtifactError, match="not an artifact"):
        api.read_evidence(tmp_path / "tpyo")
    assert api.read_evidence(artifact(tmp_path)).saved == (), "an artifact may have none"


def test_evidence_is_shown_as_a_list_of_its_records(tmp_path: Path):
    evidence = api.read_evidence(str(artifact(tmp_path, parity_a=parity_report())))
    shown = evidence._repr_mimebundle_()["text/plain"]
    assert shown.startswith("1 record\n")
    assert "ParityReport" in shown
    assert "left out" not in shown
    (tmp_path / "evidence" / "notes.txt").write_text("mine")
    (tmp_path / "evidence" / "tune.json").write_text("{}")
    shown = api.read_evidence(tmp_path)._repr_mimebundle_()["text/plain"]
    assert "of no kind that is known" in shown
    assert "it names no kind of evidence" in shown
