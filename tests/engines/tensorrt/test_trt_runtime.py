"""Running engines: what is refused without a GPU, and on one, whether the outputs are those of ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace

import nano_artifact
import numpy as np
import onnx_graphs as og
import pytest

from s2mlp_deploy.engines.record import read_engine, write_sidecar
from s2mlp_deploy.engines.tensorrt.runtime import TensorRTEngine
from s2mlp_deploy.errors import ArtifactError, InputError, TargetError
from s2mlp_deploy.gpu import gpus

pytest.importorskip("tensorrt_rtx")
pytest.importorskip("cuda.bindings.runtime")
from s2mlp_deploy import api


@pytest.fixture
def engine(tmp_path):
    graph = og.save(og.perceptron(metadata={"precision": "fp32"}), tmp_path / "model.fp32.onnx")
    here = gpus()
    target = here[0].capability if here else "sm89"
    return tmp_path / api.build(graph, targets=[target]).engine


@pytest.mark.skipif(bool(gpus()), reason="this machine has a GPU")
def test_without_a_gpu_one_line_says_so(engine):
    with pytest.raises(TargetError) as caught:
        TensorRTEngine(engine)
    assert "needs an NVIDIA GPU, and there is none here" in str(caught.value).splitlines()[0]


def test_an_engine_is_checked_before_anything_is_loaded(engine):
    record = read_engine(engine)
    write_sidecar(engine, replace(record, version="1.0.0.1"))
    with pytest.raises(ArtifactError, match=r"version: built for 1\.0\.0\.1"):
        TensorRTEngine(engine)
    engine.write_bytes(b"something else")
    with pytest.raises(ArtifactError, match="not the one its sidecar describes"):
        TensorRTEngine(engine)


@pytest.mark.gpu
@pytest.mark.parametrize("cuda_graph", [True, False])
def test_outputs_are_those_of_onnx_runtime_at_every_batch_and_again(tmp_path, cuda_graph):
    from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine

    graph = nano_artifact.copy_to(tmp_path / "artifact") / "model.fp32.onnx"
    engine = TensorRTEngine(
        graph.parent / api.build(graph, targets=[gpus()[0].capability]).engine, cuda_graph=cuda_graph
    )
    reference = OnnxRuntimeEngine(graph)
    rng = np.random.default_rng(0)
    for batch in (1, 8, 3, 8, 8, 32, 1, 1):
        feeds = {"input": rng.standard_normal((batch, 3, 32, 32)).astype(np.float32)}
        np.testing.assert_allclose(engine.run(feeds)["logits"], reference.run(feeds)["logits"], atol=2e-2)
    with pytest.raises(InputError, match="outside the engine's profiles"):
        engine.run({"input": np.zeros((33, 3, 32, 32), np.float32)})
    with pytest.raises(InputError, match="float32"):
        engine.run({"input": np.zeros((1, 3, 32, 32))})
