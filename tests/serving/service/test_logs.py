"""The log, and a disk that is full."""

from __future__ import annotations

import io
import json
import logging
import threading
from pathlib import Path

import pytest

from s2mlp_deploy.serving.service.logs import JsonLines


@pytest.fixture
def logger():
    made = logging.Logger("service")
    yield made
    for handler in made.handlers:
        handler.close()


def test_a_record_is_one_line_of_json(logger, tmp_path):
    with (tmp_path / "log").open("ab", buffering=0) as stream:
        handler = JsonLines(stream)
        logger.addHandler(handler)
        logger.warning("%s is\nready", "m", extra={"request_id": "7", "path": Path("/x"), "nothing": None})
        try:
            raise ValueError("broken\nbadly")
        except ValueError:
            logger.exception("internal error")
        handler.close()
    first, second = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert first["time"].endswith("Z")
    assert {key: first[key] for key in ("level", "message", "request_id", "path")} == {
        "level": "warning",
        "message": "m is\nready",
        "request_id": "7",
        "path": "/x",
    }
    assert "nothing" not in first
    assert second["error"] == "ValueError: broken"
    assert "Traceback" in second["traceback"]


def test_somebody_s_text_ends_no_line_and_commands_no_terminal(logger, tmp_path):
    hostile = "a\u2028b\u2029c\x85d\x1b[2Je\u202ef"
    with (tmp_path / "log").open("ab", buffering=0) as stream:
        handler = JsonLines(stream)
        logger.addHandler(handler)
        logger.warning("x", extra={"path": hostile})
        handler.close()
    text = (tmp_path / "log").read_text()
    assert len(text.splitlines()) == 1
    assert text.isascii()
    assert json.loads(text)["path"] == hostile


def test_a_full_disk_loses_lines_and_nothing_else(logger):
    with open("/dev/full", "wb", buffering=0) as stream:  # noqa: PTH123
        handler = JsonLines(stream)
        logger.addHandler(handler)
        for _ in range(5):
            logger.warning("x")
        handler.close()
    assert handler.lost == 5


def test_a_reader_that_does_not_read_holds_nobody_up(logger, monkeypatch):
    monkeypatch.setattr("s2mlp_deploy.serving.service.logs._WAITING", 10)
    go = threading.Event()

    class Stuck(io.RawIOBase):
        def write(self, data):
            go.wait()
            return len(data)

    handler = JsonLines(Stuck())
    logger.addHandler(handler)
    for _ in range(30):
        logger.warning("x")
    assert handler.lost >= 19
    go.set()
