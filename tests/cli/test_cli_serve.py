"""What ``serve`` refuses before anything is loaded."""

from __future__ import annotations

import socket

import pytest
from tiny_artifact import write_tiny

from s2mlp_deploy.errors import InputError

for package in ("fastapi", "uvicorn", "httptools", "prometheus_client", "grpc"):
    pytest.importorskip(package)


def test_what_is_no_artifact_is_told(refused, tmp_path):
    assert "there is no artifact here" in refused("serve", tmp_path / "nope")
    assert "there is no artifact here" in refused("serve", tmp_path)
    (tmp_path / "a").mkdir()
    for name in ("manifest.json", "model.fp32.onnx"):
        (tmp_path / "a" / name).write_text("{}")
    named = refused("serve", tmp_path / "a" / "model.fp32.onnx")
    assert "a file is no artifact" in named
    assert str(tmp_path / "a") in named.partition("fix:")[2]


def test_a_token_that_no_header_takes_is_told(refused, tmp_path, monkeypatch):
    write_tiny(tmp_path / "a")
    (tmp_path / "token").write_text("two words")
    for arguments in (("--token-file", tmp_path / "token"), ("--token-file", tmp_path / "none")):
        assert "openssl rand" in refused("serve", tmp_path / "a", *arguments)
    (tmp_path / "token").write_bytes(b"a" * 65_537)
    assert "longer than" in refused("serve", tmp_path / "a", "--token-file", tmp_path / "token")
    monkeypatch.setenv("S2MLP_TOKEN", " ")
    assert "$S2MLP_TOKEN" in refused("serve", tmp_path / "a")


def test_an_address_that_cannot_be_used_is_told(refused, tmp_path):
    write_tiny(tmp_path / "a")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "Address already in use" in refused("serve", tmp_path / "a", "--port", port)
        assert "of gRPC" in refused("serve", tmp_path / "a", "--port", 0, "--grpc-port", port)
    assert "there is no address" in refused("serve", tmp_path / "a", "--host", "no such host")


def test_bounds_that_bound_nothing_are_told(refused, tmp_path):
    write_tiny(tmp_path / "a")
    assert "timeout is 0" in refused("serve", tmp_path / "a", "--timeout", 0)
    assert "pixels" in refused("serve", tmp_path / "a", "--max-pixels", 10**10)


def test_an_engine_that_is_not_here_is_told(refused, tmp_path):
    write_tiny(tmp_path / "a")
    assert "no cuda here" in refused("serve", tmp_path / "a", "--engine", "onnxruntime:cuda")


def test_a_log_that_cannot_be_written_is_told(refused, tmp_path):
    write_tiny(tmp_path / "a")
    (tmp_path / "file").touch()
    assert "--log-file" in refused("serve", tmp_path / "a", "--log-file", tmp_path / "file" / "log")


def test_what_is_refused_leaves_no_log(refused, tmp_path):
    (tmp_path / "old").touch()
    for log in ("new/x/log", "log", "old"):
        refused("serve", tmp_path / "nope", "--log-file", tmp_path / log)
    refused("serve", tmp_path / "nope", "--log-file", tmp_path / "new" / "x" / ("long" * 100))
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize(("option", "spin"), [((), None), (("--no-spin",), False)])
def test_idle_threads_sleep_where_that_was_asked_for(refused, tmp_path, monkeypatch, option, spin):
    from s2mlp_deploy.artifact import read_manifest
    from s2mlp_deploy.serving.service import model, repository
    from s2mlp_deploy.serving.service.options import ServiceLimits

    def served(paths, _, engine, *__):
        found = repository.Repository(paths, engine, ServiceLimits(), lambda *_: None)
        model.ServedModel(found._setup(paths[0], read_manifest(paths[0])))

    def opened(*_, spin, **__):
        raise InputError(f"spin is {spin}", fix="none")

    monkeypatch.setattr("s2mlp_deploy.api.serving.run", served)
    monkeypatch.setattr(model, "Predictor", opened)
    write_tiny(tmp_path / "a")
    assert f"spin is {spin}" in refused("serve", tmp_path / "a", *option)
