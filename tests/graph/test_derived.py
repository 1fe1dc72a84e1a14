"""Names of parts, and what they are parts of."""

from __future__ import annotations

import numpy as np

from s2mlp_deploy.graph.derived import original, part_name, part_of


def test_a_part_is_found_by_its_name() -> None:
    matrix, kernel, bias = np.arange(12.0).reshape(2, 6), np.arange(12.0).reshape(6, 2, 1, 1), np.arange(6.0)
    originals = {"w": matrix, "k": kernel, "b": bias}
    np.testing.assert_array_equal(original(part_name("w", 1, 3), originals), matrix[:, 2:4])
    np.testing.assert_array_equal(original(part_name("k", 2, 3), originals), kernel[4:])
    np.testing.assert_array_equal(original(part_name("b", 0, 2), originals), bias[:3])
    assert original("w", originals) is matrix


def test_names_that_are_none_of_parts_have_no_original() -> None:
    originals = {"b": np.arange(6.0), "n": np.asarray(1.0)}
    for name in ("b.part3of3", "b.part0of4", "c.part0of3", "b.part0of3_1", "n.part0of2", "b.part0of0", "part"):
        assert original(name, originals) is None


def test_suffixes_of_types_are_no_part_of_the_name() -> None:
    assert part_of("expand.weight_t.part2of3.quantized") == ("expand.weight_t", 2, 3)
    assert part_of("expand.weight_t") is None
