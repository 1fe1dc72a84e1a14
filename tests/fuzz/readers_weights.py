"""Checkpoints: safetensors, and what ``torch.save`` writes, in both of its forms."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import torch
from fuzzing import Reader
from mutating import json_text, some_bytes, with_length, zip_archive
from safetensors.torch import save
from torch import nn

from s2mlp_deploy.sources.checkpoint import load_weights, read_weights


def _checkpoint(suffix: str, data: bytes, folder: Path) -> None:
    path = folder / f"net{suffix}"
    path.write_bytes(data)
    weights = read_weights(path)
    load_weights(nn.Linear(3, 2), weights, where=str(path))


READERS = (
    Reader("weights/safetensors", partial(_checkpoint, ".safetensors"), with_length(json_text)),
    Reader("weights/zip", partial(_checkpoint, ".pth"), zip_archive()),
    Reader("weights/pickle", partial(_checkpoint, ".pt"), some_bytes),
)


def seeds() -> dict[str, dict[str, bytes]]:
    """By reader and name the files to begin with."""
    weights = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.zeros(2)}
    nested = {"epoch": 3, "model": {f"module.{name}": value for name, value in weights.items()}}
    new, old = io.BytesIO(), io.BytesIO()
    torch.save(nested, new)
    torch.save(weights, old, _use_new_zipfile_serialization=False)
    return {
        "weights/safetensors": {"linear": save(weights)},
        "weights/zip": {"nested": new.getvalue()},
        "weights/pickle": {"linear": old.getvalue()},
    }
