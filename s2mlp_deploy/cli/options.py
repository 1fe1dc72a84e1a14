"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from s2mlp_deploy.errors import InputError, OutputError

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A zoo model (see `models`), module:function, file.py:function or model.pt2.",
    ),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(help="Weights: safetensors or a state dict. Without it they are random and seeded."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Override a field of the configuration; may be repeated."),
]
Preprocess = Annotated[
    Path | None,
    typer.Option(metavar="FILE.json", help="How an image becomes the input. Default: <checkpoint>.json."),
]
Method = Annotated[str, typer.Option(help="How ranges are chosen: minmax, entropy, percentile or mse.")]
Samples = Annotated[int, typer.Option(min=1, help="Measure ranges on at most so many samples.")]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        metavar="POINTS",
        help="Keep as many layers in higher precision as it takes to lose at most so many points of accuracy "
        "(of agreement with fp32 where there are no labels).",
    ),
]
EvalData = Annotated[str | None, typer.Option(help="What to score on. Default: the calibration data.")]
EvalSamples = Annotated[int, typer.Option(min=1, help="Score on at most so many samples.")]
CalibrationCache = Annotated[
    Path | None, typer.Option(metavar="FILE.npz", help="Where statistics are kept. Default: calibration.npz in DIR.")
]
HalfIo = Annotated[bool, typer.Option("--half-io", help="Give float16 graphs float16 inputs and outputs.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of random weights and of drawn samples.")]


def output_path(text: str) -> Path:
    """Reads the value of ``--output``. An empty one is what a script's unset variable leaves, not the current folder.

    Raises:
        OutputError: It is empty.
    """
    if not text.strip():
        raise OutputError("--output is empty", fix="name a place; for the current folder write --output .")
    return Path(text)


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
