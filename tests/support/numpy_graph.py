"""A second kind of graph that recognition reads: a few ONNX operators, made by hand and run by numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s2mlp_deploy.recognition.cost import Cost, copying, indexing
from s2mlp_deploy.recognition.graph import DeformableConv, FreeSize, SizeDependence, UnknownValueError

Array = np.ndarray[Any, Any]
Shape = Callable[[Mapping[str, int]], tuple[int, ...]]

IDIOMS = {
    "ScatterND": "slice assignment",
    "Gather": "index table",
    "Concat": "concatenation",
    "Pad": "pad",
    "Slice": "slices",
    "Where": "mask",
}


@dataclass(frozen=True, eq=False)
class Op:
    """An operator and what it reads: other operators' results, and attributes that may depend on the sizes."""

    kind: str
    # Not shown: a long chain that is read twice at each step would be written out exponentially often.
    inputs: tuple[Op, ...] = field(default=(), repr=False)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float32"


class NumpyGraph:
    """Operators in order; the inputs among them have the attribute ``shape``."""

    def __init__(
        self, nodes: Sequence[Op], outputs: Sequence[Op], free: Sequence[FreeSize] = (), turns: Any = ()
    ) -> None:
        self.nodes = list(nodes)
        self.free_sizes = list(free)
        self._dependence = SizeDependence(turns)
        self._outputs = set(outputs)
        self._example = {size.name: size.example for size in free}

    def at(self, sizes: Mapping[str, int]) -> SizedNumpyGraph:
        return SizedNumpyGraph({**self._example, **sizes})

    def size_dependence(self, _: Sequence[Op]) -> SizeDependence:
        return self._dependence

    def name(self, node: Op) -> str:
        return f"{node.kind}{self.nodes.index(node)}"

    def users(self, node: Op) -> list[Any]:
        readers: list[Any] = [other for other in self.nodes if node in other.inputs]
        return [*readers, None] if node in self._outputs else readers

    def dtype(self, node: Op) -> str:
        return node.dtype

    def is_movement(self, node: Op) -> bool:
        return node.kind in (*IDIOMS, "Transpose", "Identity", "ConstantOfShape")

    def is_variable(self, node: Op) -> bool:
        return node.kind != "ConstantOfShape"

    def carried(self, node: Op) -> tuple[Op, ...]:
        return tuple(dict.fromkeys(node.inputs))

    def viewed(self, node: Op) -> Op | None:
        return node.inputs[0] if node.kind in ("Slice", "Transpose", "Identity") else None

    def idiom(self, node: Op) -> str | None:
        return IDIOMS.get(node.kind)

    def deformable(self, node: Op) -> DeformableConv[Op] | None:
        assert node.kind != "DeformConv"
        return None


class SizedNumpyGraph:
    """The operators at one choice of sizes."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.sizes = sizes
        self._shapes: dict[Op, tuple[int, ...]] = {}

    def shape(self, node: Op) -> tuple[int, ...]:
        if node not in self._shapes:
            result = self.compute(node, lambda source: np.zeros(self.shape(source), np.int32))
            self._shapes[node] = result.shape
        return self._shapes[node]

    def constant(self, node: Op) -> Tensor:
        raise UnknownValueError(f"{node.kind} depends on the input")

    def run(self, node: Op, tensor: Callable[[Op], Any]) -> Tensor:
        return torch.from_numpy(self.compute(node, lambda source: tensor(source).numpy()).copy())

    def cost(self, node: Op) -> Cost:
        out = self.shape(node)
        if node.kind == "ScatterND":
            return indexing("ScatterND", out, node.attributes["indices"].size)
        return copying(out)

    def compute(self, node: Op, array: Callable[[Op], Array]) -> Array:
        """The operator's result, as ONNX defines it."""
        a = {name: value(self.sizes) if callable(value) else value for name, value in node.attributes.items()}
        data = [array(source) for source in node.inputs]
        if node.kind in ("Input", "ConstantOfShape"):
            return np.zeros(a["shape"], np.int32)
        if node.kind in ("Relu", "Identity"):
            return data[0]
        if node.kind == "Slice":
            window = [slice(None)] * data[0].ndim
            window[a["axis"]] = slice(a["start"], a["end"])
            return data[0][tuple(window)]
        if node.kind == "Concat":
            return np.concatenate(data, a["axis"])
        if node.kind == "Gather":
            return np.take(data[0], a["indices"], axis=a["axis"])
        if node.kind == "Transpose":
            return data[0].transpose(a["perm"])
        if node.kind == "Pad":
            return np.pad(data[0], a["pads"])
        if node.kind == "Where":
            return np.where(a["condition"], data[0], data[1])
        assert node.kind == "ScatterND"
        result, indices = data[0].copy(), a["indices"]
        result[tuple(np.moveaxis(indices, -1, 0))] = data[1]
        return result


class Builder:
    """Collects operators in the order in which they are made."""

    def __init__(self) -> None:
        self.nodes: list[Op] = []

    def input(self, shape: Shape | tuple[int, ...], dtype: str = "float32") -> Op:
        return self.add("Input", shape=shape, dtype=dtype)

    def add(self, kind: str, *inputs: Op, dtype: str = "float32", **attributes: Any) -> Op:
        self.nodes.append(Op(kind, inputs, attributes, dtype))
        return self.nodes[-1]

    def graph(self, *outputs: Op, free: Sequence[FreeSize] = (), turns: Any = ()) -> NumpyGraph:
        return NumpyGraph(self.nodes, outputs, free, turns)
