"""Loading a source: the zoo, factories, programs, modules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from s2mlp_deploy.sources.load import load_source
from s2mlp_deploy.sources.module import source_of_module
from s2mlp_deploy.sources.reference import find_sidecar
from s2mlp_deploy.sources.source import Source


def load(
    source: str,
    *,
    checkpoint: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    preprocess: str | Path | None = None,
    seed: int = 0,
) -> Source:
    """Loads a source: a module with its weights, example inputs and preprocessing.

    Args:
        source: A name of the zoo, ``package.module:function``, ``file.py:function``, ``model.pt2`` or ``model.onnx``.
            The second to the fourth run code that comes with them: use trusted sources only.
        checkpoint: safetensors or a state dict; without it the weights are the factory's, or random and seeded.
        overrides: Fields of a zoo model's configuration, keyword arguments of a factory, or free sizes of an ONNX
            file to be fixed, as ``--set`` takes them.
        preprocess: A JSON file that describes the preprocessing; default ``<checkpoint>.json`` where it exists.
        seed: Of random weights.

    Raises:
        SourceError: Unknown model or field; the factory fails or returns no module.
        CheckpointError: The weights cannot be read or do not fit.
        PreprocessingError: The description is wrong.
    """
    return load_source(
        source,
        checkpoint=Path(checkpoint) if checkpoint is not None else None,
        overrides=overrides,
        preprocess=Path(preprocess) if preprocess is not None else None,
        seed=seed,
    )


def from_module(
    module: nn.Module,
    example_inputs: Any,
    *,
    name: str | None = None,
    checkpoint: str | Path | None = None,
    preprocess: str | Path | None = None,
) -> Source:
    """A source from a module that is already there.

    Args:
        module: Any ``nn.Module`` that ``torch.export`` accepts.
        example_inputs: A tensor, or a tuple of the positional arguments of ``forward``.
        name: What to serve it as; default its class's name.
        checkpoint: Weights to load into it.
        preprocess: A JSON file that describes the preprocessing of its image input.

    Raises:
        CheckpointError: The weights cannot be read or do not fit.
        PreprocessingError: The description is wrong.
    """
    weights = Path(checkpoint) if checkpoint is not None else None
    sidecar = find_sidecar(weights, Path(preprocess) if preprocess is not None else None)
    return source_of_module(module, example_inputs, name=name, checkpoint=weights, sidecar=sidecar)
