"""Two engines compared by their layers."""

from __future__ import annotations

from dataclasses import dataclass

from s2mlp_deploy.evidence.engine_layers import LayerFinding, LayerShare
from s2mlp_deploy.evidence.notebook import ShownInNotebooks


@dataclass(frozen=True)
class EngineFacts:
    """One of two engines.

    Attributes:
        file: Its file of layers.
        schema: ``10.x`` or ``11.x``; empty where it does not tell.
        layers: How many.
        reformats: Layers that only change a format or a type.
        dtypes: How many layers write each type.
        ms: Of all layers; None where they were not timed.
        findings: What costs time for nothing.
        source: ``engine`` or ``network``, as of :class:`~s2mlp_deploy.evidence.engine_layers.EngineLayers`.
        unclear: What its file says that is not known here, and what of its profile is of no layer, in words.
    """

    file: str
    schema: str
    layers: int
    reformats: int
    dtypes: dict[str, int]
    ms: float | None
    findings: tuple[LayerFinding, ...]
    source: str = "engine"
    unclear: tuple[str, ...] = ()


@dataclass(frozen=True)
class SharePair:
    """A module or an operator in both engines.

    Attributes:
        name: Of it.
        before: In the older one; None where that has none.
        after: In the newer one.
    """

    name: str
    before: LayerShare | None
    after: LayerShare | None

    @property
    def ms(self) -> float | None:
        """How much longer it takes in the newer one; None where one is not timed."""
        times = [0.0 if share is None else share.ms for share in (self.before, self.after)]
        return None if times[0] is None or times[1] is None else times[1] - times[0]

    @property
    def differs(self) -> bool:
        """Whether it has other layers: another number, or other types."""
        before, after = self.before, self.after
        return before is None or after is None or before.dtypes != after.dtypes


@dataclass(frozen=True)
class EngineDifference(ShownInNotebooks):
    """What is different between two engines.

    Attributes:
        before: The older one.
        after: The newer one.
        modules: All of both, those that differ first, by time or by layers.
        operators: The same by operator.
        differs: Whether any layer has another operator, module, type or format; times alone do not count.
    """

    before: EngineFacts
    after: EngineFacts
    modules: tuple[SharePair, ...]
    operators: tuple[SharePair, ...]
    differs: bool
