"""Statistics of an interrupted run are gone on with, whatever the size of its batches was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper
from small_nets import hand_made

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.calibration.measure import cache_key, known_statistics, measure
from s2mlp_deploy.calibration.observe import Statistics
from s2mlp_deploy.data.caching import CachedBatches
from s2mlp_deploy.data.dataset import open_data
from s2mlp_deploy.precision.quantizable import observed_values, select_ops

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(40, 4, 6)).astype(np.float32)


def network() -> ir.Model:
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["y"], name="first/MatMul"),
        helper.make_node("Tanh", ["y"], ["t"], name="first/Tanh"),
        helper.make_node("MatMul", ["t", "b"], ["z"], name="second/MatMul"),
    ]
    weights = {name: RANDOM.normal(size=(6, 6)).astype(np.float32) for name in "ab"}
    return hand_made(nodes, {"x": ["n", 4, 6]}, {"z": None}, weights)


@pytest.mark.parametrize(("before", "after"), [(6, 8), (8, 6), (5, 20), (20, 5), (8, 8)])
def test_an_interrupted_run_is_gone_on_with_in_batches_of_another_size(tmp_path: Path, before: int, after: int) -> None:
    model, path, cache = network(), tmp_path / "model.onnx", tmp_path / "cache.npz"
    ir.save(model, path)
    values = observed_values(select_ops(model))
    assert [value.name for value in values] == ["x", "t"]

    def run(wanted: tuple[ir.Value, ...], batch: int, stop: int = 1000) -> Statistics:
        data = open_data(IMAGES, inputs=(TensorInfo("x", "float32", ("n", 4, 6)),), batch=batch)
        key = cache_key(path, data, None)

        def progress(_what: str, done: int, _total: int | None) -> None:
            if done >= stop:
                raise KeyboardInterrupt

        known, complete = known_statistics(wanted, cache, key, "refuse")
        if complete:
            return known
        return measure(model, wanted, data, CachedBatches(data), cache, key, known, threads=1, progress=progress)

    with pytest.raises(KeyboardInterrupt):
        run(values, before, stop=before)
    resumed = run(values[1:], after)
    assert resumed.samples == len(IMAGES)
    assert resumed.histograms["t"].total == IMAGES.size
    # Of "x" the interrupted run alone has a histogram: the cache, complete now, must not pass it on.
    assert run(values, after).histograms["x"].total == IMAGES.size
