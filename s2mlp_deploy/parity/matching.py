"""Which input or output of one side is which of the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.engines.base import Arrays, Engine
from s2mlp_deploy.errors import InputError

Feeds = Mapping[str, NDArray[Any]]


def match_names(wanted: Sequence[str], given: Sequence[str], *, what: str, sides: tuple[str, str]) -> dict[str, str]:
    """For each wanted name the given one it stands for: of the same name, else the next of those left over.

    Args:
        wanted: Names of one side, in order.
        given: Names of the other side, in order.
        what: ``input`` or ``output``, for the message.
        sides: Who wants and who gives, for the message.

    Raises:
        InputError: One side has more than the other; names both.
    """
    if len(wanted) != len(given):
        told = [
            f"{side} has {len(names)} {what}{'' if len(names) == 1 else 's'} ({', '.join(names) or 'none'})"
            for side, names in zip(sides, (wanted, given), strict=True)
        ]
        raise InputError(
            f"the number of {what}s differs: {told[0]}, {told[1]}",
            fix="compare with the source, checkpoint and settings that the file was exported from",
        )
    left_over = iter([name for name in given if name not in wanted])
    return {name: name if name in given else next(left_over) for name in wanted}


class Matched:
    """A candidate that is fed and read by the reference's names."""

    def __init__(self, key: str, engine: Engine, reference: Engine) -> None:
        self._key = key
        self._engine = engine
        sides = (key, "the reference")
        self._inputs, self._outputs = (
            match_names([i.name for i in own], [i.name for i in other], what=what, sides=sides)
            for what, own, other in (
                ("input", engine.inputs, reference.inputs),
                ("output", engine.outputs, reference.outputs),
            )
        )

    def run(self, feeds: Feeds) -> Arrays:
        """Runs the candidate; floats are given in its own type.

        Raises:
            InputError: It has not all outputs, or refuses the inputs.
        """
        given = {}
        for info in self._engine.inputs:
            array = feeds[self._inputs[info.name]]
            rounds = array.dtype == np.float32 and info.dtype == "float16"
            given[info.name] = array.astype(np.float16) if rounds else array
        results = self._engine.run(given)
        if missing := [name for name in self._outputs if name not in results]:
            raise InputError(
                f"{self._key} has no output {', '.join(missing)}", fix=f"its outputs: {', '.join(results)}"
            )
        return {self._outputs[name]: array for name, array in results.items() if name in self._outputs}
