"""What files are compared with whose smears were repaired: their source, with its smears repaired too."""

from __future__ import annotations

from pathlib import Path

from s2mlp_deploy.api.adopting import adopt_model
from s2mlp_deploy.engines.base import FileEngine
from s2mlp_deploy.engines.of_graph import open_graph
from s2mlp_deploy.errors import ExportError
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.sources.onnx_file import open_onnx


def repaired_reference(path: Path) -> FileEngine | None:
    """An ONNX file with the shifts that were meant in place of its smears; None where it has none.

    Args:
        path: The file.

    Raises:
        S2MLPDeployError: It cannot be read as a source.
    """
    try:
        found = adopt_model(open_onnx(path, overrides={}), repair_smear=True)
    except ExportError as error:
        if "no smear" in error.problem:
            return None
        raise
    model, _ = lower_shifts(found.model, others=True)
    return open_graph(model, optimize="off")
