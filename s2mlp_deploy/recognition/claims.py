"""What a tensor may be at the example's sizes, and the proof at other sizes that it is that."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic

import torch
from torch import Tensor

from s2mlp_deploy.recognition.elsewhere import Elsewhere, depends, in_short
from s2mlp_deploy.recognition.graph import N, UnknownValueError
from s2mlp_deploy.recognition.regions import Region
from s2mlp_deploy.recognition.results import Base
from s2mlp_deploy.recognition.sizes import SizeProof
from s2mlp_deploy.shift.op import shift
from s2mlp_deploy.shift.spec import ShiftSpec

LOG = logging.getLogger(__name__)

_Proofs = dict[ShiftSpec | None, SizeProof]
"""By what a tensor may still be; None for a copy."""


@dataclass(frozen=True)
class Claim(Generic[N]):
    """What a tensor is at the example's sizes: one of these shifts of the base, or (without any) its copy."""

    base: Base[N]
    specs: tuple[ShiftSpec, ...]


@dataclass(frozen=True)
class Proven:
    """What a tensor is at all sizes.

    Attributes:
        spec: The shift of its base; None for its copy.
        sizes: At how many choices of input sizes the index maps were compared.
    """

    spec: ShiftSpec | None
    sizes: int


class Prover(Generic[N]):
    """Proves claims about tensors of a region.

    Args:
        region: The region.
        others: It at other sizes.
    """

    def __init__(self, region: Region[N], others: Sequence[Elsewhere[N]]) -> None:
        self._region, self._others = region, others

    def prove(self, claims: Mapping[N, Claim[N]]) -> dict[N, Proven | str]:
        """The claims that hold at all other sizes; of others, why not."""
        graph = self._region.graph
        between = {node: depends(graph, self._region.between(node, claim.base.node)) for node, claim in claims.items()}
        proofs: dict[N, _Proofs] = {
            node: {spec: SizeProof(graph.free_sizes, between[node].turns) for spec in claim.specs or (None,)}
            for node, claim in claims.items()
            if between[node].problem is None
        }
        problems: dict[N, str] = {}
        for other in self._others:
            open_claims = {node: claim for node, claim in claims.items() if proofs.get(node)}
            if not open_claims:
                break
            for node, result in self._hold(other, open_claims, proofs).items():
                if isinstance(result, str):
                    problems.setdefault(node, result)
                    continue
                for spec, holds_there in result.items():
                    if holds_there:
                        proofs[node][spec].confirm(other.choice, other.dull)
                    else:
                        del proofs[node][spec]
            if other.choice.turn is not None:
                other.forget()
        return {node: between[node].problem or _proven(proofs[node], problems.get(node)) for node in claims}

    def _hold(
        self, other: Elsewhere[N], claims: Mapping[N, Claim[N]], proofs: Mapping[N, _Proofs]
    ) -> dict[N, dict[ShiftSpec | None, bool] | str]:
        """Which claims hold at other sizes; of those that cannot be compared there, why not."""
        maps = other.maps()
        if isinstance(maps, str):
            return dict.fromkeys(claims, maps)
        results: dict[N, dict[ShiftSpec | None, bool] | str] = {}
        for node, claim in claims.items():
            try:
                moved, whole = maps.of(node), maps.of(claim.base.node)
                results[node] = {spec: holds(claim.base, spec, moved, whole) for spec in proofs[node]}
            except (UnknownValueError, RuntimeError, ValueError, IndexError, ZeroDivisionError, MemoryError) as error:
                # The code does not work at this size (reflection padding of one element), or the machine is too small:
                # neither confirms anything, and what no other size confirms is left as it was.
                LOG.debug("%s cannot be run at %s", self._region.graph.name(node), other.choice.sizes, exc_info=True)
                results[node] = in_short(error)
        return results


def _proven(proofs: _Proofs, problem: str | None) -> Proven | str:
    for spec, proof in proofs.items():
        if not proof.unproven:
            return Proven(spec, proof.count)
    if proofs:
        missing = next(iter(proofs.values())).unproven
        if any("=" in name for name in missing):
            return f"it could be compared at no other input size where it may change ({'; '.join(missing)})"
        return f"it could be compared at no other input size: {problem or 'none is allowed'}"
    return "at another input size the same code moves elements differently"


def holds(base: Base[N], spec: ShiftSpec | None, moved: Tensor | None, whole: Tensor | None) -> bool:
    """Whether a tensor is that shift of its base (without a spec, its copy)."""
    if moved is None or whole is None:
        return False
    if base.axis is not None and base.start + base.length > whole.shape[base.axis]:
        return False  # The window lies along an axis whose size is free.
    try:
        numbers, moved = base.of(whole), moved.reshape(base.shape) if base.shape else moved
        if numbers.shape != moved.shape:
            return False
        if spec is not None and numbers.shape[spec.channel_axis] != spec.channels:
            return False  # The "channels" are an axis whose size is free.
        return torch.equal(shift(numbers, spec) if spec and moved.numel() else numbers, moved)
    except (RuntimeError, ValueError, IndexError):
        return False  # The code works at this size, and the shift or the shape does not.
