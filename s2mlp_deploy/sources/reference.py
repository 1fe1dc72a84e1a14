"""What the user names as a source, before anything is loaded: whether it is there, and what is said of weights.

Imports neither torch nor onnx.
"""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

from s2mlp_deploy.artifact import MANIFEST
from s2mlp_deploy.errors import CheckpointError, PreprocessingError, SourceError
from s2mlp_deploy.files import is_file, is_folder
from s2mlp_deploy.models.registry import MODELS, get_model
from s2mlp_deploy.preprocess import Sidecar, load_sidecar
from s2mlp_deploy.text import command_line

_WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar")
"""How files of weights are called."""

_KINDS = "name a model of the zoo, module:function, file.py:function, model.pt2 or model.onnx"


def check_source(source: str, *, checkpoint: str | Path | None = None, preprocess: str | Path | None = None) -> None:
    """Refuses a source that cannot be loaded: files that are not there, a zoo name that nobody has.

    Raises:
        SourceError: There is no such file or model.
        CheckpointError: There is no such checkpoint.
        PreprocessingError: The description is wrong.
    """
    if preprocess is not None:
        load_sidecar(Path(preprocess))
    if checkpoint is not None and not is_file(checkpoint):
        raise CheckpointError("no such checkpoint file", where=str(checkpoint), fix="check the path")
    place = source.rpartition(":")[0] or source
    if place.endswith((".py", ".pt2", ".onnx")):
        if not is_file(place):
            raise SourceError("no such file", where=place, fix="check the path")
    elif ":" not in source and source not in MODELS:
        if is_folder(source):
            artifact = is_file(Path(source) / MANIFEST)
            raise SourceError(
                "an artifact is what a source is exported to" if artifact else "a folder is no model",
                where=source,
                fix=command_line("inspect", source) if artifact else _KINDS,
            )
        if Path(source).suffix in _WEIGHTS:
            raise SourceError("weights alone are no model", where=source, fix=_how_to_load(Path(source)))
        if is_file(source):
            suffix = Path(source).suffix
            raise SourceError(
                f"{f'a {suffix}' if suffix else 'this'} file is no model",
                where=source,
                fix=f"{_KINDS}; a file of weights goes to --checkpoint",
            )
        get_model(source)


def _how_to_load(weights: Path) -> str:
    """What to name instead of weights: the network that the description beside them speaks of, if there is one."""
    sidecar = None
    with contextlib.suppress(PreprocessingError):
        sidecar = find_sidecar(weights, None)
    option = shlex.join(["--checkpoint", str(weights)])
    if sidecar is not None and sidecar.architecture in MODELS:
        return f"name their network: {sidecar.architecture} {option}"
    return f"name the network that they are of, then {option}"


def find_sidecar(checkpoint: Path | None, preprocess: Path | None) -> Sidecar | None:
    """The description of a checkpoint: the file that was named, or the one beside the checkpoint.

    Raises:
        PreprocessingError: The description is wrong.
    """
    if preprocess is not None:
        return load_sidecar(preprocess)
    if checkpoint is not None:
        # weights.safetensors.json first, then weights.json: both names are in use.
        for path in (checkpoint.with_name(checkpoint.name + ".json"), checkpoint.with_suffix(".json")):
            if is_file(path) and path != checkpoint:
                return load_sidecar(path)
    return None
