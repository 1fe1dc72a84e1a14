"""An ONNX file as a builder sees it: interface, precision and types. Needs onnx, no TensorRT and no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2mlp_deploy.artifact import METADATA_KEY, PrecisionException, SizeLimit, TensorInfo, limits_of, read_description
from s2mlp_deploy.errors import MissingDependencyError
from s2mlp_deploy.files import sha256_of

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class OnnxFile:
    """A graph with what its file says of it.

    Attributes:
        path: Of the file.
        model: The graph, with types as far as they could be inferred.
        sha256: Of the file.
        digest: Of the file and, where its weights lie beside it, of those too.
        metadata: The timeless manifest of an artifact's file; empty for others.
    """

    path: Path
    model: ir.Model
    sha256: str
    digest: str
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        """Whether this package wrote the file."""
        return bool(self.metadata)

    @property
    def opset(self) -> int:
        """Of the standard domain."""
        return self.model.opset_imports[""]

    @cached_property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Inputs that a caller gives."""
        return tuple(_info(value) for value in self.model.graph.inputs if not value.is_initializer())

    @cached_property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Of the graph."""
        return tuple(_info(value) for value in self.model.graph.outputs)

    @cached_property
    def nodes(self) -> tuple[ir.Node, ...]:
        """All nodes, those of subgraphs too."""
        return tuple(self.model.graph.all_nodes())

    @cached_property
    def exceptions(self) -> tuple[PrecisionException, ...]:
        """Layers left in higher precision on purpose."""
        listed = self.metadata.get("precision_exceptions") or ()
        return tuple(
            PrecisionException(*(str(item.get(key, "")) for key in ("layer", "precision", "reason", "file")))
            for item in listed
            if isinstance(item, dict) and item.get("layer")
        )

    @cached_property
    def limits(self) -> tuple[SizeLimit, ...]:
        """What free sizes of the inputs may be, by the file's own description."""
        return limits_of(self.metadata)

    @property
    def precision(self) -> str | None:
        """The precision the metadata names; None for a file that says nothing."""
        precision = self.metadata.get("precision")
        return base_precision(precision) if isinstance(precision, str) else None

    def is_shift(self, name: str) -> bool:
        """Whether a node of that name is part of a shift that is written as arithmetic (``grouped-conv``)."""
        return any(name.startswith(f"{where}/Shift" if where else "Shift") for where in self._shift_modules)

    @cached_property
    def _shift_modules(self) -> tuple[str, ...]:
        return tuple(str(origin.get("module", "")) for origin in self._origins)

    @cached_property
    def _origins(self) -> list[dict[str, Any]]:
        shifts = self.metadata.get("shifts") or ()
        return [shift.get("origin") or {} for shift in shifts if isinstance(shift, dict)]

    def line_of(self, name: str) -> str:
        """The source line of the shift that a node belongs to, as ``file.py:12``; empty where the file does not say."""
        for origin in self._origins:
            module = str(origin.get("module", ""))
            if module and name.startswith((f"{module}/", f"{module}.")):
                return str(origin.get("line", ""))
        return ""


def module_of(name: str) -> str:
    """The module path in a node's name: ``stages.0.norm`` of ``stages.0.norm/LayerNormalization``."""
    return name.rpartition("/")[0]


def base_precision(name: str) -> str:
    """``int8`` of ``int8-trt``: the placement of Q/DQ is no part of a precision."""
    return name.partition("-")[0]


def read_onnx(path: Path, *, extra: str = "onnx") -> OnnxFile:
    """Reads a graph and infers its types; weights stay where they are.

    Args:
        path: Of the file.
        extra: What is to be installed where onnx is missing: that of a builder, which has onnx too, or onnx alone.

    Raises:
        MissingDependencyError: The package onnx is not installed.
        ArtifactError: It is no ONNX file, is not valid, or written for a later ONNX than the one installed.
    """
    try:
        from s2mlp_deploy.graph.loading import load_graph
    except ImportError as error:
        raise MissingDependencyError(error.name or "onnx", extra=extra, purpose="reading ONNX files") from None
    loaded = load_graph(path)
    model = loaded.model
    metadata = read_description(model.metadata_props.get(METADATA_KEY), path)
    own = sha256_of(path)
    digest = _digest(path, loaded.beside, own)
    return OnnxFile(path, model, own, digest, metadata)


def _digest(path: Path, beside: tuple[str, ...], own: str) -> str:
    if not beside:
        return own
    total = hashlib.sha256(own.encode())
    for name in beside:
        total.update(sha256_of(path.parent / name).encode())
    return total.hexdigest()


def _info(value: ir.Value) -> TensorInfo:
    dtype = value.dtype.name.lower() if value.dtype is not None else "unknown"
    shape = value.shape if value.shape is not None else ()
    sizes = tuple(size if isinstance(size, int) else (size.value or f"axis{i}") for i, size in enumerate(shape))
    return TensorInfo(value.name or "", _NUMPY.get(dtype, dtype), sizes)


_NUMPY = {"float": "float32", "double": "float64"}
