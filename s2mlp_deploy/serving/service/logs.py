"""The log: a JSON object a line, written by a thread. What cannot be written is counted and holds nobody up."""

from __future__ import annotations

import logging
import queue
import re
import threading
import time
from typing import IO, Any

import msgspec

from s2mlp_deploy.text import UNSAFE, first_line_of

_WAITING = 10_000
_UNSAFE = re.compile(rf"{UNSAFE.pattern}|[\u2028\u2029]")
_OWN = frozenset(vars(logging.makeLogRecord({})))


class JsonLines(logging.Handler):
    """Writes records as JSON lines.

    Args:
        stream: Where to; opened for bytes and without a buffer, so that a line is written whole or fails at once.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__()
        self._stream = stream
        # Bounded: somebody who does not read stderr must not fill the memory, nor stop the event loop.
        self._lines: queue.Queue[bytes | None] = queue.Queue(_WAITING)
        self._lost = 0
        self._writer = threading.Thread(target=self._write, name="log", daemon=True)
        self._writer.start()

    @property
    def lost(self) -> int:
        """How many lines could not be written."""
        return self._lost

    def emit(self, record: logging.LogRecord) -> None:
        """Hands a record over."""
        try:
            self._lines.put_nowait(line_of(record))
        except queue.Full:
            self._lost += 1

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._stream.write(line)
            except (OSError, ValueError):  # A full disk, a reader that is gone.
                self._lost += 1

    def close(self) -> None:
        """Writes what is left, for two seconds at most."""
        if self._writer.is_alive():
            try:
                self._lines.put_nowait(None)
            except queue.Full:
                return
            self._writer.join(2)
        super().close()


def line_of(record: logging.LogRecord) -> bytes:
    """A record as a line: time, level, message and what was given as ``extra``."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    fields: dict[str, Any] = {
        "time": f"{stamp}.{int(record.msecs):03d}Z",
        "level": record.levelname.lower(),
        "message": record.getMessage(),
    }
    fields |= {key: value for key, value in vars(record).items() if key not in _OWN and value is not None}
    if record.exc_info and record.exc_info[1] is not None:
        fields["error"] = f"{type(record.exc_info[1]).__name__}: {first_line_of(record.exc_info[1])}"
        fields["traceback"] = logging.Formatter().formatException(record.exc_info)
    line = msgspec.json.encode(fields, enc_hook=str).decode()
    # A path is its sender's text: nothing in it ends a line or commands a terminal. As an escape it is the same text.
    return _UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", line).encode() + b"\n"
