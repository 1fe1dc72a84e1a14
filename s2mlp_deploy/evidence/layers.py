"""Per-layer parity: how far what leaves each module of a file is from what leaves it in the model."""

from __future__ import annotations

from dataclasses import dataclass

from s2mlp_deploy.evidence.labels import label_of, name_of_data, saved_path
from s2mlp_deploy.evidence.machine import Environment
from s2mlp_deploy.evidence.notebook import ShownInNotebooks
from s2mlp_deploy.evidence.parity import OutputParity, Tolerances, Weights, unmet_limits
from s2mlp_deploy.metrics import TensorMetrics


@dataclass(frozen=True)
class Errors:
    """How absolute differences are distributed, from a histogram whose bins are 4.5 % wide. None where there are none.

    Attributes:
        mean: Of the absolute differences; exact.
        median: Half of them are at most this.
        p90: Nine of ten are at most this.
        p99: 99 of 100 are at most this.
        decades: ``(-3, 17)``: 17 elements differ by 1e-3 up to 1e-2. Elements that do not differ are in none.
    """

    mean: float | None
    median: float | None
    p90: float | None
    p99: float | None
    decades: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class LayerParity:
    """One layer's figures.

    Attributes:
        path: Of the module, the name of a shift among other nodes of one (``mixer/Shift_1``), or an output's name.
        kind: The module's class, ``shift`` or ``output``.
        value: The tensor of the file that was looked at.
        metrics: The distance of the tensors.
        errors: Of their elements.
        ends: The modules around it that end with the same value.
        line: ``file.py:12`` of the code that made it; empty where it is not known.
        tolerances: The limits that the figures were judged by; None where they were not.
        own: Its own distance: from what the model's layer makes of the values that entered it in the file, on the
            grid of its integers where it has one. What was wrong before it is not in it. None where it has none.
        own_tolerances: The limits that its own distance was judged by.
    """

    path: str
    kind: str
    value: str
    metrics: TensorMetrics
    errors: Errors
    ends: tuple[str, ...] = ()
    line: str = ""
    tolerances: Tolerances | None = None
    own: TensorMetrics | None = None
    own_tolerances: Tolerances | None = None

    @property
    def allowed(self) -> float | None:
        """The largest absolute difference that the tolerances allow; None where there are none."""
        return OutputParity(self.path, self.metrics, None, self.tolerances).allowed

    @property
    def failures(self) -> tuple[str, ...]:
        """Every limit that does not hold, in words."""
        found = unmet_limits(OutputParity(self.path, self.metrics, None, self.tolerances))
        if self.own is not None:
            own = unmet_limits(OutputParity(self.path, self.own, None, self.own_tolerances))
            found += [f"of its own: {failure}" for failure in own]
        return tuple(found)


@dataclass(frozen=True)
class Unmatched:
    """A module whose result was not compared.

    Attributes:
        path: Of the module.
        reason: Why, in words.
    """

    path: str
    reason: str


@dataclass(frozen=True)
class Mend:
    """What was tried against a layer that departs.

    Attributes:
        what: In words.
        option: What to give which command to have it.
        problem: Why it could not be tried; empty where it was.
        layer: The layer's figures with it; None where it was not tried.
        outputs: Those of the outputs.
    """

    what: str
    option: str = ""
    problem: str = ""
    layer: LayerParity | None = None
    outputs: tuple[LayerParity, ...] = ()

    @property
    def helps(self) -> bool:
        """Whether the layer is within its tolerance with it."""
        return self.layer is not None and not self.layer.failures


@dataclass(frozen=True)
class Bisection:
    """The first layer past its tolerance.

    Attributes:
        path: Of the module.
        line: ``file.py:12`` of the code that made its result; empty where it is not known.
        enters: The layers whose results enter it; none where only inputs of the network do.
        mends: What was tried.
        leaves: The layers that its result enters; none where it is an output of the network alone.
    """

    path: str
    line: str
    enters: tuple[str, ...]
    mends: tuple[Mend, ...]
    leaves: tuple[str, ...] = ()


@dataclass(frozen=True)
class LayersReport(ShownInNotebooks):
    """What leaves each module of a file beside what leaves the model's, with figures and limits.

    Attributes:
        reference: What was compared with.
        candidate: What was compared, and how it was computed.
        file: The candidate's file.
        precision: Of the file.
        data: What the inputs were.
        images: How many.
        layers: The figures, in the order of the network; the outputs are the last.
        unmatched: What was not compared.
        runs: How often the file was run with a part of the taps.
        parts: Into how many parts the taps were divided, to stay within the bound of memory.
        tapping: By output the largest difference that the taps themselves made to it; 0 where they changed nothing.
        bisection: The first layer past its tolerance and what was tried against it; None where it was not asked for,
            or all layers hold.
        file_sha256: Hash of the candidate's file.
        noise: Whether the inputs were seeded noise.
        data_sha256: Of the samples; empty of noise.
        weights: Of the reference.
        environment: When, where and with what it was measured.
    """

    reference: str
    candidate: str
    file: str
    precision: str
    data: str
    images: int
    layers: tuple[LayerParity, ...]
    unmatched: tuple[Unmatched, ...] = ()
    runs: int = 0
    parts: int = 1
    tapping: dict[str, float | None] | None = None
    bisection: Bisection | None = None
    file_sha256: str = ""
    noise: bool = False
    data_sha256: str = ""
    weights: Weights | None = None
    environment: Environment | None = None

    @property
    def first(self) -> LayerParity | None:
        """The first layer past its tolerance; None where all hold."""
        return next((layer for layer in self.layers if layer.failures), None)

    @property
    def least(self) -> LayerParity | None:
        """The layer with the least signal over its own distance; None where no layer has one."""
        found = [layer for layer in self.layers if layer.own is not None and layer.own.sqnr is not None]
        return min(found, key=lambda layer: layer.own.sqnr if layer.own and layer.own.sqnr else 0.0, default=None)

    @property
    def failures(self) -> tuple[str, ...]:
        """Every layer past its tolerance, in words."""
        return tuple(f"{layer.path}: {failure}" for layer in self.layers for failure in layer.failures)

    @property
    def passed(self) -> bool:
        """Whether every layer is within its tolerance."""
        return not self.failures

    @property
    def label(self) -> str:
        """What distinguishes it from other comparisons of an artifact, made as parity's evidence makes its own."""
        weights = self.weights or Weights()
        asked = [self.file_sha256, self.candidate, self.data_sha256 or self.data, weights.sha256, weights.seed]
        return label_of(saved_path(self.file).stem, "noise" if self.noise else name_of_data(self.data), asked=asked)
