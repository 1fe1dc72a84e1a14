"""Looking into an ONNX file; needs no torch."""

from __future__ import annotations

import collections
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from s2mlp_deploy.api.inspection_tables import print_file_inspection, print_source_inspection
from s2mlp_deploy.artifact import METADATA_KEY, TensorInfo, read_description
from s2mlp_deploy.export.write import tensor_infos
from s2mlp_deploy.graph.checking import problem_of_file
from s2mlp_deploy.graph.loading import load_graph
from s2mlp_deploy.report.notebook import ShownAsPrinted

if TYPE_CHECKING:
    from s2mlp_deploy.api.inspecting_sources import SourceInspection


@dataclass(frozen=True)
class FileInspection(ShownAsPrinted):
    """What an ONNX file holds.

    Attributes:
        file: Its name.
        bytes: Its size, external data included.
        opset: Of the standard domain.
        producer: Who wrote it.
        inputs: Of the graph.
        outputs: Of the graph.
        nodes: How many there are.
        operators: How often each operator stands in the graph, the commonest first.
        weights: Bytes of weights by element type.
        metadata: The timeless manifest of an artifact's file; empty for others.
        problem: What ONNX's checker says of the graph; empty where it accepts it.
        found: The shifts in a file that does not say which it has, and what else moves; None where nobody looked.
        not_searched: Why nobody looked for shifts, where that was tried; empty otherwise.
    """

    file: str
    bytes: int
    opset: int
    producer: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    nodes: int
    operators: dict[str, int]
    weights: dict[str, int]
    metadata: dict[str, Any]
    problem: str = ""
    found: SourceInspection | None = None
    not_searched: str = ""

    def print_to(self, console: Console) -> None:
        """See :class:`~s2mlp_deploy.report.notebook.ShownAsPrinted`."""
        print_file_inspection(console, self, Path(self.file))
        if self.found is not None:
            print_source_inspection(console, self.found)


def inspect_file(path: str | Path) -> FileInspection:
    """Reads an ONNX file's interface, operators and weights; runs nothing.

    Raises:
        ArtifactError: It is no ONNX file.
    """
    file = Path(path)
    # Sizes are in the graph itself; weights beside it stay on the disk.
    loaded = load_graph(file, valid=False)
    model = loaded.model
    weights: collections.Counter[str] = collections.Counter()
    for value in model.graph.initializers.values():
        if value.const_value is not None:
            weights[value.const_value.dtype.name.lower()] += value.const_value.nbytes
    operators = collections.Counter(
        f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in model.graph.all_nodes()
    )
    return FileInspection(
        file=file.name,
        bytes=sum(part.stat().st_size for part in (file, *(file.parent / name for name in loaded.beside))),
        opset=model.opset_imports[""],
        producer=f"{model.producer_name or 'unknown'} {model.producer_version or ''}".strip(),
        inputs=tensor_infos(model.graph.inputs),
        outputs=tensor_infos(model.graph.outputs),
        nodes=sum(operators.values()),
        operators=dict(operators.most_common()),
        weights=dict(weights.most_common()),
        metadata=read_description(model.metadata_props.get(METADATA_KEY), file),
        problem=problem_of_file(file),
    )
