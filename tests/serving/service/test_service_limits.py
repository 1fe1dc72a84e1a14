"""Bounds of bodies."""

from __future__ import annotations

import gzip
import math
import zlib

import pytest

from s2mlp_deploy.errors import InputError
from s2mlp_deploy.serving.service.failures import RequestError
from s2mlp_deploy.serving.service.limits import BodyBudget, decompress
from s2mlp_deploy.serving.service.options import EngineOptions, ServeOptions, ServiceLimits


@pytest.mark.parametrize(("pack", "encoding"), [(gzip.compress, "gzip"), (zlib.compress, "deflate")])
def test_compressed_bodies_are_read_within_the_limit(pack, encoding):
    assert decompress(pack(b"x" * 1000), encoding, 1000) == b"x" * 1000
    with pytest.raises(RequestError) as caught:
        decompress(pack(b"x" * 1001), encoding, 1000)
    assert caught.value.status == 413
    # A thousand times smaller than what it would become.
    with pytest.raises(RequestError) as caught:
        decompress(pack(bytes(50_000_000)), encoding, 1000)
    assert caught.value.status == 413


@pytest.mark.parametrize("damage", [lambda data: data[:-4], lambda data: data + b"x", lambda data: b"no" + data])
def test_damaged_ones_are_told(damage):
    with pytest.raises(RequestError) as caught:
        decompress(damage(gzip.compress(b"body")), "gzip", 1000)
    assert caught.value.status == 400


def test_other_encodings_are_told():
    with pytest.raises(RequestError) as caught:
        decompress(b"", "br", 10)
    assert caught.value.status == 415


def test_all_bodies_together_have_a_bound():
    budget = BodyBudget(10)
    budget.take(6)
    with pytest.raises(RequestError) as caught:
        budget.take(5)
    assert (caught.value.status, caught.value.retry_after) == (503, 1)
    budget.give(6)
    budget.take(10)


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        *[(ServiceLimits, {"max_batch": number}) for number in (0, 10**30)],
        *[(ServiceLimits, {"timeout": seconds}) for seconds in (0, -1, math.nan, math.inf)],
        (ServiceLimits, {"drain": math.inf}),
        (ServiceLimits, {"max_delay": -1}),
        (ServiceLimits, {"max_delay": math.nan}),
        (ServiceLimits, {"max_body": 10**30}),
        (ServiceLimits, {"max_pixels": 10**12}),
        (ServeOptions, {"reload_every": math.nan}),
        (EngineOptions, {"instances": 10**6}),
        (EngineOptions, {"max_instances": 0}),
    ],
)
def test_bounds_that_bound_nothing_are_refused(options, wrong):
    with pytest.raises(InputError) as caught:
        options(**wrong)
    assert caught.value.fix
