"""The process that holds one model: decodes, runs, answers.

A process of its own, so that a crash inside an engine ends only this one, decoding does not hold up the service's event
loop, and all memory of a model is gone with it. While one batch runs, a thread decodes the next.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import sys
import threading
import time
import warnings
from dataclasses import dataclass

from PIL import Image

from s2mlp_deploy.errors import S2MLPDeployError
from s2mlp_deploy.serving.service.messages import (
    LENGTH,
    QUESTIONS,
    Answer,
    Batch,
    Done,
    Item,
    Question,
    Refused,
    Setup,
    encode,
)
from s2mlp_deploy.serving.service.model import Prepared, ServedModel


def main() -> None:
    """Serves what the socket, whose descriptor is the first argument, asks for."""
    # Ctrl-C and a container's SIGTERM reach the service too, which lets requests end first and then hangs up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    serve(socket.socket(fileno=int(sys.argv[1])))


@dataclass(frozen=True)
class _Ready:
    number: int
    requests: list[tuple[Item, Prepared]]
    seconds: float


def serve(connection: socket.socket) -> None:
    """Answers what comes; ends the process when nobody asks any more."""
    start = time.monotonic()
    setup = _receive(connection)
    assert isinstance(setup, Setup)
    try:
        model = ServedModel(setup)
        model.warm_up()
    except S2MLPDeployError as error:
        _send(connection, Refused(error.problem, error.fix))
        return
    _send(connection, model.opened(time.monotonic() - start))
    ready: queue.Queue[_Ready] = queue.Queue(maxsize=1)
    threading.Thread(target=_prepare, args=(connection, model, ready), daemon=True).start()
    while True:
        batch = ready.get()
        start = time.monotonic()
        outcomes = model.run(batch.requests)
        _send(connection, Done(batch.number, outcomes, batch.seconds, time.monotonic() - start))


def _prepare(connection: socket.socket, model: ServedModel, ready: queue.Queue[_Ready]) -> None:
    while True:
        batch = _receive(connection)
        assert isinstance(batch, Batch)
        start = time.monotonic()
        requests: list[tuple[Item, Prepared]] = [(item, model.prepare(item)) for item in batch.items]
        ready.put(_Ready(batch.number, requests, time.monotonic() - start))


def _receive(connection: socket.socket) -> Question:
    (length,) = LENGTH.unpack(_exactly(connection, LENGTH.size))
    return QUESTIONS.decode(_exactly(connection, length))


def _exactly(connection: socket.socket, length: int) -> bytearray:
    data = bytearray(length)
    view, filled = memoryview(data), 0
    while filled < length:
        try:
            count = connection.recv_into(view[filled:])
        except OSError:
            count = 0
        if not count:  # Nobody waits for an answer any more, also where the engine never returns.
            os._exit(0)
        filled += count
    return data


def _send(connection: socket.socket, answer: Answer) -> None:
    try:
        connection.sendall(encode(answer))
    except OSError:
        os._exit(0)


if __name__ == "__main__":
    main()
