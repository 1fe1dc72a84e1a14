"""A program that ``torch.export.save`` wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from s2mlp_deploy.artifact import SourceInfo
from s2mlp_deploy.errors import SourceError
from s2mlp_deploy.files import sha256_of
from s2mlp_deploy.preprocess import Sidecar
from s2mlp_deploy.sources.single import OTHERS
from s2mlp_deploy.sources.source import Source
from s2mlp_deploy.text import first_line_of, join_names
from s2mlp_deploy.torch_internals import tree_leaves


def load_program(
    path: Path, *, checkpoint: Path | None, overrides: Mapping[str, Any] | None, sidecar: Sidecar | None
) -> Source:
    """Reads a program that ``torch.export.save`` wrote. The file is a pickle: for trusted sources only.

    Raises:
        SourceError: It is no such file, or options were given that a finished program cannot take.
    """
    if checkpoint is not None or overrides:
        raise SourceError(
            "a .pt2 program has its weights and configuration inside",
            where=str(path),
            fix="leave --checkpoint and --set away",
        )
    if not path.is_file():
        raise SourceError("no such file", where=str(path), fix="check the path")
    try:
        program = torch.export.load(path)
    except Exception as error:
        raise SourceError(
            f"not a program of torch.export.save: {first_line_of(error)}",
            where=str(path),
            fix="write it with torch.export.save, with the same torch version",
        ) from error
    tensors = [*program.state_dict.values(), *program.constants.values()]
    devices = {str(value.device) for value in tensors if isinstance(value, torch.Tensor) and value.device.type != "cpu"}
    if devices:
        raise SourceError(
            f"the program was exported on {join_names(sorted(devices))}, and a model is captured on the CPU",
            where=str(path),
            fix="export it again from model.cpu() and CPU inputs",
        )
    inputs, keywords = program.example_inputs or ((), {})
    if keywords:
        raise SourceError(
            f"the program takes keyword arguments: {', '.join(keywords)}",
            where=str(path),
            fix="export it with all inputs positional: torch.export.export(model, (x, y))",
        )
    leaves = [*tensors, *tree_leaves(inputs)]
    if any(isinstance(leaf, torch.Tensor) and leaf.dtype in OTHERS for leaf in leaves):
        raise SourceError(
            "the program computes in another precision than float32, which files are made from",
            where=str(path),
            fix="export it again from model.float() and float32 inputs",
        )
    return Source(
        name=path.stem,
        module=program,
        example_inputs=tuple(inputs),
        info=SourceInfo(path.name, checkpoint=path.name, checkpoint_sha256=sha256_of(path)),
        preprocessing=sidecar.preprocessing if sidecar is not None else None,
        classes=sidecar.classes if sidecar is not None else None,
    )
