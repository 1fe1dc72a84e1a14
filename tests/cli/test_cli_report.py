"""``report``: the page of an artifact, written again from manifest and evidence alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from report_samples import FILE, artifact, quantized_manifest, report

from s2mlp_deploy.report.html import write_report


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Manifest and evidence of an artifact, without any of its files."""
    directory = artifact(tmp_path / "out", quantized_manifest(), parity_a=report())
    (directory / FILE).unlink()
    return directory


def test_the_page_is_written_again_and_its_paragraph_printed(cli, saved):
    expected = write_report(saved).read_bytes()
    (saved / "report.html").unlink()
    done = cli("report", saved)
    assert done.code == 0, done.err
    assert (saved / "report.html").read_bytes() == expected
    told = " ".join(done.out.split())
    assert told.startswith("Parity holds where it was measured This is s2mlpv2_nano with the weights of digits")
    assert "Take model.fp32.onnx" in told
    assert f"Written to {saved / 'report.html'}" in told


def test_a_page_elsewhere_links_to_the_artifact_and_leaves_it_as_it_is(cli, saved, tmp_path):
    (saved / FILE).write_bytes(b"x")
    before = sorted(saved.rglob("*"))
    page = tmp_path / "pages" / "page.html"
    done = cli("report", saved, "--output", page, "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document["path"] == str(page)
    assert document["opening"]["headline"] == "Parity holds where it was measured"
    assert f'href="./../out/{FILE}"' in page.read_text()
    assert sorted(saved.rglob("*")) == before


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda saved, page: shutil.rmtree(saved), "manifest"),
        (lambda saved, page: (saved / "manifest.json").unlink(), "manifest"),
        (lambda saved, page: (saved / "manifest.json").write_bytes(b"{"), "manifest"),
        (lambda saved, page: page.write_text("<html>mine</html>"), "did not write"),
        (lambda saved, page: page.mkdir(), "did not write"),
        (lambda saved, page: page.parent.joinpath("file").write_text(""), "file"),
    ],
    ids=["no folder", "no manifest", "damaged", "another's page", "a folder", "below a file"],
)
def test_bad_input_is_refused_and_nothing_written(cli, saved, tmp_path, spoil, words):
    page = tmp_path / "page.html"
    spoil(saved, page)
    if (tmp_path / "file").exists():
        page = tmp_path / "file" / "page.html"
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = cli("report", saved, "--output", page)
    assert done.code == 2
    assert words in done.text
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
