"""Which files of other precisions are wanted, and from what. Imports no onnx."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2mlp_deploy.artifact import model_file
from s2mlp_deploy.calibration.ranges import check_method
from s2mlp_deploy.choices import CALIBRATION_METHOD, CALIBRATION_SAMPLES, EVAL_SAMPLES, MIN_SAMPLES
from s2mlp_deploy.errors import DataError, InputError, OutputError
from s2mlp_deploy.files import check_parents
from s2mlp_deploy.graph.operators import MATRIX_OPS
from s2mlp_deploy.precision.exclusion import Exclusion
from s2mlp_deploy.precision.limits import FileLimits, Limits
from s2mlp_deploy.text import join_names

if TYPE_CHECKING:
    from s2mlp_deploy.precision.accuracy import Metric, OutputMetric

FILES_OF = {"fp32": (), "fp16": ("fp16",), "int8": ("int8", "int8-trt"), "fp8": ("fp8-trt",)}
"""The precisions of the files that a precision on the command line stands for, beside fp32, which is always there."""

_HALF = frozenset({"fp16", "int8-trt", "fp8-trt"})
_HALF_SCALES_FROM = 19


def file_precisions(wanted: Sequence[str]) -> tuple[str, ...]:
    """The precisions of the files that the command line's stand for, without fp32.

    Raises:
        InputError: There is no such precision.
    """
    if strange := [name for name in wanted if name not in FILES_OF]:
        raise InputError(f"there is no precision {strange[0]!r}", fix=f"choose from {join_names(FILES_OF, last='or')}")
    return tuple(dict.fromkeys(file for name in FILES_OF if name in wanted for file in FILES_OF[name]))


def is_half(precision: str) -> bool:
    """Whether the file of a precision is a float16 graph, with or without Q/DQ."""
    return precision in _HALF


def check_opset(wanted: Sequence[str], opset: int) -> None:
    """Refuses float16 scales and fp8 in an opset that has none.

    Args:
        wanted: What :func:`file_precisions` returned.
        opset: Of the float32 graph.

    Raises:
        InputError: QuantizeLinear takes float16, and gives fp8, from opset 19 on.
    """
    lacking = [name for name in wanted if name in _HALF and name != "fp16"]
    if opset < _HALF_SCALES_FROM and lacking:
        raise InputError(
            f"{model_file(lacking[0])} cannot be written in opset {opset}, whose Q and DQ know neither float16 nor fp8",
            fix=f"export with --opset {_HALF_SCALES_FROM} or more",
        )


@dataclass(frozen=True)
class PrecisionOptions:
    """Which files to write beside float32, and from what.

    Attributes:
        precisions: ``fp16``, ``int8`` (two files: for ONNX Runtime and for TensorRT), ``fp8``.
        data: What :func:`~s2mlp_deploy.data.dataset.open_data` takes. float16 alone does without.
        method: How ranges are chosen: ``minmax``, ``entropy``, ``percentile`` or ``mse``.
        samples: Measure ranges on at most so many.
        max_drop: Points that a file's score may lie below float32's, for which a quantized one keeps layers in higher
            precision; None sets no budget.
        min_cosine: Smallest cosine of each output of a file beside float32's; see :attr:`AccuracyRow.failures
            <s2mlp_deploy.evidence.accuracy.AccuracyRow.failures>`.
        min_top1: Smallest top-1 score of a file in percent: accuracy where there are labels, agreement elsewhere.
        limits: These three by precision, as :func:`~s2mlp_deploy.precision.limits.read_limits` reads them from a file;
            what is given above goes before them. None sets none.
        metric: A score of an engine in points, higher is better, or what :func:`~s2mlp_deploy.api.load_metric`
            returned; default top-1 accuracy where there are labels, agreement with float32 elsewhere.
        score_output: The output that is scored; default the first that is a list of scores.
        eval_data: What to score on; default ``data``.
        eval_samples: Score on at most so many.
        exclude: Regular expressions; nodes whose name one matches are not quantized, and are float32 in ``fp16``.
        exclude_ops: ONNX operators that are not quantized, and are float32 in ``fp16``.
        reduce_range: Whether the weights of ``int8`` have 7 bits, for x86 processors without VNNI
            (:class:`~s2mlp_deploy.precision.qdq.Scheme`).
        cache: Where the statistics are kept; default ``calibration.npz`` in the artifact.
        half_io: Whether float16 graphs have float16 inputs and outputs.
        speed_check: Whether files are measured against float32 once they are written, which takes some seconds.
        min_speedup: How many times as fast as float32 a file must be on what it is meant for, so that a
            :attr:`failure <s2mlp_deploy.evidence.speed.SpeedCheck.failures>` is told where it is not; they are measured
            then.
        seed: Chooses the samples.
        threads: Of ONNX Runtime; 0 lets it choose.
    """

    precisions: Sequence[str] = ("int8",)
    data: str | Path | Iterable[Any] | None = None
    method: str = CALIBRATION_METHOD
    samples: int | None = CALIBRATION_SAMPLES
    max_drop: float | None = None
    min_cosine: float | None = None
    min_top1: float | None = None
    limits: Limits | None = None
    metric: Metric | OutputMetric | None = None
    score_output: str | None = None
    eval_data: str | Path | Iterable[Any] | None = None
    eval_samples: int | None = EVAL_SAMPLES
    exclude: Sequence[str] = ()
    exclude_ops: Sequence[str] = ()
    reduce_range: bool = False
    cache: str | Path | None = None
    half_io: bool = False
    speed_check: bool = False
    min_speedup: float | None = None
    seed: int = 0
    threads: int = 0

    @property
    def files(self) -> tuple[str, ...]:
        """The precisions of the files to write, without fp32."""
        return file_precisions(self.precisions)

    @property
    def speed_wanted(self) -> bool:
        """Whether files are measured against float32."""
        return bool(self.files) and (self.speed_check or self.min_speedup is not None)

    @property
    def exclusion(self) -> Exclusion:
        """What the user wants in higher precision."""
        return Exclusion(tuple(self.exclude), tuple(self.exclude_ops))

    @property
    def score_asked(self) -> bool:
        """Whether the user asked for a score: outputs that are no lists of scores are an error then."""
        given = (self.metric, self.eval_data, self.score_output)
        return self._score_limited or any(item is not None for item in given)

    @property
    def _score_limited(self) -> bool:
        limits = [self.limits_of(name) for name in self.files]
        return any(limit.max_drop is not None or limit.min_top1 is not None for limit in limits)

    def limits_of(self, precision: str) -> FileLimits:
        """What the file of a precision must reach.

        Args:
            precision: Of the file: ``int8-trt``, for example.
        """
        given = FileLimits(self.min_cosine, self.min_top1, self.max_drop)
        return given if self.limits is None else given.over(self.limits.of(precision))

    def check(self) -> None:
        """Refuses what can be refused without a model and without reading data: before time is spent on either.

        Raises:
            InputError: An option has a value that cannot be used, or nothing that is wanted uses it.
            DataError: Data is missing.
            OutputError: The calibration cache cannot be written.
        """
        files = self.files
        check_method(self.method)
        assert self.exclusion is not None  # Made to refuse a pattern that is no regular expression.
        FileLimits(self.min_cosine, self.min_top1, self.max_drop).check()
        for name, number in (("--samples", self.samples), ("--eval-samples", self.eval_samples)):
            if number is not None and number < MIN_SAMPLES:
                raise InputError(f"{name} is {number}", fix=f"give at least {MIN_SAMPLES}")
        if self.min_speedup is not None and not (math.isfinite(self.min_speedup) and self.min_speedup > 0):
            raise InputError(
                f"--min-speedup is {self.min_speedup:g}", fix="give a number above 0: 1.2 asks for a fifth more speed"
            )
        quantized = [name for name in files if name != "fp16"]
        if quantized and self.data is None:
            raise DataError(
                "int8 and fp8 need data to measure ranges on",
                fix="--calibration-data PATH: some hundreds of images like those the model will see",
            )
        # What nothing uses is refused, not ignored.
        unused = {
            "--calibration-data": self.data is not None and not files,
            "--eval-data": self.eval_data is not None and self.data is None,
            "--max-drop": self.max_drop is not None and self.data is None,
            "--min-top1": self.min_top1 is not None and self.data is None,
            "--min-cosine": self.min_cosine is not None and not files,
            "--limits": self.limits is not None and (not files or (self._score_limited and self.data is None)),
            "--metric": self.metric is not None and self.data is None,
            "--score-output": self.score_output is not None and self.data is None,
            "--exclude": bool(self.exclude) and not files,
            "--exclude-op": bool(self.exclude_ops) and not files,
            "--reduce-range": self.reduce_range and "int8" not in files,
            "--calibration-cache": self.cache is not None and self.data is None,
            "--half-io": self.half_io and not any(is_half(name) for name in files),
            "--min-speedup": self.min_speedup is not None and not files,
        }
        for name in [name for name, is_unused in unused.items() if is_unused]:
            needed = ["--precision int8"] if not quantized or name == "--reduce-range" else []
            # Only export can be without data: quantize asks for it first.
            needed += ["--calibration-data"] if self.data is None else []
            raise InputError(
                f"{name} is given, and no file that is asked for uses it",
                fix=f"leave it out, or add {join_names(needed)}",
            )
        top1 = [name for name in files if self.limits_of(name).min_top1 is not None]
        if self.metric is not None and top1:
            raise InputError(
                "a metric of your own is no top-1 score, which min_top1 is a limit of",
                where="--metric",
                fix="leave one of both out; max_drop is in points of the metric",
            )
        # A float16 file keeps any operator in float32; which there are, only the graph tells.
        strange = [name for name in self.exclude_ops if name not in MATRIX_OPS and "fp16" not in files]
        if strange:
            raise InputError(
                f"--exclude-op {strange[0]} excludes nothing: int8 and fp8 quantize {join_names(sorted(MATRIX_OPS))}",
                fix="choose one of these, or leave it out",
            )
        if self.cache is not None:
            _check_cache(Path(self.cache))


def _check_cache(path: Path) -> None:
    check_parents(path)
    if path.is_dir():
        raise OutputError("the calibration cache is a directory", where=str(path), fix="name a file")
