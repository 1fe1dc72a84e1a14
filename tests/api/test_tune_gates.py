"""What candidates of a tuning are compared with, whichever runs first."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from report_samples import FILE, INT8, quantized_manifest

from s2mlp_deploy.api.tune_gates import Gates
from s2mlp_deploy.api.tune_state import TuneState
from s2mlp_deploy.api.variants import Variant

TRUE = np.array([[1.0, 2.0, 3.0]], np.float32)


def of(precision, file=""):
    return Variant(precision, "channels-last", "gather", "", "d" * 64, 1, file=file)


def track(difference):
    def save_outputs(path):
        np.savez(path, logits=TRUE + np.float32(difference))
        return True

    return SimpleNamespace(save_outputs=save_outputs, shapes={}, candidate=SimpleNamespace(runtime="onnxruntime 1"))


@pytest.fixture
def gates(tmp_path):
    """Begins anew with what an earlier go has kept."""

    def begin(state):
        made = Gates(tmp_path, quantized_manifest(), tmp_path, state.noise)
        made.judge(of("fp32", FILE), track(0.0))
        return made

    return begin


def test_quantized_files_are_compared_with_the_artifacts_own_whichever_runs_first(gates):
    state = TuneState("key")
    precision = next(item.precision for item in quantized_manifest().files if item.path == INT8)
    early = gates(state).judge(of(precision), track(0.5))
    assert (early.outcome, state.noise) == ("parity", {})
    assert INT8 in early.reason
    assert gates(state).judge(of(precision, INT8), track(0.01)).outcome is None
    # Another go: the artifact's own file was measured before, and does not run again.
    resumed = gates(state)
    assert resumed.judge(of(precision), track(0.5)).outcome == "parity"
    assert resumed.judge(of(precision), track(0.012)).outcome is None
