"""Error and time beside what differs, from the evidence of exactly the files that are compared."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from onnx_graphs import perceptron, save
from report_samples import bench, layer, layers
from tiny_artifact import write_tiny

from s2mlp_deploy import api
from s2mlp_deploy.evidence.profile import NodeTime, Profile
from s2mlp_deploy.evidence.store import save_record


@pytest.mark.parametrize("known", [True, False])
def test_evidence_counts_for_the_bytes_that_it_was_measured_on(tmp_path: Path, known: bool) -> None:
    older = save(perceptron(), tmp_path / "older.onnx")
    made = perceptron()
    made.graph.node[1].op_type = "Elu"
    content = made.SerializeToString()
    write_tiny(tmp_path / "out", content)
    sha256 = hashlib.sha256(content).hexdigest() if known else "1" * 64
    profile = Profile(1, 2.0, (NodeTime("fc1/MatMul", "MatMul", "fc1", 1.25), NodeTime("act/Elu", "Elu", "act", 0.5)))
    result = bench().results[0]
    timed = replace(result, candidate=replace(result.candidate, sha256=sha256), profile=profile)
    save_record(tmp_path / "out", replace(bench(), results=(timed,)), "profile")
    measured = replace(layers(layer("fc1", 0.5), layer("act")), file_sha256=sha256)
    save_record(tmp_path / "out", measured)
    (file,) = api.diff(older, tmp_path / "out", precision="fp32").files
    found = {module.path: module for module in file.modules}
    assert [item.kind for item in file.nodes] == ["changed"]
    assert (found["fc1"].ms_before, found["fc1"].error_before) == (None, None)
    assert found["fc1"].ms_after == (1.25 if known else None)
    assert found["act"].ms_after == (0.5 if known else None)
    assert found["fc1"].error_after == (measured.layers[0].metrics.max_rel if known else None)
    assert file.total.ms_after == (1.75 if known else None)
