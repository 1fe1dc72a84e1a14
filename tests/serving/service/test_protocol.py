"""Requests and responses of the protocol, without any transport."""

from __future__ import annotations

import json
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from s2mlp_deploy.artifact import SizeLimit, TensorInfo
from s2mlp_deploy.serving.service.binary import tensor_of
from s2mlp_deploy.serving.service.failures import RequestError
from s2mlp_deploy.serving.service.protocol import (
    DATATYPES,
    NAMES,
    InferRequest,
    check_feeds,
    check_outputs,
    decode_request,
    encode_response,
    listed_tensor,
)

TAKES = (TensorInfo("x", "float32", ("batch", 2)), TensorInfo("y", "int64", ("batch",)))


def body(*inputs: dict, **rest) -> bytes:
    return json.dumps({"inputs": list(inputs), **rest}).encode()


def x(**changes) -> dict:
    return {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]} | changes


any_array = st.sampled_from(sorted(DATATYPES.values())).flatmap(
    lambda dtype: arrays.arrays(
        dtype,
        arrays.array_shapes(min_dims=0, max_dims=3, max_side=4),
        elements=arrays.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False),
    )
)


@given(array=any_array)
def test_json_and_bytes_hold_every_bit(array):
    for binary in (False, True):
        made, length = encode_response("m", "1", InferRequest({}, binary_default=binary), {"x": array})
        assert (length is None) == (not binary)
        head = json.loads(made[:length])
        sent = {"inputs": head["outputs"]}
        again = json.dumps(sent).encode()
        tail = b"" if length is None else made[length:]
        found = decode_request(again + tail, str(len(again))).feeds["x"]
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        # -0.0 keeps its sign in bytes; JSON keeps it too.
        assert found.tobytes() == array.tobytes()


def test_small_and_large_integers_stand_side_by_side():
    sent = x(datatype="UINT64", data=[0, 2**64 - 1])
    assert decode_request(body(sent), None).feeds["x"].tolist() == [[0, 2**64 - 1]]
    for wrong in ([0.5, 2**63], [-1, 2**63], [0, 2**64]):
        with pytest.raises(RequestError):
            decode_request(body(sent | {"data": wrong}), None)


def test_data_may_be_nested_as_the_shape():
    nested = decode_request(body(x(shape=[2, 2], data=[[1, 2], [3, 4]])), None).feeds["x"]
    np.testing.assert_array_equal(nested, np.float32([[1, 2], [3, 4]]))


def test_binary_and_json_inputs_mix():
    y = np.array([7], np.int64)
    head = body(
        x(data=[0.1, 0.2]), {"name": "y", "shape": [1], "datatype": "INT64", "parameters": {"binary_data_size": 8}}
    )
    feeds = decode_request(head + y.tobytes(), str(len(head))).feeds
    np.testing.assert_array_equal(feeds["x"], np.float32([[0.1, 0.2]]))
    np.testing.assert_array_equal(feeds["y"], y)


@pytest.mark.parametrize(
    ("sent", "length", "says"),
    [
        (b"", None, "no inference request"),
        (b"{", None, "no inference request"),
        (b"[" * 100_000, None, "no inference request"),
        (b'{"inputs": 3}', None, "inputs"),
        (b"\xff\xfe", None, "no inference request"),
        (body(x(), x()), None, "given twice"),
        (body(x(datatype="FP31")), None, "datatype 'FP31'"),
        (body(x(shape=[-1, 2])), None, "shape"),
        (body(x(shape=[0, 2], data=[])), None, "shape"),
        (body(x(shape=[1] * 17)), None, "shape"),
        (body(x(shape=[2**62, 2**62])), None, "as many values"),
        (body(x(data=[1])), None, "as many values"),
        (body(x(data=[[1], [2]])), None, "as many values"),
        (body(x(data=[[1], 2])), None, "not all FP32"),
        (body(x(data=["1", "2"])), None, "not all FP32"),
        (body(x(data=[None, 1])), None, "not all FP32"),
        (body(x(data=None)), None, "no data"),
        (body(x(data=[1e39, 1])), None, "outside of FP32"),
        (b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[NaN]}]}', None, "no inference request"),
        (body(x(datatype="UINT8", data=[1, 256])), None, "outside of UINT8"),
        (body(x(datatype="UINT8", data=[-1, 2])), None, "outside of UINT8"),
        (body(x(datatype="INT8", data=[1.5, 2])), None, "not all INT8"),
        (body(x(datatype="BOOL", data=[0, 1])), None, "not all BOOL"),
        (body(x(parameters={"binary_data_size": 8})), None, "data in the JSON too"),
        (body(x(data=None, parameters={"binary_data_size": 8})), None, "0 bytes are left"),
        (body(x(data=None, parameters={"binary_data_size": True})), None, "binary_data_size True"),
        (body(x(data=None, parameters={"binary_data_size": -8})), None, "binary_data_size -8"),
        (body(x()), "9999", "Inference-Header-Content-Length"),
        (body(x()), "-1", "Inference-Header-Content-Length"),
        (body(x()), "\u0663", "Inference-Header-Content-Length"),
        (body(x()) + b"rest", str(len(body(x()))), "4 bytes behind the JSON"),
        (body(x(), outputs=[{"name": "a", "parameters": {"classification": 3}}]), None, "classification"),
    ],
)
def test_what_is_malformed_is_told_by_where(sent, length, says):
    with pytest.raises(RequestError) as caught:
        decode_request(sent, length)
    assert says in str(caught.value)
    assert 400 <= caught.value.status < 500


@pytest.mark.parametrize(
    ("feeds", "says"),
    [
        ({}, "the inputs none"),
        ({"x": np.zeros((1, 2), np.float32)}, "the inputs 'x'"),
        ({"x": np.zeros((1, 2), np.float64), "y": np.zeros(1, np.int64)}, "is FP64"),
        ({"x": np.zeros((1, 3), np.float32), "y": np.zeros(1, np.int64)}, "shape [1, 3]"),
        ({"x": np.zeros(2, np.float32), "y": np.zeros(1, np.int64)}, "shape [2]"),
        ({"x": np.zeros((2, 2), np.float32), "y": np.zeros(1, np.int64)}, "shape [1]"),
        ({"x": np.full((1, 2), np.nan, np.float32), "y": np.zeros(1, np.int64)}, "NaN"),
        ({"x": np.full((1, 2), np.inf, np.float32), "y": np.zeros(1, np.int64)}, "infinite"),
        ({"x": np.zeros((9, 2), np.float32), "y": np.zeros(9, np.int64)}, "at most 8"),
    ],
)
def test_what_a_model_does_not_take_is_refused(feeds, says):
    with pytest.raises(RequestError) as caught:
        check_feeds(TAKES, (SizeLimit("x", 0, "batch", max=8),), feeds)
    assert says in str(caught.value)
    assert caught.value.status == 400


def test_what_it_takes_passes():
    check_feeds(TAKES, (), {"y": np.zeros(3, np.int64), "x": np.zeros((3, 2), np.float32)})


def test_outputs_come_in_the_order_of_the_request():
    outputs = (TensorInfo("a", "float32", (1,)), TensorInfo("b", "float32", (1,)))
    assert check_outputs(outputs, None) == ("a", "b")
    assert check_outputs(outputs, ("b", "a", "b")) == ("b", "a")
    with pytest.raises(RequestError, match="no output 'c'"):
        check_outputs(outputs, ("c",))


def test_json_holds_no_nan_and_bytes_do():
    broken = {"a": np.float32([np.nan])}
    with pytest.raises(RequestError, match="JSON cannot hold"):
        encode_response("m", "1", InferRequest({}), broken)
    made, length = encode_response("m", "1", InferRequest({}, binary={"a": True}), broken)
    assert np.isnan(np.frombuffer(made[length:], np.float32)).all()


def test_every_type_has_both_names():
    assert {NAMES[numpy] for numpy in DATATYPES.values()} == set(DATATYPES)
    assert listed_tensor("x", "FP16", [1], [0.5]).dtype == np.float16


@pytest.mark.parametrize("length", ["9" * 5000, "\u00b2", "-1", "1e3", "", "99"])
def test_a_length_that_is_none_is_told(length):
    with pytest.raises(RequestError, match="Inference-Header-Content-Length is") as caught:
        decode_request(body(x())[:50], length)
    assert len(caught.value.problem) < 200


def test_millions_of_booleans_are_checked_at_once():
    start = time.process_time()
    assert tensor_of(memoryview(bytes(2**24)), np.dtype(bool), (2**24,)).sum() == 0
    assert time.process_time() - start < 0.3
    with pytest.raises(RequestError, match="0 or 1"):
        tensor_of(memoryview(b"\0\2"), np.dtype(bool), (2,))


def test_values_are_counted_before_anything_is_made_of_them():
    class Counted(list):
        def __iter__(self):
            pytest.fail("they were looked at")

    with pytest.raises(RequestError, match="3 values"):
        listed_tensor("x", "FP32", [2], Counted([1, 2, 3]))


def test_a_long_text_among_many_takes_no_memory():
    sent = body(x(shape=[20_001], data=["a" * 1_000_000, *[""] * 20_000]))
    tracemalloc.start()
    with pytest.raises(RequestError, match="not all FP32"):
        decode_request(sent, None)
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()
