"""Refusing what cannot be done before time is spent on what can."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from s2mlp_deploy.api.capturing import CapturedSource
from s2mlp_deploy.artifact import TensorInfo, is_scores
from s2mlp_deploy.capture.checks import returned_tensors
from s2mlp_deploy.choices import MIN_SAMPLES
from s2mlp_deploy.data.dataset import open_data
from s2mlp_deploy.errors import DataError, InputError, PreprocessingError
from s2mlp_deploy.export.preprocessing import check_image_input
from s2mlp_deploy.parity.matching import match_names
from s2mlp_deploy.precision.options import PrecisionOptions
from s2mlp_deploy.sources.isolation import importing_from
from s2mlp_deploy.sources.source import Source
from s2mlp_deploy.text import join_names


def refuse_late_options(
    source: str | Source | CapturedSource, *, loading: Mapping[str, Any], capturing: Mapping[str, Any]
) -> None:
    """Refuses options of a step that is done already: they could only be ignored.

    Args:
        source: What was given: a name, or the result of loading or capturing.
        loading: Options of :func:`~s2mlp_deploy.api.load` by name. None is not given, and neither is an empty mapping:
            the command line has one where there is no ``--set``.
        capturing: Options of :func:`~s2mlp_deploy.api.capture` likewise.

    Raises:
        InputError: An option is given, and its step is done.
    """
    done = [("loaded", "load", loading)] if not isinstance(source, str) else []
    done += [("captured", "capture", capturing)] if isinstance(source, CapturedSource) else []
    for what, function, options in done:
        if given := [name for name, value in options.items() if not (value is None or value == {})]:
            raise InputError(
                f"the source is {what} already, so {join_names(given)} can no longer change",
                fix=f"give {join_names(given)} to api.{function}(...), or the source by its name",
            )


def check_data_fits(options: PrecisionOptions, source: Source, *, with_preprocessing: bool) -> None:
    """Refuses data that does not fit the source, before it is captured.

    Raises:
        DataError: The data has other inputs or classes.
        PreprocessingError: It is images, and no preprocessing is configured, or the model takes several inputs.
    """
    inputs = _inputs_of(source)
    if with_preprocessing:
        inputs = (TensorInfo("image", "uint8", ("batch", "height", "width", 3)),)
    for data in (options.data, options.eval_data):
        # Arrays are matched with the inputs' names, which a module has only once it is captured.
        named = source.input_names is not None or with_preprocessing
        if isinstance(data, (str, Path)) and (named or Path(data).suffix.lower() not in (".npz", ".npy")):
            open_data(
                data,
                inputs=inputs,
                preprocessing=source.preprocessing,
                classes=source.classes,
                seed=options.seed,
                minimum=MIN_SAMPLES,
            )


def check_scores(options: PrecisionOptions, source: Source) -> None:
    """Refuses to score what has no scores, by one run of the module on its example.

    Raises:
        DataError: A score is asked for, and no output is a list of scores.
    """
    module = source.module
    if not options.score_asked or options.metric is not None or not isinstance(module, nn.Module):
        return
    with importing_from(source.folder):
        values = returned_tensors(module, source.example_inputs)
    infos = [TensorInfo("", str(value.dtype).removeprefix("torch."), ("batch", *value.shape[1:])) for value in values]
    if infos and not any(map(is_scores, infos)):
        shapes = join_names((list(info.shape[1:]) for info in infos), limit=4)
        raise DataError(
            f"a score is asked for, and no output is a list of scores: per image they are {shapes}",
            fix="score with a metric of your own: --metric FILE.py:FUNCTION, or PrecisionOptions(metric=...)",
        )


def check_preprocessing(source: Source) -> None:
    """Refuses a graph that is to do a preprocessing that is not known, or that its model does not take.

    Raises:
        PreprocessingError: No preprocessing is configured.
        ExportError: The model takes no image of the size that the preprocessing makes.
    """
    if source.preprocessing is None:
        raise PreprocessingError(
            "no preprocessing is configured for this model, so the graph cannot do it",
            where="--with-preprocessing",
            fix="--preprocess FILE.json with size, mean and std",
        )
    check_image_input(_inputs_of(source), source.preprocessing)


def check_same_inputs(source: Source, file: str, inputs: Sequence[TensorInfo]) -> None:
    """Refuses a file that cannot be the source's, by what both take, before the source is captured.

    Args:
        source: What the file is compared with.
        file: Its name.
        inputs: Of the file.

    Raises:
        InputError: They have another number of inputs, or their only ones have other sizes.
    """
    own = _inputs_of(source)
    sides = (f"the model {source.info.reference}", file)
    match_names([info.name for info in own], [info.name for info in inputs], what="input", sides=sides)
    if len(own) != 1:
        return  # Which is which is known by their names, once the source is captured.
    mine, other = own[0].shape[1:], inputs[0].shape[1:]
    if len(mine) != len(other) or any(
        isinstance(size, int) and size != wanted for size, wanted in zip(other, mine, strict=True)
    ):
        raise InputError(
            f"the inputs differ: {sides[0]} takes {'x'.join(map(str, mine))}, {file} takes {'x'.join(map(str, other))}",
            where=file,
            fix="compare with the source, checkpoint and settings that the file was exported from",
        )


def _inputs_of(source: Source) -> tuple[TensorInfo, ...]:
    """A source's inputs before it is captured, with the example's sizes."""
    tensors = source.example_tensors
    return tuple(
        TensorInfo(name, str(tensor.dtype).removeprefix("torch."), ("batch", *tensor.shape[1:]))
        for name, tensor in zip(_names_of(source), tensors, strict=True)
    )


def _names_of(source: Source) -> tuple[str, ...]:
    """What a source's inputs are called, in messages: the parameters of ``forward`` until a capture names them."""
    count = len(source.example_tensors)
    if source.input_names is not None:
        return source.input_names
    if isinstance(source.module, nn.Module) and len(source.example_inputs) == count:
        parameters = list(inspect.signature(source.module.forward).parameters.values())[:count]
        plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        if len(parameters) == count and all(parameter.kind in plain for parameter in parameters):
            return tuple(parameter.name for parameter in parameters)
    return tuple(f"input_{index}" for index in range(count))
