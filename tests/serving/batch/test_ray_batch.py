"""A batch on actors of Ray, started on this machine: the same rows, the same errors."""

from __future__ import annotations

import nano_artifact
import pytest
from image_artifact import write_image_artifact
from photographs import write_photographs

pytest.importorskip("pyarrow")
pytest.importorskip("onnxruntime")
import pyarrow.parquet as pq

from s2mlp_deploy.api.batching import batch
from s2mlp_deploy.errors import ArtifactError
from s2mlp_deploy.serving.batch.inputs import FileChunk
from s2mlp_deploy.serving.batch.output import part_name
from s2mlp_deploy.serving.batch.worker import WorkerOptions
from s2mlp_deploy.serving.plan import plan_run

pytestmark = pytest.mark.slow


@pytest.fixture
def artifact(tmp_path):
    write_image_artifact(tmp_path / "a")
    return tmp_path / "a"


def rows(output):
    return sorted(pq.read_table(output).to_pylist(), key=lambda row: row["row"])


def test_ray_classifies_alike_and_goes_on(tmp_path, artifact, monkeypatch, capfd):
    pytest.importorskip("ray", reason="the extra scale is not installed")
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("a long name " * 12)))  # No socket fits below it.
    monkeypatch.setenv("PYTHONPATH", nano_artifact.PACKAGE_ROOT)
    write_photographs(tmp_path / "in", 23, broken=(5,))
    batch(tmp_path / "in", artifact, tmp_path / "plain", chunk=4, workers=1)
    # As if it had been stopped with one chunk done.
    batch(tmp_path / "in", artifact, tmp_path / "out", chunk=4, workers=1)
    for index in (0, 2, 3, 4, 5):
        (tmp_path / "out" / part_name(index)).unlink()
    capfd.readouterr()
    done = batch(tmp_path / "in", artifact, tmp_path / "out", chunk=4, workers=2, engine_pool="ray")
    assert (done.images, done.broken, done.parts, done.workers, done.before) == (23, 1, 6, 2, 4)
    assert rows(tmp_path / "out") == rows(tmp_path / "plain")
    told = "".join(capfd.readouterr())
    assert "usage" not in told.lower()
    # An error of an actor is the same error.
    from s2mlp_deploy.serving.batch.ray_pool import RayActors

    plan = plan_run(artifact, threads=1)
    (artifact / "model.fp32.onnx").write_bytes(b"changed")
    chunk = FileChunk(0, 0, ("000.png",), str(tmp_path / "in"))
    with pytest.raises(ArtifactError, match="not the one its manifest describes"):
        list(RayActors(WorkerOptions(plan, None), 1, None).map([chunk]))
