"""Index maps: for every element of a tensor, which element of the region's inputs it is.

A region of a graph that only moves values can be run on *element numbers* instead of values: number the elements of
the tensors that enter the region, run the region's own operators on those numbers, and every tensor in it says where
each of its elements came from.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from typing import Any, Generic

import torch
from torch import Tensor

from s2mlp_deploy.recognition.graph import INDEX, N, SizedGraph, UnknownValueError
from s2mlp_deploy.recognition.regions import Region


class IndexMaps(Generic[N]):
    """The index maps of a region's tensors at one choice of sizes, computed when asked for.

    Args:
        region: Whose inputs are numbered.
        sized: Its graph at the sizes.
        budget: Bytes of index maps that are kept; what is dropped is computed again when it is asked for.

    Raises:
        UnknownValueError: A tensor that enters the region has no known size, or there are too many elements to number.
    """

    def __init__(self, region: Region[N], sized: SizedGraph[N], *, budget: int) -> None:
        self._region = region
        self._sized = sized
        self._budget = budget
        self._first: dict[N, int] = {}
        self._kept: OrderedDict[N, Any] = OrderedDict()
        self._storages: Counter[int] = Counter()
        self.kept_bytes = 0
        """Memory of the maps that are kept."""
        number = 1
        for entry in region.entries:
            self._first[entry] = number
            number += math.prod(sized.shape(entry))
        self.elements = number - 1
        """How many elements enter the region."""
        if number > torch.iinfo(INDEX).max:
            raise UnknownValueError(f"{self.elements} elements are too many to follow")

    def of(self, node: N) -> Tensor | None:
        """The index map of a node; None where it is a list of tensors."""
        value = self._value(node)
        return value if isinstance(value, Tensor) else None

    def _value(self, node: N) -> Any:
        if node in self._kept:
            self._kept.move_to_end(node)
            return self._kept[node]
        return self._enter(node) if node in self._first else self._evaluate(node)

    def _enter(self, node: N) -> Tensor:
        """Numbers the elements of a tensor that enters the region."""
        shape, first = self._sized.shape(node), self._first[node]
        numbers = torch.arange(first, first + math.prod(shape), dtype=INDEX).reshape(shape)
        self._keep(node, numbers)
        return numbers

    def _evaluate(self, node: N) -> Any:
        """Runs what the node needs and is not kept. Each map is dropped after its last use, if the budget is spent."""
        uses: Counter[N] = Counter()
        held: dict[N, Any] = {}
        wanted: set[N] = set()
        pending = [node]
        while pending:
            current = pending.pop()
            if current in wanted:
                continue
            wanted.add(current)
            for source in self._region.carried(current):
                uses[source] += 1
                if source in self._kept:
                    held[source] = self._kept[source]
                elif source in self._region:
                    pending.append(source)
        for current in self._region.in_order(wanted):
            result = self._sized.run(current, lambda source: held[source] if source in held else self._value(source))
            self._check(current, result)
            for source in self._region.carried(current):
                uses[source] -= 1
                if not uses[source]:
                    held.pop(source, None)
            held[current] = result
            self._keep(current, result)
        return held[node]

    def _check(self, node: N, result: Any) -> None:
        for tensor in _tensors(result):
            if tensor.dtype != INDEX:
                raise UnknownValueError(f"{self._region.graph.name(node)} computes, it does not only move")
        if isinstance(result, Tensor) and tuple(result.shape) != self._sized.shape(node):
            raise UnknownValueError(f"{self._region.graph.name(node)} has another shape than the graph says")

    def _keep(self, node: N, value: Any) -> None:
        self._kept[node] = value
        for tensor in _tensors(value):
            storage = tensor.untyped_storage()
            self._storages[storage.data_ptr()] += 1
            if self._storages[storage.data_ptr()] == 1:
                self.kept_bytes += storage.nbytes()
        while self.kept_bytes > self._budget and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            for tensor in _tensors(dropped):
                storage = tensor.untyped_storage()
                self._storages[storage.data_ptr()] -= 1
                if not self._storages[storage.data_ptr()]:
                    del self._storages[storage.data_ptr()]
                    self.kept_bytes -= storage.nbytes()


def _tensors(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [item for item in value if isinstance(item, Tensor)]


def all_distinct(numbers: Tensor) -> bool:
    """Whether every element is another one, and none a constant."""
    flat = numbers.flatten()
    if not flat.numel():
        return True
    low, high = (int(limit) for limit in flat.aminmax())
    if low < 1 or high - low + 1 < flat.numel():
        return False
    seen = torch.zeros(high - low + 1, dtype=torch.bool)
    seen[flat - low] = True
    return int(seen.sum()) == flat.numel()


def digest(numbers: Tensor) -> int:
    """A number that is the same for equal index maps, and hardly for others."""
    return hash((numbers.shape, numbers.contiguous().numpy().tobytes()))
