"""What the graphs of an artifact have of each module. Needs onnx, which keeping evidence does not."""

from __future__ import annotations

from collections.abc import Sequence

from s2mlp_deploy.artifact import Manifest
from s2mlp_deploy.evidence.modules import ModuleRecord, ModulesReport
from s2mlp_deploy.export.write import GraphFile
from s2mlp_deploy.graph.modules import modules_of


def by_module(files: Sequence[GraphFile], manifest: Manifest) -> tuple[ModulesReport, ...]:
    """What graphs have of each module.

    Args:
        files: As they were written.
        manifest: With their hashes.
    """
    hashes = {record.path: record.sha256 for record in manifest.files}
    return tuple(
        ModulesReport(
            file.name,
            file.precision,
            hashes[file.name],
            tuple(
                ModuleRecord(module.path, module.operators, module.weight_bytes, module.computes)
                for module in modules_of(file.model.graph).values()
            ),
        )
        for file in files
    )
