"""Names of engines: which there are, and which can be meant where."""

from __future__ import annotations

import pytest

from s2mlp_deploy.engines.registry import ENGINES, OF_FILES, OF_GRAPHS, check_engine, check_threads
from s2mlp_deploy.errors import InputError, TargetError


@pytest.mark.parametrize(
    ("engine", "among", "says"),
    [
        ("tensorrt-rtx", OF_GRAPHS, "tensorrt-rtx runs no ONNX files, only what `build` makes of them"),
        ("tensorrt", OF_GRAPHS, "tensorrt runs no ONNX files, only what `build` makes of them"),
        ("torch", OF_GRAPHS, "torch runs no files"),
        ("torch", OF_FILES, "torch runs no files"),
        ("warp", OF_FILES, "there is no engine 'warp'"),
        ("tensorrt:0", OF_FILES, "there is no engine 'tensorrt:0'"),
    ],
)
def test_an_engine_that_doctor_lists_is_not_called_missing(engine, among, says):
    with pytest.raises(TargetError) as caught:
        check_engine(engine, among)
    assert caught.value.problem == says
    assert "onnxruntime" in caught.value.fix


def test_every_engine_can_be_meant_where_it_is_listed():
    for engine in OF_FILES:
        check_engine(engine)
    assert set(OF_GRAPHS) < set(OF_FILES) < set(ENGINES)


def test_no_engine_gets_so_many_threads_and_the_fix_is_one_that_is_taken():
    check_threads(0)
    with pytest.raises(InputError) as caught:
        check_threads(5000)
    assert caught.value.fix.endswith("; 0 lets the engine choose")
    with pytest.raises(InputError) as caught:
        check_threads(5000, least=1)
    assert caught.value.fix.endswith("from 1 to 4096"), "where 0 is refused too"
