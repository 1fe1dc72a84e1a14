"""Parity: an artifact's files against the module they come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.api.engines import save_evidence
from s2mlp_deploy.api.exporting import CapturedSource, understand
from s2mlp_deploy.api.progress import Progress, quiet
from s2mlp_deploy.api.sources import load
from s2mlp_deploy.artifact import TensorInfo, sha256_of
from s2mlp_deploy.errors import ArtifactError, InputError, PreprocessingError

if TYPE_CHECKING:
    from s2mlp_deploy.engines.base import Engine
    from s2mlp_deploy.parity.compare import ParityReport, Tolerances
    from s2mlp_deploy.sources.source import Source

SAMPLES = 16
"""Images of seeded noise that parity uses when no data is given."""

_EAGER = "eager"


@dataclass(frozen=True)
class _Inputs:
    """Batches of feeds and labels, what they are in words, and how many images there will be."""

    batches: Iterator[tuple[dict[str, NDArray[Any]], NDArray[np.int64] | None]]
    described: str
    total: int


def parity(
    source: str | Source | CapturedSource,
    files: Sequence[str | Path],
    *,
    checkpoint: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    preprocess: str | Path | None = None,
    data: str | Path | None = None,
    samples: int | None = None,
    batch: int = 8,
    tolerances: Tolerances | None = None,
    provider: str = "CPUExecutionProvider",
    seed: int = 0,
    progress: Progress = quiet,
) -> tuple[ParityReport, ...]:
    """Compares ONNX files with the PyTorch module they come from.

    The reference runs once for all files. Where the module's code races, the reference is its functional meaning, and
    the eager run is reported beside it, never compared with. Reports are saved under ``evidence/`` of each file's
    artifact.

    Args:
        source: What :func:`~s2mlp_deploy.api.load` takes, or what it or :func:`~s2mlp_deploy.api.capture` returned.
        files: ONNX files to compare.
        checkpoint: See :func:`~s2mlp_deploy.api.load`.
        overrides: See there.
        preprocess: See there.
        data: A folder of images, flat or with one folder per class; without it the inputs are seeded noise.
        samples: At most this many images (default: all; without data 16).
        batch: Images per run; a file with a fixed batch runs with that.
        tolerances: Limits; default by the file's precision.
        provider: ONNX Runtime's execution provider.
        seed: Of random weights, of noise and of the choice of samples.
        progress: Told how many images are done.

    Returns:
        A report per file; ``report.passed`` is the verdict.

    Raises:
        InputError: Files or data cannot be used (its subclasses say what).
    """
    from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine

    if not files:
        raise InputError("no files to compare", fix="name at least one .onnx file")
    if batch < 1 or (samples is not None and samples < 1):
        raise InputError("batch and samples must be at least 1", where=f"batch {batch}, samples {samples}")
    paths = [Path(file) for file in files]
    for path in paths:
        if not path.is_file():
            raise ArtifactError("no such ONNX file", where=str(path), fix="check the path")
    candidates: dict[str, Engine] = {str(path): OnnxRuntimeEngine(path, provider=provider) for path in paths}
    if isinstance(source, str):
        source = load(source, checkpoint=checkpoint, overrides=overrides, preprocess=preprocess, seed=seed)

    from s2mlp_deploy.parity.compare import TOLERANCES, ParityReport, compare, judge

    first = next(iter(candidates.values()))
    origin = source.source if isinstance(source, CapturedSource) else source
    reference, eager = _references(source, first.inputs, first.outputs)
    engines = candidates | ({_EAGER: eager} if eager is not None else {})
    inputs = _inputs(origin, first.inputs, data, samples, batch, seed)
    done = 0

    def on_batch(size: int) -> None:
        nonlocal done
        done += size
        progress("comparing", done, inputs.total)

    progress("comparing", 0, inputs.total)
    images, figures = compare(reference, engines, inputs.batches, on_batch=on_batch)
    reports = []
    for path in paths:
        precision = _precision(path)
        limits = tolerances or TOLERANCES.get(precision, TOLERANCES["fp32"])
        report = judge(
            ParityReport(
                reference=f"{reference.name}, {origin.info.reference}",
                candidate=candidates[str(path)].name,
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
        save_evidence(path, f"parity-{path.stem}", report)
        reports.append(report)
    return tuple(reports)


def _references(
    source: Source | CapturedSource, inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...]
) -> tuple[Engine, Engine | None]:
    """What is right, and the eager module where that is another thing."""
    from torch import nn

    from s2mlp_deploy.engines.torch import TorchEngine
    from s2mlp_deploy.models.registry import MODELS

    origin = source.source if isinstance(source, CapturedSource) else source
    module = origin.module
    if isinstance(module, nn.Module):
        module.eval()
    if isinstance(module, nn.Module) and origin.info.reference in MODELS:
        # The zoo's shift is one operator that never writes into its input: nothing to watch for.
        from s2mlp_deploy.export.capture import check_weights

        check_weights(module)
        return TorchEngine(module, origin.example_inputs, inputs, outputs), None
    known = source.understood if isinstance(source, CapturedSource) else understand(origin)
    functional = TorchEngine(
        known.functional(), origin.example_inputs, inputs, outputs, name="torch (functional meaning)"
    )
    if not isinstance(module, nn.Module):
        return functional, None
    eager = TorchEngine(module, origin.example_inputs, inputs, outputs)
    return (functional, eager) if known.races else (eager, None)


def _precision(path: Path) -> str:
    """The precision in an artifact's file name, ``model.<precision>.onnx``; fp32 for foreign files."""
    parts = path.name.split(".")
    return parts[1] if len(parts) == 3 else "fp32"


def _inputs(
    source: Source,
    inputs: tuple[TensorInfo, ...],
    data: str | Path | None,
    samples: int | None,
    batch: int,
    seed: int,
) -> _Inputs:
    if data is None:
        return _noise(source, inputs, samples or SAMPLES, batch, seed)
    if source.preprocessing is None or len(inputs) != 1:
        raise PreprocessingError(
            "nobody said how an image becomes this model's input"
            if len(inputs) == 1
            else f"the model has {len(inputs)} inputs, and images can only be one",
            fix="--preprocess FILE.json with size, mean and std"
            if len(inputs) == 1
            else "leave --data away to compare on noise",
        )
    from s2mlp_deploy.calibration.images import batches, collect

    fixed = inputs[0].shape[0]
    collection = collect(Path(data), classes=source.classes, limit=samples, seed=seed)
    stream = batches(collection, source.preprocessing, fixed if isinstance(fixed, int) else batch, on_broken="raise")
    return _Inputs(
        (({inputs[0].name: item.array}, item.labels) for item in stream),
        f"{len(collection)} images of {Path(data).name}",
        len(collection),
    )


def _noise(source: Source, inputs: tuple[TensorInfo, ...], count: int, batch: int, seed: int) -> _Inputs:
    """Gaussian noise of the inputs' shapes; inputs that are no floats keep the example's values."""
    import torch
    from torch.utils import _pytree as pytree

    examples = [value for value in pytree.tree_leaves(source.example_inputs) if isinstance(value, torch.Tensor)]
    # A plain name is a free size; "8*batch" is not, so the example's size stays.
    free = all(info.shape and isinstance(info.shape[0], str) and info.shape[0].isidentifier() for info in inputs)
    size = min(batch, count) if free else len(examples[0])
    steps = -(-count // size)
    generator = np.random.default_rng(seed)

    def feeds() -> dict[str, NDArray[Any]]:
        arrays = {}
        for info, example in zip(inputs, examples, strict=True):
            shape = (size, *example.shape[1:]) if free else tuple(example.shape)
            if example.is_floating_point():
                arrays[info.name] = generator.standard_normal(shape, dtype=np.float32).astype(info.dtype)
            else:
                arrays[info.name] = np.resize(example.numpy(), shape)
        return arrays

    total = steps * size
    return _Inputs(
        ((feeds(), None) for _ in range(steps)), f"{total} samples of seeded Gaussian noise (seed {seed})", total
    )
