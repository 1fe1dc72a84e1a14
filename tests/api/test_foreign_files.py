"""Files of somebody else beside an artifact, or where a command is told to write: they survive, and it is said."""

from __future__ import annotations

import json

import nano_artifact
import numpy as np
import pytest
from plain_artifact import write_data, write_plain
from tiny_artifact import make_manifest

from s2mlp_deploy import api
from s2mlp_deploy.api.evidence import save_evidence
from s2mlp_deploy.artifact import MANIFEST, is_own_report
from s2mlp_deploy.errors import DataError, QuantizationError, S2MLPDeployError
from s2mlp_deploy.evidence.calibration import CalibrationReport


@pytest.fixture
def artifact(tmp_path):
    write_plain(tmp_path / "artifact")
    return tmp_path / "artifact"


def quantize(artifact, data, **options):
    return api.quantize(artifact, api.PrecisionOptions(precisions=["int8"], data=data, **options))


def test_a_named_cache_of_other_data_is_neither_replaced_nor_deleted(artifact, tmp_path):
    cache = tmp_path / "cache.npz"
    quantize(artifact, write_data(tmp_path / "a.npy"), cache=cache)
    before = nano_artifact.snapshot(tmp_path)
    with pytest.raises(QuantizationError, match="other data") as caught:
        quantize(artifact, write_data(tmp_path / "b.npy", 1), cache=cache)
    assert "name another one with --calibration-cache" in str(caught.value)
    assert {name: nano_artifact.snapshot(tmp_path)[name] for name in before} == before


@pytest.mark.parametrize("content", [b"", b"notes", b"PK\x05\x06" + bytes(18)])
def test_a_named_cache_that_is_none_is_left_alone(artifact, tmp_path, content):
    cache = tmp_path / "cache.npz"
    cache.write_bytes(content)
    with pytest.raises(QuantizationError, match="not a calibration cache"):
        quantize(artifact, write_data(tmp_path / "a.npy"), cache=cache)
    assert cache.read_bytes() == content


@pytest.mark.parametrize("bad", ["nan", "equal"])
def test_data_that_cannot_be_used_costs_no_cache(artifact, tmp_path, bad):
    quantize(artifact, write_data(tmp_path / "a.npy"))
    before = (artifact / "calibration.npz").read_bytes()
    samples = np.full((16, 5, 8), np.nan if bad == "nan" else 1, np.float32)
    np.save(tmp_path / "bad.npy", samples)
    with pytest.raises((QuantizationError, DataError)):
        quantize(artifact, tmp_path / "bad.npy")
    assert (artifact / "calibration.npz").read_bytes() == before


def test_a_report_of_somebody_else_is_left_where_evidence_is_saved(artifact, tmp_path, caplog):
    save_evidence(artifact)
    assert is_own_report(artifact / "report.html")
    (artifact / "report.html").write_bytes(b"<html>mine</html>")
    save_evidence(artifact, CalibrationReport(make_manifest().calibration, ()))
    assert (artifact / "report.html").read_bytes() == b"<html>mine</html>"
    assert "left as it is" in caplog.text
    assert (artifact / "evidence" / "calibration.json").is_file()
    with pytest.raises(S2MLPDeployError, match=r"report\.html"):
        quantize(artifact, write_data(tmp_path / "a.npy"))


def test_nothing_is_saved_beside_a_manifest_that_is_no_artifacts(tmp_path, caplog):
    (tmp_path / MANIFEST).write_text(json.dumps({"name": "web app"}))
    before = nano_artifact.snapshot(tmp_path)
    save_evidence(tmp_path, object())
    assert nano_artifact.snapshot(tmp_path) == before
    assert "nothing was saved" in caplog.text
