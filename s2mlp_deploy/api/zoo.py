"""The zoo's list; needs no torch."""

from __future__ import annotations

from s2mlp_deploy.models.registry import ModelEntry, list_models


def models() -> tuple[ModelEntry, ...]:
    """The zoo's models with the papers' figures."""
    return list_models()
