"""Clients that others wrote, over sockets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine

ARRAY = np.random.default_rng(3).standard_normal((2, 5, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(models):
    return OnnxRuntimeEngine(models / "tokens" / "2" / "model.fp32.onnx", threads=1).run({"input": ARRAY})["logits"]


@pytest.fixture(scope="module")
def triton(server):
    module = pytest.importorskip("tritonclient.http")
    with module.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        yield module, client


def test_triton_s_http_client_reads_what_there_is(triton):
    module, client = triton
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("colours", "1")
    assert not client.is_model_ready("nope")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert client.get_model_metadata("perceptron-0")["inputs"][0]["shape"] == [-1, 5, 8]
    with pytest.raises(module.InferenceServerException, match="no model 'nope'"):
        client.get_model_metadata("nope")


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_triton_s_http_client_gets_the_sessions_numbers(triton, expected, binary_in, binary_out, compression):
    module, client = triton
    tensor = module.InferInput("input", ARRAY.shape, "FP32")
    tensor.set_data_from_numpy(ARRAY, binary_data=binary_in)
    wanted = module.InferRequestedOutput("logits", binary_data=binary_out)
    found = client.infer(
        "perceptron-0",
        [tensor],
        outputs=[wanted],
        request_id="a",
        model_version="2",
        request_compression_algorithm=compression,
    )
    assert found.as_numpy("logits").tobytes() == expected.tobytes()
    assert found.get_response()["id"] == "a"


def test_triton_s_http_client_without_chosen_outputs(triton, expected):
    module, client = triton
    tensor = module.InferInput("input", ARRAY.shape, "FP32")
    tensor.set_data_from_numpy(ARRAY)
    assert client.infer("perceptron-0", [tensor]).as_numpy("logits").tobytes() == expected.tobytes()


CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)


@pytest.mark.slow
def test_schemathesis_finds_no_response_that_the_document_does_not_tell(server, tmp_path):
    pytest.importorskip("schemathesis")
    program = Path(sys.executable).with_name("schemathesis")
    done = subprocess.run(
        [
            *(str(program), "run", f"http://127.0.0.1:{server.port}/openapi.json", "--max-examples", "60"),
            *("--checks", ",".join(CHECKS)),
            *("--seed", "1", "--suppress-health-check", "all", "--no-color"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


KSERVE = """
import asyncio, sys
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

host, port, remote = sys.argv[1:4]
array = np.load(sys.argv[4])

def request(binary):
    tensor = InferInput("input", list(array.shape), "FP32")
    tensor.set_data_from_numpy(array, binary_data=binary)
    return InferRequest("perceptron-0", [tensor], request_id="k")

async def main():
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=60))
    base = f"http://{host}:{port}"
    assert await client.is_server_live(base)
    assert await client.is_server_ready(base)
    assert await client.is_model_ready(base, "perceptron-0")
    found = [await client.infer(base, request(binary), model_name="perceptron-0") for binary in (True, False)]
    async with InferenceGRPCClient(f"{host}:{remote}") as grpc:
        assert await grpc.is_server_ready()
        found.append(await grpc.infer(request(True)))
    for answer in found:
        print(answer.outputs[0].as_numpy().astype(np.float32).tobytes().hex())

asyncio.run(main())
"""


@pytest.mark.slow
def test_kserve_s_client_gets_the_sessions_numbers(server, expected, tmp_path, kserve_python):
    np.save(tmp_path / "x.npy", ARRAY)
    ports = (str(server.port), str(server.said("gRPC")["grpc_port"]))
    done = subprocess.run(
        [kserve_python, "-c", KSERVE, "127.0.0.1", *ports, str(tmp_path / "x.npy")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == [expected.tobytes().hex()] * 3
