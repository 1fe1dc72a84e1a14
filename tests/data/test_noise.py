"""Seeded noise in the shape of a model's inputs."""

from __future__ import annotations

import numpy as np
import pytest

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.data.noise import NoiseBatches
from s2mlp_deploy.errors import DataError

IMAGE = TensorInfo("image", "float32", ("batch", 3, 4, 4))
EXAMPLE = np.zeros((2, 3, 4, 4), np.float32)


def noise(info=IMAGE, example=EXAMPLE, samples=10, batch=4, seed=0):
    return NoiseBatches([info], [example], samples=samples, batch=batch, seed=seed)


def test_a_free_batch_takes_the_size_that_was_asked_for():
    batches = list(noise())
    assert [feeds["image"].shape for feeds, _ in batches] == [(4, 3, 4, 4)] * 3
    assert noise().count == 12
    assert all(labels is None for _, labels in batches)
    assert noise(samples=2).count == 2


@pytest.mark.parametrize("first", [2, "8*batch"])
def test_a_batch_that_is_fixed_or_tied_stays_the_examples(first):
    fixed = noise(TensorInfo("image", "float32", (first, 3, 4, 4)))
    assert {feeds["image"].shape for feeds, _ in fixed} == {EXAMPLE.shape}
    assert fixed.count == 10


def test_the_seed_decides_and_iterating_again_gives_the_same():
    once, again, other = (np.stack([f["image"] for f, _ in noise(seed=s, samples=8)]) for s in (3, 3, 4))
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)
    batches = noise()
    assert all(np.array_equal(a["image"], b["image"]) for (a, _), (b, _) in zip(batches, batches, strict=True))
    assert abs(float(once.mean())) < 0.2
    assert abs(float(once.std()) - 1) < 0.2


def test_what_is_no_float_keeps_the_examples_values():
    ids = np.array([[1, 2], [3, 4]], np.int64)
    info = TensorInfo("ids", "int64", ("batch", 2))
    ((feeds, _),) = NoiseBatches([info], [ids], samples=4, batch=4, seed=0)
    assert feeds["ids"].dtype == np.int64
    assert feeds["ids"].tolist() == [[1, 2], [3, 4], [1, 2], [3, 4]]


def test_floats_come_in_the_inputs_type():
    ((feeds, _),) = noise(TensorInfo("image", "float16", ("batch", 3, 4, 4)), samples=4)
    assert feeds["image"].dtype == np.float16


def test_more_noise_than_anybody_waits_for_is_refused() -> None:
    inputs, example = [TensorInfo("x", "float32", ("batch", 2))], [np.zeros((1, 2), np.float32)]
    with pytest.raises(DataError, match="1,000,000,000 samples of noise"):
        NoiseBatches(inputs, example, samples=10**9, batch=8, seed=0)
    assert NoiseBatches(inputs, example, samples=100_000, batch=8, seed=0).count == 100_000
