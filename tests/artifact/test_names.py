"""The served name."""

from __future__ import annotations

import pytest

from s2mlp_deploy.artifact import check_served_name
from s2mlp_deploy.errors import InputError


@pytest.mark.parametrize("name", ["a", "resnet-50.v2_int8", "7", "x" * 128])
def test_names_that_are_one_part_of_a_path_are_taken(name):
    assert check_served_name(name) == name


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("", "model"),
        ("my model", "my-model"),
        ("a/b", "a-b"),
        ("..", "model"),
        (".hidden", "hidden"),
        ("é", "model"),
        ("a\n", "a"),
        ("x" * 200, "x" * 128),
    ],
)
def test_others_are_refused_with_one_that_is_taken(name, better):
    with pytest.raises(InputError) as raised:
        check_served_name(name)
    assert str(raised.value.fix).endswith(f"--name {better}")
    assert check_served_name(better)
