"""Which output of a network is scored."""

from __future__ import annotations

import pytest
from report_samples import manifest

from s2mlp_deploy.artifact import Manifest, TensorInfo
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.precision.options import PrecisionOptions
from s2mlp_deploy.precision.scoring import scored_output


def outputs(*shapes: tuple[str, tuple[int | str, ...]], dtype: str = "float32", **changes: object) -> Manifest:
    infos = tuple(TensorInfo(name, dtype, ("batch", *shape)) for name, shape in shapes)
    return manifest(outputs=infos, **({"classes": None} | changes))


MAPS, FIVE, TWO, ONE = ("maps", (8, 4, 4)), ("five", (5,)), ("two", (2,)), ("one", (1,))


def scored(of: Manifest, **options: object) -> str | None:
    found = scored_output(of, PrecisionOptions(**options))  # type: ignore[arg-type]
    return found.name if found is not None else None


def test_the_first_list_of_scores_goes_first() -> None:
    assert scored(outputs(MAPS, ONE, FIVE, TWO)) == "five"
    assert scored(outputs(MAPS, ONE)) is None
    assert scored(outputs(FIVE, dtype="int64")) is None
    assert scored(outputs(("free", ("classes",)))) == "free"


def test_as_many_scores_as_class_names_go_before_others() -> None:
    assert scored(outputs(FIVE, TWO, classes=("a", "b"))) == "two"
    assert scored(outputs(FIVE, TWO, classes=("a", "b", "c"))) == "five"


def test_the_users_choice_goes_before_all() -> None:
    assert scored(outputs(MAPS, FIVE), score_output="maps") == "maps"
    assert scored(outputs(MAPS, FIVE), metric=lambda engine: 1.0) is None
    with pytest.raises(InputError, match="no output 'scores'") as caught:
        scored(outputs(MAPS, FIVE), score_output="scores")
    assert caught.value.fix == "choose maps or five"
