"""An artifact's own file as the reference: no file proves itself, nor does a copy of it that lies elsewhere."""

from __future__ import annotations

import pytest
from image_artifact import write_image_artifact

from s2mlp_deploy.api.against_file import parity_against_file
from s2mlp_deploy.errors import ArtifactError
from s2mlp_deploy.serving.plan import plan_run

pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("elsewhere", [False, True], ids=["itself", "its copy"])
def test_a_file_is_not_proven_by_itself(tmp_path, elsewhere):
    write_image_artifact(tmp_path / "a", proven=False)
    own = tmp_path / "a" / "model.fp32.onnx"
    reference = own
    if elsewhere:
        reference = tmp_path / "source.onnx"
        reference.write_bytes(own.read_bytes())
    (report,) = parity_against_file(reference, [own], samples=2)
    assert report.passed
    # The hash of the reference is not that of what the artifact was made of.
    with pytest.raises(ArtifactError, match="of other weights"):
        plan_run(tmp_path / "a")
