"""Progress of a build, and stopping it: both through the library's ``IProgressMonitor``."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

Report = Callable[[str, int, int | None], None]


class Interrupt:
    """Remembers Ctrl-C until the library asks whether to go on.

    Python would raise KeyboardInterrupt inside the callback, through C++ that cannot pass it on; the handler only notes
    the signal, the callback answers no, the library gives up cleanly, and then the exception is raised.
    """

    def __init__(self) -> None:
        self.requested = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.requested = True

    @staticmethod
    def _is_ignored() -> bool:
        return signal.getsignal(signal.SIGINT) is signal.SIG_IGN

    @contextlib.contextmanager
    def held(self) -> Iterator[Interrupt]:
        """Takes the place of Python's handler; raises KeyboardInterrupt at the end if there was a signal."""
        # Only the main thread gets signals; a job in the background may have been told to ignore this one.
        if threading.current_thread() is not threading.main_thread() or self._is_ignored():
            yield self
            return
        before = signal.signal(signal.SIGINT, self._note)
        try:
            yield self
        finally:
            signal.signal(signal.SIGINT, before)
            if self.requested:
                raise KeyboardInterrupt


def monitor_of(trt: Any, report: Report, interrupt: Interrupt) -> Any:
    """An ``IProgressMonitor`` that reports the innermost phase and stops the build when asked to."""
    base: Any = trt.IProgressMonitor

    class Monitor(base):  # type: ignore[misc]
        """Phases nest; each has a known number of steps."""

        def __init__(self) -> None:
            super().__init__()
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """A phase begins."""
            del parent_phase
            self._steps[phase_name] = num_steps
            report(phase_name.lower(), 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            """A step is done; False ends the build."""
            report(phase_name.lower(), step + 1, self._steps.get(phase_name))
            return not interrupt.requested

        def phase_finish(self, phase_name: str) -> None:
            """A phase ends."""
            self._steps.pop(phase_name, None)

    return Monitor()
