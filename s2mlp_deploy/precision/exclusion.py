"""Layers that the user wants in higher precision, by name or by operator."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from s2mlp_deploy.errors import InputError
from s2mlp_deploy.text import join_names

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Exclusion:
    """What is not quantized, and computed in float32 in a float16 file.

    Attributes:
        patterns: Regular expressions, searched for in the names of nodes (``stages.0.blocks.1.mlp.fc1/MatMul``).
        op_types: ONNX operators, ``Conv`` for example.

    Raises:
        InputError: A pattern is no regular expression.
    """

    patterns: tuple[str, ...] = ()
    op_types: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for pattern in self.patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise InputError(
                    f"--exclude {pattern!r} is no regular expression: {error}",
                    fix="name layers like 'blocks\\.0\\.mlp' or 'head'",
                ) from error

    def reason(self, node: ir.Node) -> str:
        """Why a node is excluded; empty where it is not."""
        if node.op_type in self.op_types:
            return f"excluded by --exclude-op {node.op_type}"
        name = str(node.name)
        return next((f"excluded by --exclude {p}" for p in self.patterns if re.search(p, name)), "")

    def check(self, candidates: Iterable[ir.Node]) -> None:
        """Refuses what excludes nothing, which is most likely a slip of the pen.

        Args:
            candidates: The nodes that an exclusion changes: those of the graph for float16, the GEMMs and convolutions
                with constant weights for int8 and fp8.

        Raises:
            InputError: No candidate has such a name or operator.
        """
        nodes = list(candidates)
        if not nodes:
            return  # There is nothing to exclude from; that is refused by whoever looks for it.
        names = [str(node.name) for node in nodes]
        ops = {node.op_type for node in nodes}
        for op_type in self.op_types:
            if op_type not in ops:
                raise InputError(
                    f"--exclude-op {op_type} excludes nothing",
                    fix=f"choose from {join_names(sorted(ops), limit=None)}",
                )
        for pattern in self.patterns:
            if not any(re.search(pattern, name) for name in names):
                raise InputError(f"--exclude {pattern!r} excludes nothing", fix=f"names are like {join_names(names)}")


NOTHING = Exclusion()
