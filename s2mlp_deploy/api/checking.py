"""Refusing what cannot be done before time is spent on what can."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s2mlp_deploy.api.capturing import CapturedSource
from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.choices import MIN_SAMPLES
from s2mlp_deploy.data.collect import collect
from s2mlp_deploy.data.dataset import open_data
from s2mlp_deploy.errors import DataError, InputError, PreprocessingError
from s2mlp_deploy.precision.options import PrecisionOptions
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


def check_precision_data(options: PrecisionOptions) -> None:
    """Refuses data that is not there, before a model is loaded.

    Raises:
        DataError: There is no such data, none that can be used, or too little of it.
    """
    for data in (options.data, options.eval_data):
        if isinstance(data, (str, Path)):
            found = len(collect(Path(data), classes=None, limit=MIN_SAMPLES, seed=options.seed))
            if found < MIN_SAMPLES:
                raise DataError(
                    f"There are only {found} samples, at least {MIN_SAMPLES} are needed",
                    where=str(data),
                    fix="give more; some hundreds that look like the model's work are best",
                )


def check_data_fits(options: PrecisionOptions, source: Source, *, with_preprocessing: bool) -> None:
    """Refuses data that does not fit the source, before it is captured.

    Raises:
        DataError: The data has other inputs or classes.
        PreprocessingError: It is images, and no preprocessing is configured.
    """
    tensors = source.example_tensors
    names = source.input_names or tuple(f"input_{index}" for index in range(len(tensors)))
    inputs = tuple(
        TensorInfo(name, str(tensor.dtype).removeprefix("torch."), ("batch", *tensor.shape[1:]))
        for name, tensor in zip(names, tensors, strict=True)
    )
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


def check_preprocessing(source: Source) -> None:
    """Refuses a graph that is to do a preprocessing that is not known.

    Raises:
        PreprocessingError: No preprocessing is configured.
    """
    if source.preprocessing is None:
        raise PreprocessingError(
            "no preprocessing is configured for this model, so the graph cannot do it",
            where="--with-preprocessing",
            fix="--preprocess FILE.json with size, mean and std",
        )
