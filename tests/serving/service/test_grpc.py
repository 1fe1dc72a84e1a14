"""gRPC: messages against those of a client, answers through that client."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("grpc")
pytest.importorskip("google.protobuf")
pytest.importorskip("tritonclient.grpc")
import tritonclient.grpc as client
from tritonclient.grpc import service_pb2

from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine
from s2mlp_deploy.serving.service.failures import RequestError
from s2mlp_deploy.serving.service.grpc_messages import CLASSES, MESSAGES
from s2mlp_deploy.serving.service.grpc_server import decode


@pytest.mark.parametrize("name", MESSAGES)
def test_the_messages_are_those_of_other_implementations(name):
    """Triton's are the same and more; both are in this process, under the same names."""
    theirs = service_pb2.DESCRIPTOR.pool.FindMessageTypeByName(f"inference.{name}").fields_by_name
    ours = CLASSES[name].DESCRIPTOR.fields_by_name

    def about(field):
        kind = field.message_type.full_name if field.message_type else None
        return field.number, field.type, field.is_repeated, kind, bool(field.containing_oneof)

    assert {field: about(item) for field, item in ours.items()} == {
        field: about(theirs[field]) for field in MESSAGES[name]
    }


@pytest.fixture(scope="module")
def remote(server):
    with client.InferenceServerClient(f"127.0.0.1:{server.said('gRPC')['grpc_port']}") as connected:
        yield connected


def tensor(array, datatype="FP32", name="input"):
    made = client.InferInput(name, array.shape, datatype)
    made.set_data_from_numpy(array)
    return made


def test_the_server_and_its_models_are_described(remote):
    assert remote.is_server_live()
    assert remote.is_server_ready()
    assert remote.is_model_ready("perceptron-0", "1")
    assert remote.get_server_metadata(as_json=True)["name"] == "s2mlp-deploy"
    about = remote.get_model_metadata("perceptron-0")
    assert list(about.versions) == ["1", "2"]
    assert [(item.name, item.datatype, list(item.shape)) for item in about.inputs] == [("input", "FP32", [-1, 5, 8])]


@pytest.mark.parametrize("rows", [1, 5])
def test_numbers_are_the_sessions_bit_for_bit(remote, models, rows):
    array = np.random.default_rng(rows).standard_normal((rows, 5, 8)).astype(np.float32)
    session = OnnxRuntimeEngine(models / "tokens" / "1" / "model.fp32.onnx", threads=1)
    expected = session.run({"input": array})["logits"]
    found = remote.infer("perceptron-0", [tensor(array)], request_id="9")
    assert found.get_response().id == "9"
    assert found.as_numpy("logits").tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("model", "array", "code", "says"),
    [
        ("nope", np.zeros((1, 5, 8), np.float32), "NOT_FOUND", "no model 'nope'"),
        ("perceptron-0", np.zeros((1, 5, 7), np.float32), "INVALID_ARGUMENT", "shape [1, 5, 7]"),
        ("perceptron-0", np.full((1, 5, 8), np.nan, np.float32), "INVALID_ARGUMENT", "NaN"),
        ("perceptron-0", np.zeros((9000, 5, 8), np.float32), "RESOURCE_EXHAUSTED", "larger than max"),
    ],
)
def test_bad_requests_are_told(remote, model, array, code, says):
    with pytest.raises(client.InferenceServerException) as caught:
        remote.infer(model, [tensor(array)])
    assert code in str(caught.value.status())
    assert says in caught.value.message()


def request(**changes):
    made = CLASSES["ModelInferRequest"](model_name="m")
    made.inputs.add(name="x", datatype="FP32", shape=[2], **changes)
    return made


def test_values_may_come_as_a_list():
    listed = request(contents={"fp32_contents": [0.1, 2]})
    np.testing.assert_array_equal(decode(listed).feeds["x"], np.float32([0.1, 2]))
    bools = CLASSES["ModelInferRequest"]()
    bools.inputs.add(name="b", datatype="BOOL", shape=[2], contents={"bool_contents": [True, False]})
    assert decode(bools).feeds["b"].tolist() == [True, False]


def test_what_is_malformed_is_told():
    both = request(contents={"fp32_contents": [1, 2]})
    both.raw_input_contents.append(bytes(8))
    more = request()
    more.raw_input_contents.extend([bytes(8), bytes(8)])
    short = request()
    short.raw_input_contents.append(bytes(7))
    text = CLASSES["ModelInferRequest"]()
    text.inputs.add(name="t", datatype="BYTES", shape=[1])
    twice = request(contents={"fp32_contents": [1, 2]})
    twice.inputs.add().CopyFrom(twice.inputs[0])
    for wrong, says in (
        (both, "contents and raw"),
        (more, "2 raw contents"),
        (short, "7 bytes"),
        (text, "'BYTES'"),
        (twice, "twice"),
        (request(), "as many values"),
    ):
        with pytest.raises(RequestError) as caught:
            decode(wrong)
        assert says in str(caught.value)
