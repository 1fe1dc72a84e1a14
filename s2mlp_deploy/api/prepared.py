"""What a comparison of files runs on, whatever the reference is. Never imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
from numpy.typing import NDArray

from s2mlp_deploy.api.judging import Judging
from s2mlp_deploy.artifact import SizeLimit, TensorInfo, read_manifest
from s2mlp_deploy.data.dataset import ModelData
from s2mlp_deploy.data.noise import NoiseBatches
from s2mlp_deploy.engines.base import Engine, FileEngine
from s2mlp_deploy.errors import ArtifactError, InputError
from s2mlp_deploy.evidence.standing import comparable
from s2mlp_deploy.files import sha256_of
from s2mlp_deploy.parity.matching import match_names
from s2mlp_deploy.parity.pixels import OnPixels
from s2mlp_deploy.preprocess import Preprocessing

if TYPE_CHECKING:
    from s2mlp_deploy.api.references import References
    from s2mlp_deploy.sources.source import Source


@dataclass(frozen=True)
class Prepared:
    """All that a comparison runs on. What is by file is by its path as text.

    Attributes:
        origin: The module; None where a file is the reference.
        paths: The files.
        hashes: Their hashes before anything was loaded: evidence must be of the very bytes that were measured.
        sessions: Their engines.
        descriptions: What they say of themselves.
        graphs: Those of ONNX files.
        precisions: What they compute in.
        on_pixels: Those that preprocess.
        judging: How limits are found.
        sizes: Limits of free sizes.
        whole: Whether only whole batches are taken.
        references: What is right, with its analysis; None where a file is the reference.
        reference: The engine that computes it, from what is fed.
        fed: The inputs.
        examples: One of each input of the reference.
        inputs: The batches.
        seed: Of noise.
        preprocessing: How an image becomes the input, where known.
    """

    origin: Source | None
    paths: tuple[Path, ...]
    hashes: dict[Path, str]
    sessions: dict[str, FileEngine]
    descriptions: dict[str, dict[str, Any]]
    graphs: dict[str, ir.Model]
    precisions: dict[str, str]
    on_pixels: tuple[str, ...]
    judging: Judging
    sizes: tuple[SizeLimit, ...]
    whole: bool
    references: References | None
    reference: Engine
    fed: tuple[TensorInfo, ...]
    examples: tuple[NDArray[Any], ...]
    inputs: ModelData | NoiseBatches
    seed: int
    preprocessing: Preprocessing | None = None

    def adapted(self, key: str, engine: Engine) -> Engine:
        """An engine that takes what is fed, given the file or other name that it is of."""
        if not self.on_pixels or key in self.on_pixels or self.preprocessing is None:
            return engine
        return OnPixels(engine, self.preprocessing)

    def check_unchanged(self, path: Path) -> None:
        """Refuses evidence of a file that is no longer the one that was measured.

        Raises:
            ArtifactError: It was replaced.
        """
        if sha256_of(path) != self.hashes[path]:
            raise ArtifactError("the file was replaced while it was compared", where=str(path), fix="compare again")

    @property
    def data_sha256(self) -> str:
        """Of the samples; empty of noise."""
        return "" if isinstance(self.inputs, NoiseBatches) else self.inputs.content_hash

    @property
    def splits(self) -> bool:
        """Whether a batch may be cut: where it is free on all sides, and no clip of several images."""
        if self.whole or self.on_pixels or any(limit.name == "batch" for limit in self.sizes):
            return False
        infos = [info for session in self.sessions.values() for info in session.inputs]
        return all(info.shape and info.shape[0] == "batch" for info in (*self.fed, *infos))


def files_of(path: Path) -> list[Path]:
    """A file, or the files of an artifact."""
    if not path.is_dir():
        return [path]
    return [path / name for name in comparable(read_manifest(path))]


def single_precision(inputs: Sequence[TensorInfo]) -> tuple[TensorInfo, ...]:
    """A file's inputs as its source takes them: in float32 where they are float16."""
    return tuple(replace(info, dtype="float32") if info.dtype == "float16" else info for info in inputs)


def with_fixed_sizes(inputs: Sequence[TensorInfo], sessions: Mapping[str, Engine], own: Path) -> tuple[TensorInfo, ...]:
    """The reference's inputs, with sizes that it leaves free and a file fixes (``export --set batch=1``).

    Args:
        inputs: Of the reference.
        sessions: The files' engines, by name.
        own: The reference.

    Raises:
        InputError: Two files fix one size differently.
    """
    fixed = []
    for info in inputs:
        shape = list(info.shape)
        for key, session in sessions.items():
            names = match_names(
                [i.name for i in inputs], [i.name for i in session.inputs], what="input", sides=(str(own), key)
            )
            other = next(i for i in session.inputs if i.name == names[info.name])
            for axis, size in enumerate(other.shape):
                if isinstance(size, int) and isinstance(shape[axis], int) and size != shape[axis]:
                    raise InputError(
                        f"input {info.name!r} is {size} along axis {axis}, and {shape[axis]} in another file",
                        where=key,
                        fix="compare them one at a time",
                    )
                shape[axis] = size if isinstance(size, int) else shape[axis]
        fixed.append(replace(info, shape=tuple(shape)))
    return tuple(fixed)
