"""What the name of a layer of TensorRT tells: the ONNX nodes that it was made of, their operator and their module."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from s2mlp_deploy.artifact import common_path, module_of
from s2mlp_deploy.evidence.profile import MATRIX_OPS

REFORMAT = "Reformat"
"""The operator of a layer that only changes a format or a type."""
KERNEL = "(kernel)"
"""The operator of a layer whose name tells no node."""

# What stands between the nodes that a layer was made of, and which profile it is of.
_BETWEEN = re.compile(r" \+ | \|\| |\.\.\.|[\x1e\x1f]")
_OF_PROFILE = re.compile(r" \[profile \d+\]$")
_FOREIGN = re.compile(r"\{ForeignNode\[(.*)\]\}")
_NUMBER = re.compile(r"(_\d+)+$")
_REFORMATTING = "Reformatting "
# Kernels that the compiler inside of TensorRT has fused are named by what is in them: __myl_MulFcAdd_myl0_7. Others of
# its own, and where streams wait for each other, have no node either: __mye1041_0_myl0_0, entry^bb^wait^2_myl4_1,
# exit^bb^signal^1_myl0_7.
_FUSED = ("__myl_", "__mye", "entry^bb^", "exit^bb^")
# GEMMs keep their nodes' names in it, and several that became one are joined: v/MatMul+k/MatMul_myl0_55.
_COMPILED = re.compile(r"_myl\d+_\d+$")
# What works element by element is nested: PWN(PWN(act/Sigmoid), act/Mul).
_POINTWISE = re.compile(r"PWN\((.*)\)")


def without_profile(name: str) -> str:
    """The name without `` [profile N]``, which layers of an engine with several profiles end with."""
    return _OF_PROFILE.sub("", name)


def is_reformatting(name: str) -> bool:
    """Whether a layer is called as those that only change a format or a type."""
    return name.startswith(_REFORMATTING)


def nodes_in(name: str) -> tuple[str, ...]:
    """The ONNX nodes in the name of a layer; of a foreign node only the first and the last are named."""
    name = without_profile(name)
    if is_reformatting(name) or name.startswith(_FUSED):
        return ()
    if _COMPILED.search(name):
        parts = _COMPILED.sub("", name).split("+")
    else:
        foreign = _FOREIGN.search(name)
        parts = _BETWEEN.split(foreign[1] if foreign else name)
    return tuple(node for part in parts for node in _unnested(part.strip()) if node)


def _unnested(part: str) -> Iterator[str]:
    """What stands in nested ``PWN(..., ...)``; else the part itself."""
    if (nested := _POINTWISE.fullmatch(part)) is None:
        yield part
        return
    for inner in nested[1].split(", "):
        # Splitting has torn deeper ones apart.
        yield inner.replace("PWN(", "").rstrip(")").strip()


def operator_of(nodes: Iterable[str]) -> str:
    """The GEMM or convolution among nodes named ``module/Operator``, else the first three operators."""
    ops = list(dict.fromkeys(_NUMBER.sub("", node.rpartition("/")[2]) for node in nodes if "/" in node))
    return next((op for op in ops if op in MATRIX_OPS), "+".join(ops[:3])) or KERNEL


def module_of_nodes(nodes: Sequence[str]) -> str:
    """What the modules of nodes have in common; empty where they tell none."""
    return common_path(map(module_of, nodes))
