"""The service on replicas of Ray Serve: the same protocol, the same numbers."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from image_artifact import write_image_artifact
from photographs import colour_of, photograph

pytest.importorskip("onnxruntime")
pytest.importorskip("fastapi")
pytest.importorskip("httpx")
from onnxruntime import InferenceSession
from served import serving, until

pytestmark = pytest.mark.slow


def replicas() -> list[int]:
    """The processes that hold a model, as Ray names them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"ServeReplica" in path.read_bytes() and b"_Replica" in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_replicas_answer_scale_are_replaced_and_end(tmp_path):
    pytest.importorskip("ray", reason="the extra scale is not installed")
    write_image_artifact(tmp_path / "a", name="colours")
    write_image_artifact(tmp_path / "b", name="broken")
    (tmp_path / "b" / "model.fp32.onnx").write_bytes(b"changed")
    before = set(replicas())
    options = ("--engine-pool", "ray", "--max-instances", 2, "--threads", 1)
    with serving(tmp_path, tmp_path / "a", tmp_path / "b", *options, wait=False) as server:
        until(lambda: server.http.get("/v2/models/colours/ready").status_code == 200, 120)
        # What cannot be opened says why, and the other one answers.
        until(lambda: any("cannot be loaded" in line["message"] for line in server.lines()), 60)
        assert not server.ready()
        assert any("not the one its manifest describes" in line["message"] for line in server.lines())

        def classify(index: int) -> str:
            answer = server.http.post("/v2/models/colours/classify", content=photograph(index))
            assert answer.status_code == 200, answer.text
            return answer.json()["classes"][0]["name"]

        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(classify, range(64))) == [colour_of(index) for index in range(64)]
        values = np.random.default_rng(0).random((3, 3, 8, 8), np.float32)
        tensor = {"name": "image", "shape": [3, 3, 8, 8], "datatype": "FP32", "data": values.reshape(-1).tolist()}
        answer = server.http.post("/v2/models/colours/infer", json={"inputs": [tensor]}).json()
        expected = InferenceSession(tmp_path / "a" / "model.fp32.onnx").run(["logits"], {"image": values})[0]
        (logits,) = [item for item in answer["outputs"] if item["name"] == "logits"]
        np.testing.assert_array_equal(np.float32(logits["data"]).reshape(3, 4), expected)
        # A replica that dies is replaced, and whoever asked meanwhile is told to try again.
        for pid in set(replicas()) - before:
            os.kill(pid, signal.SIGKILL)
        statuses = []

        def answers() -> bool:
            statuses.append(server.http.post("/v2/models/colours/classify", content=photograph(1)).status_code)
            return statuses[-1] == 200

        until(answers, 60)
        assert set(statuses) <= {200, 503, 504}
        assert server.end() == 0
    until(lambda: not set(replicas()) - before, 30)
