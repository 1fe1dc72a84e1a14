"""A source: a module with its weights, example inputs and preprocessing, ready to be captured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from s2mlp_deploy.artifact import SourceInfo
from s2mlp_deploy.preprocess import Preprocessing
from s2mlp_deploy.sources.onnx_model import OnnxModel
from s2mlp_deploy.torch_internals import tree_leaves

EXAMPLE_BATCH = 2
"""torch.export takes an axis of size 1 for a constant, so examples have two images."""


@dataclass(frozen=True)
class Source:
    """A module ready to be captured.

    Attributes:
        name: The name an artifact of it is served under.
        module: With its weights; or a program that was exported before, or the graph of an ONNX file.
        example_inputs: Positional arguments: tensors, or structures of tensors.
        info: Where it comes from, for the manifest.
        input_names: Names for the graph's inputs; None: those of ``forward``'s parameters.
        output_names: Names for its outputs; None: from what ``forward`` returns.
        preprocessing: How an image becomes the input, where known.
        classes: Names of the classes, where known.
        notes: What was changed when it was loaded, for the manifest.
        folder: What the module's own code may import from when it runs; None: nothing beyond ``sys.path``.
    """

    name: str
    module: nn.Module | ExportedProgram | OnnxModel
    example_inputs: tuple[Any, ...]
    info: SourceInfo
    input_names: tuple[str, ...] | None = None
    output_names: tuple[str, ...] | None = None
    preprocessing: Preprocessing | None = None
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    folder: Path | None = None

    @property
    def example_tensors(self) -> tuple[torch.Tensor, ...]:
        """The tensors among the example inputs, in order."""
        leaves = tree_leaves(self.example_inputs)
        return tuple(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))
