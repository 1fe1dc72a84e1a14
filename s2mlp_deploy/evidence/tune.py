"""Tuning: what was tried on this machine, how long each took, why it was dropped, and what `predict` takes since."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from s2mlp_deploy.evidence.bench import Ratio
from s2mlp_deploy.evidence.machine import Environment
from s2mlp_deploy.evidence.notebook import ShownInNotebooks

Outcome: TypeAlias = Literal["won", "slower", "parity", "accuracy", "failed", "untried"]
"""What became of a trial: it is the fastest of its number type that passed every check, another one is faster, it does
not compute the same, its accuracy is not known or not enough, it could not be made or run, or time was up before its
turn."""

Optimize: TypeAlias = Literal["all", "extended", "basic", "off"]
"""How far ONNX Runtime fuses and folds."""

GraphPasses: TypeAlias = Literal["as exported", "all", "none"]
"""Which of this package's graph passes a file has had: those of its export, those that it lacked too, or none."""


def graph_in_words(form: str, passes: GraphPasses) -> str:
    """How a graph is written: the form of its shifts, and which passes it has had where that is not its export's."""
    return {"as exported": form, "all": f"{form}, every graph pass", "none": f"{form}, no graph pass"}[passes]


@dataclass(frozen=True)
class EngineSettings:
    """How an engine is opened. Each engine takes those it has: OpenVINO neither ``spin`` nor ``optimize``.

    Attributes:
        threads: Within an operator; 0 lets the engine choose.
        spin: Whether idle threads spin for work.
        optimize: How far the graph is optimized when it is loaded.
        flush_denormals: Whether subnormal numbers count as 0.
    """

    threads: int = 0
    spin: bool = True
    optimize: Optimize = "all"
    flush_denormals: bool = False

    @property
    def words(self) -> str:
        """``2 threads, no spinning``: what is not the engine's own choice."""
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}" if self.threads else "threads by the engine"
        told = (
            threads,
            "" if self.spin else "no spinning",
            "" if self.optimize == "all" else f"optimized {self.optimize}",
            "subnormals as 0" if self.flush_denormals else "",
        )
        return ", ".join(filter(None, told))


@dataclass(frozen=True)
class Trial:
    """A candidate: a file on an engine, opened in one way.

    Attributes:
        file: Of the artifact; empty where the winner is another one and the file was not kept.
        sha256: Of the file that was measured; empty where none was made.
        precision: Of the file: ``fp32``, ``int8``, ``int8-trt``.
        layout: Inner layout: ``channels-last``, ``channels-first``, or ``as-is``, the source's own.
        form: How shifts are written: ``mixed`` where they differ, ``none`` where there is none.
        engine: As on the command line: ``onnxruntime``, ``openvino``.
        settings: How it was opened.
        outcome: What became of it.
        reason: That, in words with the figures that decided.
        ms: Median of its rounds; None where it was not measured.
        rounds: How many there were.
        ratio: Time over that of the first trial, which is what ran before tuning; None for that one itself, and where
            it was not measured.
        difference: Largest absolute difference of the outputs from the artifact's float32 file; None where they were
            not compared.
        passes: Which graph passes its file has had.
    """

    file: str
    sha256: str
    precision: str
    layout: str
    form: str
    engine: str
    settings: EngineSettings
    outcome: Outcome
    reason: str = ""
    ms: float | None = None
    rounds: int = 0
    ratio: Ratio | None = None
    difference: float | None = None
    passes: GraphPasses = "as exported"

    @property
    def graph(self) -> str:
        """How its graph is written, in words."""
        return graph_in_words(self.form, self.passes)

    @property
    def name(self) -> str:
        """What it is, in words."""
        return f"{self.precision}, {self.layout}, {self.graph} on {self.engine}, {self.settings.words}"

    @property
    def number_type(self) -> str:
        """What it computes in, for whatever engine its file was placed: ``int8`` of ``int8-trt``."""
        return self.precision.partition("-")[0]


@dataclass(frozen=True)
class TuneReport(ShownInNotebooks):
    """What was tried of an artifact on one machine: every candidate, its figures, what became of it and why.

    Attributes:
        environment: Where and when.
        clock: What the times are: ``cpu``, processor time of the process (of one thread, it is the work itself), or
            ``wall``.
        batch: Samples in a run.
        inputs: Shapes of the inputs, in the graph's order.
        data: What the inputs were.
        minutes: The time that was granted.
        seconds: The time that it took, of all goes together.
        trials: All that was tried, the first one what ran before tuning, and what there was no time for.
        notes: What was left out, and why.
    """

    environment: Environment
    clock: Literal["cpu", "wall"]
    batch: int
    inputs: tuple[tuple[int, ...], ...]
    data: str
    minutes: float
    seconds: float
    trials: tuple[Trial, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.trials:
            raise ValueError("it has no trial")

    @property
    def tried(self) -> int:
        """How many of them there was time for."""
        return sum(trial.outcome != "untried" for trial in self.trials)

    @property
    def winners(self) -> tuple[Trial, ...]:
        """The fastest trial of each number type that passed every check, the fastest of them first.

        The first one is what `predict` and `serve` take by default, as long as its file is the one that was measured.
        """
        won = [trial for trial in self.trials if trial.outcome == "won" and trial.file]
        return tuple(sorted(won, key=_time_of))

    def best(self, *, precisions: Iterable[str] | None = None, engines: Iterable[str] | None = None) -> Trial | None:
        """The fastest winner; None where there is none that fits.

        Args:
            precisions: Which are wanted, as files name them: ``fp32``, ``int8``, ``int8-trt``; default: any.
            engines: Which engines may run it; default: any.
        """
        wanted = None if precisions is None else set(precisions)
        runs = None if engines is None else set(engines)
        for trial in self.winners:
            if (wanted is None or trial.precision in wanted) and (runs is None or trial.engine in runs):
                return trial
        return None


def _time_of(trial: Trial) -> float:
    """Time as a share of what ran before: trials of several goes compare by it."""
    return trial.ratio.value if trial.ratio is not None else 1.0
