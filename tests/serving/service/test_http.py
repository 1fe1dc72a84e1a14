"""The routes, over a socket."""

from __future__ import annotations

import gzip
import io
import json
import socket
import threading
import time

import numpy as np
import pytest
from image_artifact import CLASSES, PREPROCESSING, picture
from PIL import Image
from preprocess_images import claimed_png

from s2mlp_deploy import __version__
from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine
from s2mlp_deploy.preprocess import preprocess

COLOURS, TOKENS = "/v2/models/colours", "/v2/models/perceptron-0"


def infer(server, array, path=TOKENS, **rest):
    tensor = {"name": "input", "shape": array.shape, "datatype": "FP32", "data": array.reshape(-1).tolist()}
    return server.http.post(f"{path}/infer", json={"inputs": [tensor], **rest})


def noise(rows=1, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, 5, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def session(models):
    return OnnxRuntimeEngine(models / "tokens" / "1" / "model.fp32.onnx", threads=1)


def test_the_server_says_what_it_is_and_that_it_is_ready(server):
    assert server.http.get("/v2").json() == {
        "name": "s2mlp-deploy",
        "version": __version__,
        "extensions": ["binary_tensor_data"],
    }
    assert server.http.get("/v2/health/live").json() == {"live": True}
    assert server.http.get("/v2/health/ready").json() == {"ready": True}


def test_models_say_what_they_take(server):
    assert server.http.get(TOKENS).json() == {
        "name": "perceptron-0",
        "versions": ["1", "2"],
        "platform": "s2mlp-deploy_onnxruntime",
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 5, 8]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 4]}],
    }
    assert server.http.get(f"{TOKENS}/versions/1").json()["name"] == "perceptron-0"
    for path in (TOKENS, f"{TOKENS}/versions/2", COLOURS):
        assert server.http.get(f"{path}/ready").json()["ready"] is True


@pytest.mark.parametrize("rows", [1, 3, 20])
def test_numbers_are_the_sessions_bit_for_bit_through_json_and_bytes(server, session, rows):
    array = noise(rows)
    expected = session.run({"input": array})["logits"]
    found = infer(server, array, id="17").json()
    assert (found["model_name"], found["model_version"], found["id"]) == ("perceptron-0", "2", "17")
    (output,) = found["outputs"]
    assert np.float32(output["data"]).reshape(output["shape"]).tobytes() == expected.tobytes()

    tensor = {
        "name": "input",
        "shape": array.shape,
        "datatype": "FP32",
        "parameters": {"binary_data_size": array.nbytes},
    }
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    answer = server.http.post(
        f"{TOKENS}/versions/1/infer",
        content=head + array.tobytes(),
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    length = int(answer.headers["inference-header-content-length"])
    (output,) = json.loads(answer.content[:length])["outputs"]
    assert output["parameters"] == {"binary_data_size": expected.nbytes}
    assert answer.content[length:] == expected.tobytes()


def test_outputs_are_chosen_and_each_goes_as_it_was_asked_for(server):
    image = preprocess([Image.fromarray(picture("green"))], PREPROCESSING)
    tensor = {"name": "image", "shape": image.shape, "datatype": "FP32", "data": image.tolist()}
    outputs = [{"name": "logits"}, {"name": "means", "parameters": {"binary_data": True}}]
    answer = server.http.post(f"{COLOURS}/infer", json={"inputs": [tensor], "outputs": outputs})
    length = int(answer.headers["inference-header-content-length"])
    logits, means = json.loads(answer.content[:length])["outputs"]
    assert logits["name"] == "logits"
    assert len(logits["data"]) == 4
    assert means["parameters"] == {"binary_data_size": 12}
    assert "data" not in means
    assert np.frombuffer(answer.content[length:], np.float32).argmax() == 1


def test_images_are_classified(server, red):
    answer = server.http.post(f"{COLOURS}/classify", params={"top": 2}, content=red)
    found = answer.json()
    assert next(item["name"] for item in found["classes"]) == "red"
    assert len(found["classes"]) == 2
    assert "infer;dur=" in answer.headers["server-timing"]
    jpeg = io.BytesIO()
    Image.fromarray(picture("blue")).save(jpeg, "JPEG")
    best = server.http.post(f"{COLOURS}/versions/1/classify", content=jpeg.getvalue()).json()["classes"]
    assert [item["name"] for item in best[:1]] == ["blue"]
    assert sum(item["probability"] for item in best) == pytest.approx(1)
    assert {item["name"] for item in best} == set(CLASSES)


def test_requests_that_come_at_the_same_time_share_runs_and_get_their_own(server, session):
    answers: dict[int, np.ndarray] = {}

    def ask(number):
        (output,) = infer(server, noise(seed=number)).json()["outputs"]
        answers[number] = np.float32(output["data"])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(24):
        np.testing.assert_allclose(answers[number], session.run({"input": noise(seed=number)})["logits"][0], rtol=1e-4)
    counted = server.http.get("/metrics").text
    alone = [line for line in counted.splitlines() if 's2mlp_batch_rows_bucket{le="1.0",model="perceptron-0"}' in line]
    every = [line for line in counted.splitlines() if 's2mlp_batch_rows_count{model="perceptron-0"}' in line]
    assert float(alone[0].split()[1]) < float(every[0].split()[1]), "some of them came together"


def large_image() -> bytes:
    stream = io.BytesIO()
    Image.new("L", (400, 300)).save(stream, "PNG")
    return stream.getvalue()


_LENGTH = "Inference-Header-Content-Length"

BAD = {
    "malformed": ("infer", b"{", {}, 400, "no inference request"),
    "a wrong name": ("infer", b'{"inputs":[{"name":"y","shape":[1],"datatype":"FP32","data":[1]}]}', {}, 400, "'y'"),
    "NaN in JSON": ("infer", b'{"inputs":[{"name":"input","shape":[1],"datatype":"FP32","data":[NaN]}]}', {}, 400, ""),
    "no tensors": ("infer", b'{"inputs":[]}', {}, 400, "none"),
    "a length that is none": ("infer", b"{}", {"Inference-Header-Content-Length": "x"}, 400, "Content-Length"),
    "a length of thousands of digits": ("infer", b" " * 70_000, {_LENGTH: "9" * 5000}, 400, "Content-Length"),
    "a length in other digits": ("infer", b" " * 70_000, {_LENGTH: "\u00b2".encode("latin-1")}, 400, "Content-Length"),
    "200 MB": ("infer", b"{}", {"Content-Length": "200000000"}, 413, "more than 1,048,576 bytes"),
    "above the limit": ("infer", b" " * 1_100_000, {}, 413, "more than"),
    "a bomb of gzip": ("infer", gzip.compress(bytes(40_000_000)), {"Content-Encoding": "gzip"}, 413, "more than"),
    "another encoding": ("infer", b"{}", {"Content-Encoding": "br"}, 415, "'br'"),
    "an empty image": ("classify", b"", {}, 400, "empty"),
    "no image": ("classify", b"hello", {}, 400, "not an image"),
    "a form": ("classify", b"--x", {"Content-Type": "multipart/form-data; boundary=x"}, 415, "--data-binary"),
    "a bomb of pixels": ("classify", claimed_png(20_000, 20_000), {}, 413, "pixels"),
    "an image above the limit": ("classify", large_image(), {}, 413, "120,000 pixels"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_requests_are_told_what_is_wrong(server, case):
    route, sent, headers, status, says = BAD[case]
    path = TOKENS if route == "infer" else COLOURS
    if "Content-Length" in headers:  # More than is sent: it is refused by what it says.
        with socket.create_connection(("127.0.0.1", server.port), 5) as sock:
            sock.sendall(f"POST {path}/{route} HTTP/1.1\r\nHost: x\r\nContent-Length: 200000000\r\n\r\n".encode())
            answer = ""
            while not answer.endswith("}"):
                answer += sock.recv(65536).decode()
        assert f" {status} " in answer.partition("\r\n")[0]
        assert says in answer
        return
    answer = server.http.post(f"{path}/{route}", content=sent, headers=headers)
    assert answer.status_code == status
    assert says in answer.json()["error"]
    assert server.ready()


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/nope",
        f"{TOKENS}/versions/3",
        f"{TOKENS}/versions/../..",
        "/v2/models/..%2F..%2Fetc%2Fpasswd/infer",
        "/v2/models/%2e%2e/ready",
        "/v2/models/colours%00",
        "/v2/models/\u202ecolours",
        "/nope",
    ],
)
def test_what_is_not_there_is_told(server, path):
    for method in ("GET", "POST"):
        answer = server.http.request(method, path, content=b"{}")
        assert answer.status_code in (404, 405)
        assert "error" in answer.json()
    assert "passwd" not in server.http.get("/metrics").text


def test_infer_on_an_unknown_model_is_refused_before_its_body_is_read(server):
    answer = server.http.post("/v2/models/nope/infer", content=b" " * 2_000_000)
    assert answer.status_code == 404
    assert "colours, perceptron-0" in answer.json()["error"]


def test_a_model_that_takes_no_image_says_so(server, red):
    answer = server.http.post(f"{TOKENS}/classify", content=red)
    assert answer.status_code == 415
    assert "does not take one image" in answer.json()["error"]


@pytest.mark.parametrize("top", ["0", "x", "1001"])
def test_options_of_classify_are_checked(server, red, top):
    answer = server.http.post(f"{COLOURS}/classify?top={top}", content=red)
    assert answer.status_code == 400
    assert "top" in answer.json()["error"]


def test_a_request_is_found_in_the_log_by_its_id_and_trace(server, red):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"X-Request-Id": "mine-17", "traceparent": trace, "tracestate": "a=b"}
    answer = server.http.post(f"{COLOURS}/classify", content=red, headers=headers)
    assert answer.headers["x-request-id"] == "mine-17"
    assert (answer.headers["traceparent"], answer.headers["tracestate"]) == (trace, "a=b")
    made_up = server.http.get("/v2", headers={"X-Request-Id": "two words"}).headers["x-request-id"]
    assert len(made_up) == 32
    time.sleep(0.1)
    (line,) = [line for line in server.lines() if line.get("request_id") == "mine-17"]
    assert line["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert line["model"] == "colours"
    assert line["status"] == 200
    assert set(line["phases_ms"]) == {"queue", "prepare", "infer"}


def test_nobody_s_text_becomes_a_time_series(server):
    server.http.get("/v2/models/made-up-name")
    text = server.http.get("/metrics").text
    assert "made-up-name" not in text
    for name in (
        's2mlp_request_seconds_bucket{le="0.001",model="colours",phase="infer",route="classify"}',
        's2mlp_queue_requests{model="colours",version="1"} 0.0',
        's2mlp_model_ready{model="perceptron-0",version="2"} 1.0',
        "s2mlp_worker_restarts_total 0.0",
        "process_resident_memory_bytes",
    ):
        assert name in text


def test_the_pages_load_nothing_from_elsewhere(server):
    for path in ("/", "/docs"):
        page = server.http.get(path)
        assert page.status_code == 200
        assert "http" not in page.text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
        assert "default-src 'none'" in page.headers["content-security-policy"]
    document = server.http.get("/openapi.json").json()
    served = {path for path in document["paths"] if path.startswith("/v2")}
    model = "/v2/models/{model}"
    both = [model, f"{model}/versions/{{version}}"]
    assert served == {
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        *both,
        *(f"{path}/{what}" for path in both for what in ("ready", "infer", "classify")),
    }


def test_the_cards_say_what_is_served(server):
    (colours, *tokens) = server.http.get("/cards").json()
    assert colours["classes"] == 4
    assert [card["version"] for card in tokens] == ["1", "2"]
    assert {card["state"] for card in (colours, *tokens)} == {"ready"}
