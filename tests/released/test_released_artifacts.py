"""What a release made, every later one opens: its artifacts, its evidence, its options and its names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import changelog
import pytest
from make_artifact import LARGEST, commands
from packaging.version import Version

from s2mlp_deploy import __version__, api
from s2mlp_deploy.artifact import SCHEMA_VERSION
from s2mlp_deploy.evidence.store import KINDS, read_evidence

HERE = Path(__file__).parent
RELEASES = sorted((path.parent for path in HERE.glob("*/expected.json")), key=lambda path: Version(path.name))


@pytest.fixture(params=RELEASES, ids=lambda path: path.name)
def release(request) -> Path:
    """The folder of a release."""
    return request.param


@pytest.fixture
def expected(release) -> dict:
    """What held when it was made."""
    return json.loads((release / "expected.json").read_text())


def removed() -> str:
    """What the changelog says was removed, in any release and in the next."""
    releases, _ = changelog.read(changelog.ROOT.joinpath("CHANGELOG.md").read_text())
    return "\n".join(entry for item in releases for entry in item.sections.get("Removed", ()))


def test_every_release_has_a_small_artifact():
    names = [item.name for item in changelog.read((HERE.parents[1] / "CHANGELOG.md").read_text())[0][1:]]
    assert [path.name for path in reversed(RELEASES)] == names
    for path in RELEASES:
        assert sum(item.stat().st_size for item in path.rglob("*") if item.is_file()) < LARGEST


def test_it_is_whole_and_described_as_it_was(release):
    pytest.importorskip("onnx")
    found = api.inspect_artifact(release / "artifact")
    assert found.problems == {}
    assert found.manifest.name == "s2mlpv2_nano"
    assert {record.precision for record in found.manifest.files} >= {"fp32", "int8", "int8-trt"}
    assert len(found.manifest.shifts) == 2
    assert found.manifest.schema_version == SCHEMA_VERSION


def test_all_of_its_evidence_is_read_in_todays_records(release, expected):
    found = read_evidence(release / "artifact")
    assert (found.unreadable, found.others) == ((), ())
    assert {type(saved.record) for saved in found.saved} >= {
        kind.record for kind in KINDS if kind.name in expected["schemas"]
    }
    assert all(report.passed for report in found.newest(api.ParityReport))


def test_every_schema_version_of_a_release_is_read(expected):
    versions = {kind.name: ({kind.version} | set(kind.migrations)) for kind in KINDS} | {"manifest": {1, 2}}
    for name, version in expected["schemas"].items():
        assert version in versions[name], f"{name} {version} was released: it needs a migration"


def test_the_page_on_releases_lists_every_schema_with_the_command_that_renews_it():
    page = (HERE.parents[1] / "docs" / "contributing" / "release.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `")]
    table = {row[1].strip("`"): row for row in rows if len(row) == 5}
    assert set(table) == {"", *(kind.name for kind in KINDS)}
    assert table[""][2] == str(SCHEMA_VERSION)
    for kind in KINDS:
        assert table[kind.name][2] == str(kind.version)
        assert f"`{kind.renewal()}`" in table[kind.name][4]
        assert table[kind.name][3] == ", ".join(map(str, sorted(kind.migrations)))


def test_it_predicts_what_it_predicted(release, expected):
    pytest.importorskip("onnxruntime")
    for precision, tolerance in (("fp32", 1e-4), ("int8", 0.1)):
        (item,) = api.predict(release / "artifact", release / "image.png", precision=precision, top=3)
        found = dict(zip(item.classes, item.probabilities, strict=True))
        assert found == pytest.approx(expected["prediction"], abs=tolerance)


def test_what_runs_of_it_here_is_told(release):
    assert api.diagnose(release / "artifact").plan.file.startswith("model.")


def test_its_report_is_written(release, tmp_path):
    pytest.importorskip("jinja2")
    written = api.report(release / "artifact", output=tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert written.path == tmp_path / "report.html"
    assert "was left out" not in page
    assert "s2mlpv2_nano" in page


def test_its_layers_are_judged_again(release):
    pytest.importorskip("safetensors")
    (report,) = api.rejudge_layers(release / "layers")
    assert report.passed
    (strict,) = api.rejudge_layers(release / "layers", atol=0.0, rtol=0.0)
    assert not strict.passed


def test_its_files_are_judged_again(release, tmp_path):
    """A file against the float32 one: another torch may draw other random weights than the network had."""
    pytest.importorskip("onnxruntime")
    artifact = shutil.copytree(release / "artifact", tmp_path / "artifact")
    (report,) = api.parity_against_file(artifact / "model.fp32.onnx", [artifact / "model.int8.onnx"])
    assert report.passed


def test_options_and_names_of_a_release_go_only_by_the_rule(expected):
    """What is gone stands under Removed, in backticks."""
    here, gone = commands(), removed()
    lost = [name for name in expected["commands"] if name not in here]
    lost += [
        option
        for name, options in expected["commands"].items()
        for option in options
        if option not in here.get(name, options)
    ]
    lost += [name for name in expected["api"] if name not in api.__all__]
    assert [name for name in lost if f"`{name}`" not in gone] == []


def test_the_newest_release_is_this_version_or_an_earlier_one():
    assert Version(RELEASES[-1].name) <= Version(__version__)
