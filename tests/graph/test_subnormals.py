"""Numbers below the smallest normal one: counted where they are slow, and flushed without touching what is shared."""

from __future__ import annotations

import numpy as np
import onnx_graphs as og
import onnx_ir as ir
import pytest
from onnx_graphs import FLOAT, HALF, constant, node, value

from s2mlp_deploy.graph.subnormals import count_subnormals, flush_weights, flushed, in_words, subnormal_weights
from s2mlp_deploy.parity.constants import compare_constants

TINY = np.finfo(np.float32).tiny


def planted() -> ir.Model:
    made = og.model(
        [node("Mul", ["x", "w"], ["h"]), node("Cast", ["small"], ["s"], to=FLOAT), node("Mul", ["h", "s"], ["y"])],
        [value("x", FLOAT, ["batch", 4])],
        [value("y", FLOAT, ["batch", 4])],
        # Subnormal in float16, and a normal number where it is computed.
        [constant("w", [1e-39, -1e-40, TINY, 0.0], "float32"), constant("small", [1e-7] * 4, "float16")],
    )
    assert made.graph.initializer[1].data_type == HALF
    return ir.from_proto(made)


def test_zero_and_the_smallest_normal_number_are_none():
    array = np.array([0.0, -0.0, TINY, -TINY, TINY / 2, -1e-45, 1.0, np.nan, np.inf], np.float32)
    assert count_subnormals(array) == 2
    np.testing.assert_array_equal(flushed(array), np.array([0, 0, TINY, -TINY, 0, 0, 1, np.nan, np.inf], np.float32))
    assert count_subnormals(np.array([1e-39, 1e-310])) == 1


def test_weights_are_found_by_name_and_float16_is_left_alone():
    assert subnormal_weights(planted()) == {"w": 2}
    assert in_words({"w": 2}) == "2 weights are subnormal: 2 of w"
    assert in_words(dict.fromkeys("abcd", 1)).endswith("1 of a, 1 of b, 1 of c and 1 more")


def test_flushing_leaves_those_who_share_the_weights_theirs():
    model = planted()
    copy = model.clone()
    assert flush_weights(copy) == {"w": 2}
    assert subnormal_weights(copy) == {}
    assert subnormal_weights(model) == {"w": 2}
    assert copy.graph.initializers["w"].const_value.numpy().tolist() == [0.0, 0.0, float(TINY), 0.0]


def test_flushed_weights_are_the_originals_for_parity_and_others_are_not():
    model = planted()
    originals = {"w": model.graph.initializers["w"].const_value.numpy()}
    flush_weights(model)
    assert compare_constants(model.graph, originals) == (1, ())
    wrong = {"w": originals["w"] + np.float32(2) * TINY}
    assert compare_constants(model.graph, wrong)[1]


def test_an_export_says_what_it_kept_and_what_it_flushed(caplog):
    pytest.importorskip("torch")
    from s2mlp_deploy.api.exporting import _tell_subnormals

    model = planted()
    _tell_subnormals(model, flush=False)
    assert "2 weights are subnormal: 2 of w; processors may compute" in caplog.text
    assert "--flush-denormals makes them 0" in caplog.text
    caplog.clear()
    _tell_subnormals(model, flush=True)
    assert "they are 0 in the files" in caplog.text
    caplog.clear()
    _tell_subnormals(model, flush=True)
    assert caplog.text == ""
