"""Options that several commands take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from s2mlp_deploy import api
from s2mlp_deploy.choices import CalibrationMethod, DynamicAxis, EngineName, Precision
from s2mlp_deploy.errors import CheckFailedError, ExportError, InputError
from s2mlp_deploy.evidence.accuracy import AccuracyReport
from s2mlp_deploy.evidence.speed import SpeedCheck
from s2mlp_deploy.text import join_names

FILE_PRECISIONS = ("fp32", "fp16", "int8", "int8-trt", "fp8-trt")
"""What files of an artifact are of: int8 is placed for ONNX Runtime and for TensorRT."""

_VALUE_COLUMN = 21
"""Columns of a help page of 80 for the kind of value that an option takes."""


def choices(literal: Any, help: str, *, several: bool = False) -> dict[str, Any]:
    """What an option of a ``Literal`` type needs: its choices in ``--help`` and completion, and words for a wrong one.

    Not typer's own handling of ``Literal``, which knows no lists of them.

    Args:
        literal: The type.
        help: What it is for; the choices are added where they are too many for the column of values.
        several: Whether a value may be several choices, separated by commas; :func:`separated` takes them apart.
    """
    names = get_args(literal)

    def parse(text: str) -> str:
        for name in text.split(",") if several else (text,):
            if name.strip() not in names:
                raise InputError(f"there is no {name.strip()!r} here", fix=f"choose {join_names(names, last='or')}")
        return text if several else text.strip()

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if several else ("", "", incomplete)
        return [f"{before}{comma}{name}" for name in names if name.startswith(last)]

    metavar = "|".join(names) + ",..." * several
    if len(metavar) > _VALUE_COLUMN:  # It would be broken inside a name.
        metavar, help = "NAME", f"{help} One of {', '.join(names)}."
    return {"help": help, "parser": parse, "metavar": metavar, "autocompletion": complete}


def separated(values: Sequence[str] | None, default: str) -> list[str]:
    """The names of an option that may be repeated and whose values may hold several, in their order.

    >>> separated(["fp16,int8", "fp16"], "fp32")
    ['fp16', 'int8']
    """
    names = [name.strip() for value in values or [default] for name in value.split(",")]
    return list(dict.fromkeys(names))


def examples(*commands: str) -> str:
    """The end of a command's help: commands as they are typed, each on a line of its own."""
    # Typer joins lines, and keeps paragraphs apart.
    return "\n\n".join(["Examples:", *(f"  s2mlp-deploy {command}" for command in commands)])


def complete_source(incomplete: str) -> list[str]:
    """Models of the zoo; a shell goes on with files where none fits."""
    return [entry.name for entry in api.models() if entry.name.startswith(incomplete)]


def complete_engine(incomplete: str) -> list[str]:
    """What runs files, without the parts of a machine: a shell takes a colon for the end of a word."""
    return [name for name in get_args(EngineName) if name.startswith(incomplete)]


def complete_graph_engine(incomplete: str) -> list[str]:
    """What runs ONNX files, which is not all that runs files."""
    from s2mlp_deploy.engines.registry import OF_GRAPHS  # A shell asks for it, no command does.

    return [name for name in OF_GRAPHS if name.startswith(incomplete)]


def complete_file_precision(incomplete: str) -> list[str]:
    """What files of an artifact may be of."""
    return [name for name in FILE_PRECISIONS if name.startswith(incomplete)]


def _few_threads(value: int | None) -> int | None:
    """Refuses more threads than any engine takes. Not ``max``: help pages would break at the range."""
    if value is not None:
        from s2mlp_deploy.engines.registry import check_threads  # It brings numpy, which --help does not need.

        check_threads(value)
    return value


Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A zoo model (see `models`), module:function, file.py:function, model.pt2 or model.onnx.",
        autocompletion=complete_source,
    ),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(help="Weights: safetensors or a state dict. Without it they are random and seeded."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Override a field of the configuration, or fix a free size of an ONNX file; repeat.",
    ),
]
Preprocess = Annotated[
    Path | None,
    typer.Option(metavar="FILE.json", help="How an image becomes the input. Default: <checkpoint>.json."),
]
Engine = Annotated[
    str,
    typer.Option(
        metavar="ENGINE",
        autocompletion=complete_graph_engine,
        help="What runs ONNX files: onnxruntime[:PROVIDER] or openvino[:DEVICE], as onnxruntime:cuda, openvino:GPU.",
    ),
]
RunPrecision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="NAME",
        autocompletion=complete_file_precision,
        help="Which of the artifact's files: fp32, int8, ... Default: what `tune` chose, else the fastest measured.",
    ),
]
RunEngine = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="ENGINE",
        autocompletion=complete_engine,
        help="What runs it: onnxruntime[:PROVIDER], openvino[:DEVICE], tensorrt, tensorrt-rtx. Default: as for "
        "--precision.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=0,
        callback=_few_threads,
        help="Threads within an operator; 0: the engine's own choice. Default: as `tune` chose, else 0.",
    ),
]
NoSpin = Annotated[
    bool, typer.Option("--no-spin", help="Idle threads of ONNX Runtime sleep, where they share cores or a quota.")
]
FlushDenormals = Annotated[
    bool, typer.Option("--flush-denormals", help="Take numbers below the smallest normal float32 for 0.")
]
AllowUnproven = Annotated[
    bool,
    typer.Option(
        "--allow-unproven", help="Run a file of which parity was not measured or does not hold; refused otherwise."
    ),
]
Precisions = Annotated[
    list[str] | None,
    typer.Option(**choices(Precision, "Separated by commas, or repeated. Default: fp32.", several=True)),
]
Method = Annotated[CalibrationMethod, typer.Option(**choices(CalibrationMethod, "How ranges are chosen."))]
Samples = Annotated[int, typer.Option(min=1, help="Measure ranges on at most so many samples.")]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        metavar="POINTS",
        help="Keep as many layers in higher precision as it takes to lose at most so many points of accuracy "
        "(of agreement with fp32 where there are no labels).",
    ),
]
MinCosine = Annotated[
    float | None,
    typer.Option(metavar="X", help="Exit with 1 where an output of a file has a smaller cosine to fp32's."),
]
MinTop1 = Annotated[
    float | None,
    typer.Option("--min-top1", metavar="PERCENT", help="Exit with 1 where a file's top-1 score is smaller."),
]
LimitsFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE.json", help="min_cosine, min_top1 and max_drop, by precision or for all."),
]
Metric = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.py:FUNCTION",
        help="Score by a function of yours: (outputs, labels) -> points, higher is better. It runs your code.",
    ),
]
ScoreOutput = Annotated[
    str | None, typer.Option(metavar="NAME", help="Which output is scored. Default: the first list of scores.")
]
EvalData = Annotated[str | None, typer.Option(help="What to score on. Default: the calibration data.")]
EvalSamples = Annotated[int, typer.Option(min=1, help="Score on at most so many samples.")]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        metavar="REGEX",
        help="Do not quantize nodes whose name it matches, and keep them in float32 in the fp16 file; may be repeated.",
    ),
]
ExcludeOp = Annotated[
    list[str] | None,
    typer.Option(metavar="OPERATOR", help="The same for all nodes of an ONNX operator, such as Conv; may be repeated."),
]
ReduceRange = Annotated[
    bool,
    typer.Option(
        "--reduce-range",
        help="Give the weights of int8 for ONNX Runtime 7 bits: for x86 processors without VNNI, where 8 saturate.",
    ),
]
CalibrationCache = Annotated[
    Path | None, typer.Option(metavar="FILE.npz", help="Where statistics are kept. Default: calibration.npz in DIR.")
]
HalfIo = Annotated[bool, typer.Option("--half-io", help="Give float16 graphs float16 inputs and outputs.")]
NoSpeedCheck = Annotated[
    bool,
    typer.Option("--no-speed-check", help="Do not measure the files against fp32, which takes some seconds."),
]
MinSpeedup = Annotated[
    float | None,
    typer.Option(metavar="X", help="Exit with 1 where a file is less than X times as fast as fp32 on its engine."),
]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of random weights and of drawn samples.")]


def given_options(context: typer.Context) -> dict[str, str]:
    """The options that were typed, also at their defaults: by the parameter's name the option as it is written."""
    return {
        parameter.name: parameter.opts[0]
        for parameter in context.command.params
        # By name: the type is click's or typer's own copy of it, by typer's version.
        if parameter.name and getattr(context.get_parameter_source(parameter.name), "name", "") == "COMMANDLINE"
    }


def refuse_options(options: Sequence[str], reason: str) -> None:
    """Refuses options that nothing would use, rather than ignoring them.

    Args:
        options: As they are written; nothing is refused where there are none.
        reason: Why nothing uses them.

    Raises:
        InputError: There are some.
    """
    if options:
        raise InputError(f"{join_names(options)}: {reason}", fix=f"leave {join_names(options)} out")


def refuse_unused_calibration(context: typer.Context, precisions: Sequence[str], data: str | None) -> None:
    """Refuses options of calibration and scoring where nothing is calibrated or scored.

    Args:
        context: Of the command.
        precisions: What was asked for.
        data: What it is to be calibrated on.

    Raises:
        InputError: ``--method`` is given and nothing is quantized; ``--samples`` or ``--eval-samples`` is given, and no
            file of another precision is made from data.
    """
    given = given_options(context)
    quantized = bool(set(precisions) - {"fp32", "fp16"})
    # float16 asks for the largest magnitudes, whatever the method.
    refuse_options(
        [given[name] for name in ("method",) if name in given and not quantized],
        "no int8 or fp8 file is asked for, and fp16 has no method",
    )
    measured = quantized or ("fp16" in precisions and data is not None)
    refuse_options(
        [given[name] for name in ("samples", "eval_samples") if name in given and not measured],
        "no file is asked for that is made from --calibration-data",
    )


def refuse_poor_files(report: AccuracyReport | None) -> None:
    """Ends a command that has made a file which is not good enough, once everything is written and printed.

    Raises:
        CheckFailedError: A file does not reach a floor that was set, or loses so much that it cannot be meant to be
            used.
    """
    if report is not None and report.failures:
        raise CheckFailedError(
            "a file does not reach what was asked for\n    " + "\n    ".join(report.failures),
            where=report.data,
            fix="--max-drop POINTS keeps the layers that cost most in higher precision; or another --method",
        )
    if report is None or not (rows := report.collapsed()):
        return
    lost = join_names(f"{row.file} ({report.drop(row):.1f})" for row in rows)
    raise CheckFailedError(
        f"points that a file lost, below fp32: {lost}",
        where=report.data,
        fix="--max-drop POINTS keeps the layers that cost most in higher precision; --data like the model's own work",
    )


def refuse_slow_files(check: SpeedCheck | None) -> None:
    """Ends a command that has made a file which is not fast enough, once everything is written and printed.

    Raises:
        CheckFailedError: A file is less fast than ``--min-speedup`` asks for.
    """
    if check is not None and check.failures:
        raise CheckFailedError(
            "a file is not as fast as was asked for\n    " + "\n    ".join(check.failures),
            where="--min-speedup",
            fix="what was printed says why and what to do; on a busy machine measure again before you look for causes",
        )


def refuse_unused_speed(*, no_check: bool, min_speedup: float | None) -> None:
    """Refuses a floor of what is not measured.

    Raises:
        InputError: Both ``--no-speed-check`` and ``--min-speedup`` are given.
    """
    if no_check and min_speedup is not None:
        refuse_options(["--min-speedup"], "--no-speed-check measures nothing")


def parse_axes(text: str) -> list[DynamicAxis]:
    """Reads axes that are separated by commas.

    Raises:
        ExportError: One has no such name.
    """
    axes = get_args(DynamicAxis)
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in axes]:
        raise ExportError(
            f"no axis is called {join_names(map(repr, unknown), last='or')}",
            where="--dynamic",
            fix=f"choose from {join_names(axes)}",
        )
    return [axis for axis in axes if axis in names]


def parse_settings(settings: list[str] | None) -> dict[str, Any]:
    """Reads ``FIELD=VALUE`` pairs.

    Raises:
        InputError: One has another form.
    """
    pairs = {}
    for text in settings or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(
                f"--set {text!r} has no value", fix="write --set FIELD=VALUE, for example --set classes=37"
            )
        pairs[name.strip()] = value.strip()
    return pairs
