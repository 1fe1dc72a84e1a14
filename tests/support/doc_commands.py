"""``s2mlp-deploy`` as a program that starts in milliseconds: each command is a fork of one process that imported all.

The shell of a page calls :data:`CLIENT`, which hands its arguments, folder, environment and streams to the server over
a socket, forwards signals and ends with the command's status. So pipes, redirections, background jobs and exit statuses
are those of the real program; only the three seconds of imports are shared.

What takes its time to measure measures less: :data:`SHORTER`, and one process and a hundredth of a second where
``quantize`` and ``export`` look at the speed of what they made.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path

SOCKET = "S2MLP_TEST_COMMANDS"
SHORTER = {
    "bench": {"--launches": "1", "--rounds": "2", "--warmup": "0"},
    "tune": {"--minutes": "0.1"},
}
"""Options that commands get, whatever the page gives them."""
CLIENT = f"""#!{sys.executable} -IS
import json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect(os.environ["{SOCKET}"])
asked = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(asked).to_bytes(4, "big")], [0, 1, 2])
server.sendall(asked)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, _: server.sendall(bytes([number])))
status = server.recv(1)
os._exit(status[0] if status else 139)
"""


@contextlib.contextmanager
def command_server(room: Path) -> Iterator[dict[str, str]]:
    """The environment in which ``s2mlp-deploy`` and ``python`` are those under test."""
    programs = room / "bin"
    programs.mkdir(parents=True)
    client = programs / "s2mlp-deploy"
    client.write_text(CLIENT)
    client.chmod(0o755)
    for name in ("python", "python3"):
        # No link: the venv is found by where the program lies.
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (programs / name).chmod(0o755)
    root = str(Path(__file__).resolve().parents[2])
    address = str(room / "commands")
    env = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": root, SOCKET: address}
    # Several threads do not survive a fork; without COLUMNS, as in a pipe, what is printed is 80 wide.
    env["OMP_NUM_THREADS"] = "1"
    # A terminal shows no progress of curl's where it shows the answer.
    (room / ".curlrc").write_text("silent\nshow-error\n")
    env["CURL_HOME"] = str(room)
    env.pop("COLUMNS", None)
    with (room / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, __file__, address], env=env, stdout=subprocess.PIPE, stderr=log, start_new_session=True
        )
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n", (room / "server.log").read_text()
            yield env
        finally:
            server.terminate()
            server.wait()


def _serve(address: str) -> None:
    """Forks for each command that is asked for."""
    with contextlib.suppress(ImportError):
        import tensorrt_rtx  # noqa: F401
    import onnxruntime  # noqa: F401
    import onnxscript  # noqa: F401
    import torch.export  # noqa: F401

    from s2mlp_deploy.bench import options, speed
    from s2mlp_deploy.cli import console

    speed.LAUNCHES, speed.ROUNDS, options.ROUND_MS = 1, 2, 10.0
    # On a terminal a bar that goes away says what is being done; these are its lines for pipes.
    console._EVERY = 3600.0
    # Nobody waits for the commands here; they themselves wait for processes of theirs.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # What a command starts by "spawn" looks for this module's file, which is not its own.
    sys.modules["__main__"] = types.ModuleType("__main__")
    # No command looks for garbage among what all have imported.
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen(64)
        os.write(1, b"ready\n")
        while True:
            client, _ = server.accept()
            if os.fork() == 0:
                server.close()
                _run(client)
            client.close()


def _run(client: socket.socket) -> None:
    """Runs one command with the client's streams and ends the process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    size, streams, _, _ = socket.recv_fds(client, 4, 3)
    asked = bytearray()
    while len(asked) < int.from_bytes(size, "big"):
        asked += client.recv(2**16)
    arguments, folder, env = json.loads(asked)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.path[0] = env["PYTHONPATH"]
    # The last of an option that is given twice counts.
    shorter = SHORTER.get(arguments[0] if arguments else "", {})
    if "--max-slowdown" in arguments:  # Of two rounds on a machine that does other things too.
        shorter = shorter | {"--max-slowdown": "1000"}
    sys.argv = ["s2mlp-deploy", *arguments, *(word for option in shorter.items() for word in option)]
    # As on a terminal, what goes to both streams stays in its order.
    sys.stdout.reconfigure(line_buffering=True)
    threading.Thread(target=_obey, args=(client,), daemon=True).start()
    from s2mlp_deploy.__main__ import main

    status: object = 0
    try:
        main()
    except SystemExit as stop:
        status = stop.code or 0
    finally:
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.flush()
            sys.stderr.flush()
        client.send(bytes([status if isinstance(status, int) else 1]))
        os._exit(0)


def _obey(client: socket.socket) -> None:
    """Takes signals from the client; where it is gone, ends what it started."""
    while number := client.recv(1):
        os.kill(os.getpid(), number[0])
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    _serve(sys.argv[1])
