"""Parity: an artifact's files against the module they come from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from numpy.typing import NDArray

from s2mlp_deploy.api.engines import save_evidence
from s2mlp_deploy.api.exporting import CapturedSource, analyze
from s2mlp_deploy.api.noise import SAMPLES, Inputs, noise
from s2mlp_deploy.api.opening import open_file
from s2mlp_deploy.api.sources import load
from s2mlp_deploy.artifact import METADATA_KEY, TensorInfo
from s2mlp_deploy.errors import ArtifactError, InputError, PreprocessingError
from s2mlp_deploy.evidence.parity import ParityReport, Tolerances
from s2mlp_deploy.files import sha256_of
from s2mlp_deploy.progress import ProgressCallback, no_progress

if TYPE_CHECKING:
    from s2mlp_deploy.engines.base import Arrays, Engine
    from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine
    from s2mlp_deploy.engines.tensorrt.runtime import TensorRTEngine
    from s2mlp_deploy.preprocess import Preprocessing
    from s2mlp_deploy.sources.source import Source

_EAGER = "eager"
_IMAGE = "image"
_PIXEL_RTOL = 5e-3
"""Of files with preprocessing, whose pixels are now and then one step of 255 off (docs/preprocessing.md)."""


@dataclass(frozen=True)
class _OnPixels:
    """An engine that takes preprocessed images, given raw pixels: the yardstick of a graph that preprocesses.

    Attributes:
        engine: What computes.
        preprocessing: What makes its one input.
    """

    engine: Engine
    preprocessing: Preprocessing

    @property
    def name(self) -> str:
        return f"{self.engine.name} after Python's preprocessing"

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        return (TensorInfo(_IMAGE, "uint8", ("batch", "height", "width", 3)),)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        return self.engine.outputs

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        from PIL import Image

        from s2mlp_deploy.preprocess import preprocess

        images = preprocess([Image.fromarray(pixels) for pixels in feeds[_IMAGE]], self.preprocessing)
        first = self.engine.inputs[0]
        return self.engine.run({first.name: images.astype(first.dtype, copy=False)})


def parity(
    source: str | Source | CapturedSource,
    files: Sequence[str | Path],
    *,
    checkpoint: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    preprocess: str | Path | None = None,
    data: str | Path | Iterable[Any] | None = None,
    samples: int | None = None,
    batch: int = 8,
    tolerances: Tolerances | None = None,
    provider: str = "CPUExecutionProvider",
    seed: int = 0,
    progress: ProgressCallback = no_progress,
) -> tuple[ParityReport, ...]:
    """Compares ONNX or engine files with the PyTorch module they come from.

    The reference runs once for all files. Where the module's code races, the reference is its functional meaning, and
    the eager run is reported beside it, never compared with. Reports are saved under ``evidence/`` of each file's
    artifact.

    A file that was exported with its preprocessing is compared from the pixels on: it gets decoded pictures, the
    reference what Python's preprocessing makes of them. That needs ``data``, and then holds for every file of the call.

    Args:
        source: What :func:`~s2mlp_deploy.api.load` takes, or what it or :func:`~s2mlp_deploy.api.capture` returned.
        files: ONNX files to compare; engine files where their GPU is.
        checkpoint: See :func:`~s2mlp_deploy.api.load`.
        overrides: See there.
        preprocess: See there.
        data: What :func:`~s2mlp_deploy.data.dataset.open_data` takes: pictures in a folder or archive, arrays, or
            something to iterate over; without it the inputs are seeded noise.
        samples: At most this many images (default: all; without data 16).
        batch: Images per run; a file with a fixed batch runs with that.
        tolerances: Limits; default by the file's precision, and wider where the graph preprocesses.
        provider: ONNX Runtime's execution provider.
        seed: Of random weights, of noise and of the choice of samples.
        progress: Told how many images are done.

    Returns:
        A report per file; ``report.passed`` is the verdict.

    Raises:
        InputError: Files or data cannot be used (its subclasses say what).
    """
    if not files:
        raise InputError("no files to compare", fix="name at least one .onnx file")
    if batch < 1 or (samples is not None and samples < 1):
        raise InputError(
            "batch and samples must be at least 1", where=f"batch {batch}, samples {samples}", fix="give larger numbers"
        )
    paths = [Path(file) for file in files]
    for path in paths:
        if not path.is_file():
            raise ArtifactError("no such file", where=str(path), fix="check the path")
    sessions = {str(path): open_file(path, provider=provider, batch=batch) for path in paths}
    if isinstance(source, str):
        source = load(source, checkpoint=checkpoint, overrides=overrides, preprocess=preprocess, seed=seed)

    from s2mlp_deploy.parity.compare import apply_tolerances, compare

    first = next(iter(sessions.values()))
    origin = source.source if isinstance(source, CapturedSource) else source
    on_pixels = {key for key, session in sessions.items() if _preprocesses(session)}
    plain = _one_image(origin, on_pixels) if on_pixels else _as_module(first.inputs, origin)
    reference, eager = _references(source, plain, first.outputs)
    engines: dict[str, Engine] = {**sessions} | ({_EAGER: eager} if eager is not None else {})
    if on_pixels:
        fed = _pixel_input([sessions[key].inputs[0] for key in on_pixels], data)
        assert origin.preprocessing is not None
        reference = _OnPixels(reference, origin.preprocessing)
        engines = {
            key: engine if key in on_pixels else _OnPixels(engine, origin.preprocessing)
            for key, engine in engines.items()
        }
    else:
        fed = plain
    inputs = _inputs(origin, fed, data, samples, batch, seed, progress)
    done = 0

    def on_batch(size: int) -> None:
        nonlocal done
        done += size
        progress("comparing", done, inputs.total)

    progress("comparing", 0, inputs.total)
    with _evaluating(origin.module):
        images, figures = compare(reference, engines, inputs.batches, on_batch=on_batch)
    reports = []
    for path in paths:
        precision = _precision(path)
        limits = tolerances or _limits(precision, str(path) in on_pixels)
        report = apply_tolerances(
            ParityReport(
                reference=f"{reference.name}, {origin.info.reference}",
                candidate=engines[str(path)].name,
                file=path.name,
                precision=precision,
                data=inputs.described,
                images=images,
                outputs=figures[str(path)],
                tolerances=limits,
                file_sha256=sha256_of(path),
                eager=figures.get(_EAGER, ()),
            ),
            limits,
        )
        save_evidence(path, report, path.stem)
        reports.append(report)
    return tuple(reports)


def _as_module(inputs: tuple[TensorInfo, ...], source: Source) -> tuple[TensorInfo, ...]:
    """A file's inputs in the module's types: a file with float16 inputs is fed the module's, rounded."""
    import torch
    from torch.utils import _pytree as pytree

    tensors = [leaf for leaf in pytree.tree_leaves(source.example_inputs) if isinstance(leaf, torch.Tensor)]
    if len(tensors) != len(inputs):
        return inputs
    return tuple(
        replace(info, dtype=str(tensor.dtype).removeprefix("torch.")) if info.dtype == "float16" else info
        for info, tensor in zip(inputs, tensors, strict=True)
    )


def _preprocesses(session: OnnxRuntimeEngine | TensorRTEngine) -> bool:
    """Whether a file says that it was exported with its preprocessing."""
    try:
        described = msgspec.json.decode(session.metadata.get(METADATA_KEY, "{}"))
    except msgspec.DecodeError:
        return False
    return isinstance(described, dict) and described.get("preprocessing_in_graph") is True


def _limits(precision: str, on_pixels: bool) -> Tolerances:
    from s2mlp_deploy.parity.compare import TOLERANCES

    limits = TOLERANCES.get(precision, TOLERANCES["fp32"])
    return replace(limits, rtol=max(limits.rtol, _PIXEL_RTOL)) if on_pixels else limits


def _evaluating(module: object) -> AbstractContextManager[None]:
    """Evaluation mode for a while; a finished program has no modes."""
    from torch import nn

    from s2mlp_deploy.capture.hazards import evaluating

    return evaluating(module) if isinstance(module, nn.Module) else nullcontext()


def _references(
    source: Source | CapturedSource, inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...]
) -> tuple[Engine, Engine | None]:
    """What is right, and the eager module where that is another thing."""
    from torch import nn

    from s2mlp_deploy.engines.torch import TorchEngine
    from s2mlp_deploy.models.registry import MODELS

    origin = source.source if isinstance(source, CapturedSource) else source
    module = origin.module
    if isinstance(module, nn.Module) and origin.info.reference in MODELS:
        # The zoo's shift is one operator that never writes into its input: nothing to watch for.
        from s2mlp_deploy.capture.checks import check_weights

        check_weights(module)
        return TorchEngine(module, origin.example_inputs, inputs, outputs), None
    known = source.analysis if isinstance(source, CapturedSource) else analyze(origin)
    functional = TorchEngine(
        known.functional(), origin.example_inputs, inputs, outputs, name="torch (functional meaning)"
    )
    if not isinstance(module, nn.Module):
        return functional, None
    eager = TorchEngine(module, origin.example_inputs, inputs, outputs)
    return (functional, eager) if known.races else (eager, None)


def _precision(path: Path) -> str:
    """The precision in the name of an artifact's file or of its engine, ``model.<precision>.*``; else fp32."""
    parts = path.name.split(".")
    return parts[1] if len(parts) >= 3 else "fp32"


def _inputs(
    source: Source,
    inputs: tuple[TensorInfo, ...],
    data: str | Path | Iterable[Any] | None,
    samples: int | None,
    batch: int,
    seed: int,
    progress: ProgressCallback,
) -> Inputs:
    if data is None:
        return noise(source, inputs, samples or SAMPLES, batch, seed)
    from s2mlp_deploy.data.dataset import open_data

    opened = open_data(
        data,
        inputs=inputs,
        preprocessing=source.preprocessing,
        classes=source.classes,
        samples=samples,
        seed=seed,
        batch=batch,
        minimum=1,
        on_broken="raise",
        progress=progress,
    )
    return Inputs(iter(opened), opened.described, opened.count)


def _one_image(source: Source, files: Collection[str]) -> tuple[TensorInfo, ...]:
    """The input that Python's preprocessing makes.

    Raises:
        PreprocessingError: Nobody said how.
    """
    if source.preprocessing is None:
        raise PreprocessingError(
            "the graph does its own preprocessing, and nobody said here what it is compared with",
            where=", ".join(sorted(files)),
            fix="--preprocess FILE.json, or the checkpoint, that the file was exported with",
        )
    shape = ("batch", source.preprocessing.channels, *source.preprocessing.size)
    return (TensorInfo("input", "float32", shape),)


def _pixel_input(inputs: Sequence[TensorInfo], data: object) -> tuple[TensorInfo, ...]:
    """The input of files that do their own preprocessing.

    Raises:
        InputError: There are no pictures to compare on, or the files' batches are fixed at different sizes.
    """
    if data is None:
        raise InputError(
            "a graph that does its own preprocessing can only be compared on pictures",
            fix="--data PATH: pictures, in a folder or an archive",
        )
    fixed = {info.shape[0] for info in inputs if isinstance(info.shape[0], int)}
    if len(fixed) > 1:
        raise InputError(
            f"the files' batches are fixed at {' and '.join(map(str, sorted(fixed)))}", fix="compare one at a time"
        )
    return (TensorInfo(_IMAGE, "uint8", (fixed.pop() if fixed else "batch", "height", "width", 3)),)
