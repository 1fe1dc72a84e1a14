"""How an artifact is tuned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from s2mlp_deploy.errors import InputError

MINUTES = 4.0
"""Of a tuning by default."""


@dataclass(frozen=True)
class TuneOptions:
    """How an artifact is tuned.

    Attributes:
        minutes: The time that it may take.
        engines: ``onnxruntime[:PROVIDER]``, ``openvino[:DEVICE]``; none for all of them that are installed.
        threads: Within an operator; None tries one and as many as there are processors.
        batch: Samples in a run; None for the files' own, or 1.
        shapes: By input, where sizes besides the batch are free.
        seed: Of the noise and the order of rounds.

    Raises:
        InputError: A number is out of range.
    """

    minutes: float = MINUTES
    engines: Sequence[str] = ()
    threads: int | None = None
    batch: int | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.minutes <= 24 * 60:
            raise InputError(
                f"{self.minutes:g} minutes is no time to measure in",
                where="--minutes",
                fix=f"give a number above 0, at most a day; the default is {MINUTES:g}",
            )
        # They bring numpy, which --help does not need.
        from s2mlp_deploy.engines.profiles import MAX_SIZE
        from s2mlp_deploy.engines.registry import check_threads

        if self.threads is not None:
            check_threads(self.threads, least=1)
        if self.batch is not None and not 1 <= self.batch <= MAX_SIZE:
            raise InputError(f"a batch of {self.batch} is none", where="--batch", fix=f"give one from 1 to {MAX_SIZE}")
        if self.seed < 0:
            raise InputError(f"the seed is {self.seed}", where="--seed", fix="give a number of at least 0")
