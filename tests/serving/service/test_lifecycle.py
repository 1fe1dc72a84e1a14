"""Starting, reloading, failing and ending: services of their own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest
from served import serving, until

TOKENS = "/v2/models/perceptron-0"
BODY = {"inputs": [{"name": "input", "shape": [1, 5, 8], "datatype": "FP32", "data": [0.5] * 40}]}


@pytest.fixture
def write(needs):
    """Writes a perceptron of a seed whose parity holds; seeds 0 and 1 give other numbers, under one name."""
    from plain_artifact import write_plain
    from proven import prove

    def make(directory, seed=0, *, name="perceptron-0", force=False):
        write_plain(directory, seed, force=force)
        document = json.loads((directory / "manifest.json").read_text()) | {"name": name}
        (directory / "manifest.json").write_text(json.dumps(document))
        prove(directory)
        return directory

    return make


class Load:
    """Clients that ask without a pause until they are told to stop, and what they got."""

    def __init__(self, server, threads=4, path=TOKENS):
        self.answers: Counter = Counter()
        self.lost: list[str] = []
        self._server, self._path, self._stop = server, path, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(threads)]

    @property
    def kinds(self):
        """Statuses, and versions with their numbers; a list, since answers come meanwhile."""
        return list(self.answers)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self):
        with httpx.Client(base_url=f"http://127.0.0.1:{self._server.port}", timeout=30) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post(f"{self._path}/infer", json=BODY)
                except httpx.ConnectError:  # Nobody listens any more: it was not taken.
                    return
                except httpx.HTTPError as error:
                    self.lost.append(repr(error))
                    return
                if answer.status_code == 200:
                    self.answers[answer.json()["model_version"], tuple(answer.json()["outputs"][0]["data"])] += 1
                else:
                    self.answers[answer.status_code] += 1
                    if answer.status_code == 503:
                        if "retry-after" not in answer.headers:
                            self.lost.append("it does not say when to come again")
                        time.sleep(0.01)


def test_sigterm_under_load_answers_all_that_was_taken_and_ends_with_0(write, tmp_path):
    with serving(tmp_path, write(tmp_path / "a"), "--threads", 1) as server:
        server.http.close()
        with Load(server) as load:
            until(lambda: load.answers.total() > 50)
            assert server.end() == 0
        assert load.lost == []
        assert {key[0] for key in load.kinds} == {"1"}
    assert [line["message"] for line in server.lines() if "drain" in line["message"]] == ["draining", "drained"]


def test_new_versions_take_over_without_a_failed_request_and_broken_ones_do_not(write, tmp_path):
    models = tmp_path / "models"
    write(models / "1", 0)
    with serving(tmp_path, models, "--threads", 1, "--reload-every", 0.1) as server, Load(server) as load:
        until(lambda: load.answers)
        write(tmp_path / "next", 1)
        (tmp_path / "next").rename(models / "2")
        until(lambda: any(key[0] == "2" for key in load.kinds))
        assert server.http.get(TOKENS).json()["versions"] == ["1", "2"]

        broken = write(tmp_path / "broken", 2)
        (broken / "model.fp32.onnx").write_bytes(b"not a model")
        broken.rename(models / "3")
        until(lambda: server.http.get(f"{TOKENS}/versions/3/ready").json().get("reason"))
        told = server.http.post(f"{TOKENS}/versions/3/infer", json=BODY)
        assert told.status_code == 503
        assert "not the one its manifest describes" in told.json()["error"]
        assert "s2mlp_load_failures 1.0" in server.http.get("/metrics").text
        assert server.http.post(f"{TOKENS}/infer", json=BODY).json()["model_version"] == "2"

        # The same version, exported anew.
        before = {key for key in load.kinds if key[0] == "2"}
        write(models / "2", 3, force=True)
        until(lambda: {key for key in load.kinds if key[0] == "2"} - before)
        # And damaged in place: the one before it goes on.
        manifest = (models / "2" / "manifest.json").read_bytes()
        (models / "2" / "manifest.json").write_bytes(manifest[:-20])
        until(lambda: any("the one before it goes on" in line["message"] for line in server.lines()))
        shutil.rmtree(models / "1")
        until(lambda: server.http.get(TOKENS).json()["versions"] == ["2", "3"])
        assert server.http.post(f"{TOKENS}/versions/2/infer", json=BODY).status_code == 200
    assert load.lost == []
    assert {key for key in load.kinds if not isinstance(key, tuple)} == set()


def test_a_killed_worker_fails_its_own_requests_and_the_service_recovers(write, tmp_path):
    with serving(tmp_path, write(tmp_path / "a"), "--threads", 1) as server:
        with Load(server, threads=8) as load:
            until(lambda: load.answers.total() > 50)
            (worker,) = server.workers()
            os.kill(worker, signal.SIGKILL)
            before = load.answers.total()
            until(lambda: server.workers() not in ([], [worker]) and server.ready())
            until(lambda: load.answers.total() > before + 50)
        assert load.lost == []
        assert {key for key in load.kinds if not isinstance(key, tuple)} <= {503}
        # Two batches are in a worker at most, of 8 clients here.
        assert load.answers[503] <= 8
        assert "s2mlp_worker_restarts_total 1.0" in server.http.get("/metrics").text
        assert "SIGKILL" in server.said("a worker of")["message"]


def test_nothing_stays_when_the_service_is_killed(write, tmp_path):
    with serving(tmp_path, write(tmp_path / "a"), "--threads", 1) as server, Load(server) as load:
        until(lambda: load.answers)
        workers = server.workers()
        server.process.kill()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 10)


def test_a_corrupt_artifact_at_start_is_told_and_mended_without_a_restart(write, tmp_path):
    bad, good = write(tmp_path / "bad", name="bad"), write(tmp_path / "good")
    sound = (bad / "model.fp32.onnx").read_bytes()
    (bad / "model.fp32.onnx").write_bytes(b"\0" * 100)
    with serving(tmp_path, bad, good, "--threads", 1, "--reload-every", 0.1, wait=False) as server:
        until(lambda: server.http.get(f"{TOKENS}/ready").status_code == 200)
        answer = server.http.get("/v2/health/ready")
        assert answer.status_code == 503
        assert answer.json()["reasons"][0].startswith("bad version 1 is failed: a file of the artifact is not the one")
        assert server.http.get("/v2/health/live").status_code == 200
        assert server.http.get("/v2/models/bad").status_code == 503
        assert server.http.post(f"{TOKENS}/infer", json=BODY).status_code == 200
        (bad / "model.fp32.onnx").write_bytes(sound)
        os.utime(bad / "manifest.json")
        until(server.ready)


def test_a_token_is_asked_for_and_the_bounds_hold(write, tmp_path):
    """One service for what needs other options: a token, a long wait for company, a short queue."""
    place = write(tmp_path / "a")
    secret = {"S2MLP_TOKEN": "secret"}
    with serving(tmp_path, place, "--threads", 1, "--max-delay", 300, "--queue", 2, environment=secret) as server:
        assert server.http.get("/v2").status_code == 200
        for headers in (
            {},
            {"Authorization": "secret"},
            {"Authorization": "Bearer secre"},
            {"Authorization": "Bearer é"},
        ):
            with httpx.Client(base_url=server.http.base_url) as other:
                raw = {name: value.encode("latin-1") for name, value in headers.items()}
                answer = other.get("/v2", headers=raw)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
                assert other.get("/metrics", headers=raw).status_code == 401
                assert other.get("/v2/health/ready", headers=raw).status_code == 200
                assert other.get("/").status_code == 200
        # Requests wait 0.3 s for company, two at most: the third is told to come again, and who hangs up makes room.
        statuses: Counter = Counter()

        def ask():
            answer = server.http.post(f"{TOKENS}/infer", json=BODY)
            statuses[answer.status_code] += 1
            if answer.status_code == 503:
                assert int(answer.headers["retry-after"]) >= 1

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == {200: 2, 503: 4}
        gone = [threading.Thread(target=ask_and_leave, args=(server,)) for _ in range(2)]
        for thread in gone:
            thread.start()
        for thread in gone:
            thread.join()
        until(lambda: server.http.post(f"{TOKENS}/infer", json=BODY).status_code == 200)
        until(lambda: [line["status"] for line in server.lines() if line.get("status") == 499] == [499, 499])


def ask_and_leave(server):
    """A client that does not wait for its answer."""
    headers = {"Authorization": "Bearer secret"}
    with (
        contextlib.suppress(httpx.ReadTimeout),
        httpx.Client(base_url=server.http.base_url, timeout=0.1, headers=headers) as client,
    ):
        client.post(f"{TOKENS}/infer", json=BODY)


@pytest.mark.slow
def test_a_thousand_connections_and_those_that_send_slowly(write, tmp_path):
    options = ("--threads", 1, "--queue", 4000, "--timeout", 100, "--body-timeout", 2)
    with serving(tmp_path, write(tmp_path / "a"), *options) as server:
        address = ("127.0.0.1", server.port)
        head = b"POST /v2/models/perceptron-0/infer HTTP/1.1\r\nHost: x\r\n"
        slow = [socket.create_connection(address) for _ in range(3)]
        slow[1].sendall(head)  # A head that never ends.
        slow[2].sendall(head + b"Content-Length: 100\r\n\r\n{")  # A body that never comes.
        start = time.monotonic()
        body = json.dumps(BODY).encode()
        request = head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
        many = [socket.create_connection(address, 60) for _ in range(1000)]
        for connection in many:
            connection.sendall(request)
        for connection in many:
            with connection:
                assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        assert slow[0].recv(1) == b""
        assert slow[1].recv(1) == b""
        assert slow[2].recv(65536).startswith(b"HTTP/1.1 408")
        assert time.monotonic() - start < 60
        for connection in slow:
            connection.close()
        assert server.ready()
