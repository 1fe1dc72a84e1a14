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
    """Remembers what must end a call into the library until it has ended: Ctrl-C, or an exception of a callback.

    Python would raise KeyboardInterrupt inside the callback, through C++ that cannot pass it on; the handler only notes
    the signal, the callback answers no, the library gives up cleanly, and then the exception is raised. What a callback
    raises itself would be lost in the library in the same way.
    """

    def __init__(self) -> None:
        self._signalled = False
        self._error: BaseException | None = None

    @property
    def requested(self) -> bool:
        """Whether the library shall give up."""
        return self._signalled or self._error is not None

    def note(self, error: BaseException) -> None:
        """Keeps what a callback raised; the first one counts."""
        self._error = self._error or error

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._signalled = True

    @staticmethod
    def _is_ignored() -> bool:
        return signal.getsignal(signal.SIGINT) is signal.SIG_IGN

    @contextlib.contextmanager
    def held(self) -> Iterator[Interrupt]:
        """Takes the place of Python's handler of Ctrl-C.

        Raises:
            KeyboardInterrupt: At the end, if there was a signal.
            BaseException: At the end, what was noted.
        """
        # Only the main thread gets signals; a job in the background may have been told to ignore this one.
        if threading.current_thread() is not threading.main_thread() or self._is_ignored():
            try:
                yield self
            finally:
                self._raise()
            return
        before = signal.signal(signal.SIGINT, self._note)
        try:
            yield self
        finally:
            signal.signal(signal.SIGINT, before)
            self._raise()

    def _raise(self) -> None:
        if self._signalled:
            raise KeyboardInterrupt
        if self._error is not None:
            raise self._error


def monitor_of(trt: Any, report: Report, interrupt: Interrupt) -> Any:
    """An ``IProgressMonitor`` that reports the innermost phase and stops the build when asked to."""
    base: Any = trt.IProgressMonitor

    class Monitor(base):  # type: ignore[misc]
        """Phases nest; each has a known number of steps. Called from threads of the library too."""

        def __init__(self) -> None:
            super().__init__()
            self._steps: dict[str, int] = {}

        def _report(self, phase_name: str, done: int) -> None:
            if interrupt.requested:
                return
            try:
                report(phase_name.lower(), done, self._steps.get(phase_name))
            except BaseException as error:  # Whatever it is: nothing may pass through C++.
                interrupt.note(error)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """A phase begins."""
            del parent_phase
            self._steps[phase_name] = num_steps
            self._report(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            """A step is done; False ends the build."""
            self._report(phase_name, step + 1)
            return not interrupt.requested

        def phase_finish(self, phase_name: str) -> None:
            """A phase ends."""
            self._steps.pop(phase_name, None)

    return Monitor()
