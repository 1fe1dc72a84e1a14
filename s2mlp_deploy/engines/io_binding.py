"""Inputs and outputs of an ONNX Runtime session that stay in the memory of its device from run to run."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.errors import InputError


class BoundSession:
    """A session whose inputs and outputs are bound; safe to call from several threads, which take turns.

    Memory is allocated for the shapes of the first run and used again until they change. An output whose shape does not
    follow from the inputs' is allocated by ONNX Runtime at every run.

    Args:
        onnxruntime: The module.
        session: Its ``InferenceSession``.
        inputs: Of the session.
        outputs: Of the session.
        kind: What ONNX Runtime calls the device: ``cuda``.
        device: Its number.
        captures: Whether the session records its first run as a CUDA graph and replays that from then on, whatever it
            is given: only the shapes of that run are taken then.
    """

    def __init__(
        self,
        onnxruntime: Any,
        session: Any,
        inputs: tuple[TensorInfo, ...],
        outputs: tuple[TensorInfo, ...],
        *,
        kind: str,
        device: int,
        captures: bool = False,
    ) -> None:
        self._ort, self._session = onnxruntime, session
        self._inputs, self._outputs = inputs, outputs
        self._place = (kind, device)
        self._lock = threading.Lock()
        self._binding: Any = None
        self._values: dict[str, Any] = {}
        self._shapes: dict[str, tuple[Any, ...]] = {}
        self._captures = captures
        self._captured: dict[str, tuple[Any, ...]] = {}
        # "?" is an axis without a name, of which nothing is known.
        known = {size for info in inputs for size in info.shape if size != "?"}
        self._free = tuple(info for info in outputs if any(isinstance(n, str) and n not in known for n in info.shape))

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs, in order.

        Raises:
            InputError: The session has captured a run of other shapes.
        """
        with self._lock:
            # Not ascontiguousarray, which gives a number without axes one.
            arrays = {name: np.asarray(array, order="C") for name, array in feeds.items()}
            shapes = {name: (array.shape, array.dtype) for name, array in arrays.items()}
            if self._captured and shapes != self._captured:
                raise InputError(
                    "ONNX Runtime replays the CUDA graph of its first run, which had other shapes or types",
                    where=f"inputs {_words_of(shapes)}, and at first {_words_of(self._captured)}",
                    fix="open the file again for these, or without a CUDA graph",
                )
            # What was captured is bound for good.
            changed = shapes != (self._captured or self._shapes)
            self._shapes = {}  # Until it has run: what failed in between leaves nothing to go on with.
            if changed:
                self._bind(arrays)
            else:
                for name, array in arrays.items():
                    self._values[name].update_inplace(array)
                self._bind_outputs(self._free)  # What was allocated for it has the last run's size.
            self._session.run_with_iobinding(self._binding)
            # Copies: where the device is the processor, these are views of what the next run writes into.
            results = [np.array(value) for value in self._binding.copy_outputs_to_cpu()]
            if changed:
                self._keep_outputs()
            self._shapes = shapes
            if self._captures:
                self._captured = shapes
            return results

    def _bind(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._binding = self._session.io_binding()
        # Of a copy: where the device is the processor, the next run would write into the caller's array.
        self._values = {
            name: self._ort.OrtValue.ortvalue_from_numpy(array.copy(), *self._place) for name, array in arrays.items()
        }
        for name, value in self._values.items():
            self._binding.bind_ortvalue_input(name, value)
        self._bind_outputs(self._outputs)

    def _bind_outputs(self, outputs: Iterable[TensorInfo]) -> None:
        """Leaves room for outputs to ONNX Runtime."""
        for info in outputs:
            self._binding.bind_output(info.name, *self._place)

    def _keep_outputs(self) -> None:
        """What was allocated for the outputs of the first run takes those of the next."""
        for info, value in zip(self._outputs, self._binding.get_outputs(), strict=True):
            if info not in self._free:
                self._values[info.name] = value
                self._binding.bind_ortvalue_output(info.name, value)


def _words_of(shapes: Mapping[str, tuple[Any, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)} {dtype}" for name, (shape, dtype) in shapes.items())
