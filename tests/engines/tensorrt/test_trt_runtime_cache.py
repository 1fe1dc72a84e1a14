"""Files of kernels that are none. What is kept and found again: ``test_trt_runtime.py``."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from s2mlp_deploy.engines.sidecar import runtime_cache_of
from s2mlp_deploy.engines.tensorrt import timing_cache
from s2mlp_deploy.engines.tensorrt.runtime_cache import RuntimeCache
from s2mlp_deploy.errors import ArtifactError


class Library:
    """Has no kernels."""

    def create_runtime_cache(self):
        return self

    def set_runtime_cache(self, cache):
        assert cache is self


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_the_place_of_a_cache_is_not_waited_for(tmp_path, caplog):
    engine = tmp_path / "a.engine"
    os.mkfifo(runtime_cache_of(engine))
    RuntimeCache(Library(), engine)
    assert "no regular file" in caplog.text
    os.mkfifo(tmp_path / "timing")
    with pytest.raises(ArtifactError, match="no regular file"):
        timing_cache.load_into(SimpleNamespace(create_timing_cache=bytes), tmp_path / "timing")
