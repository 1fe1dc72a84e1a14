"""Which output is the classifier, and what is told of the others."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.serving.outputs import best_classes, find_scores, probabilities_of, summary_of


def info(name, *shape, dtype="float32"):
    return TensorInfo(name, dtype, ("batch", *shape))


LOGITS, EMBEDDING, HEAT = info("logits", 10), info("embedding", 64), info("heat", 3, 8, 8)
TEN = tuple("abcdefghij")


@pytest.mark.parametrize(
    ("outputs", "classes", "found"),
    [
        ([LOGITS], None, "logits"),
        ([LOGITS], TEN, "logits"),
        ([HEAT, LOGITS], None, "logits"),
        ([info("count", 10, dtype="int64"), LOGITS], None, "logits"),
        ([info("score", 1), LOGITS], None, "logits"),
        ([info("half", 10, dtype="float16")], None, "half"),
        ([EMBEDDING, LOGITS], TEN, "logits"),
        ([info("free", "classes")], None, "free"),
        ([HEAT], TEN, None),
        ([info("score", 1)], None, None),
        ([TensorInfo("loss", "float32", ())], None, None),
    ],
)
def test_the_output_that_looks_like_scores_is_found(outputs, classes, found):
    assert find_scores(outputs, classes, None) == found


@pytest.mark.parametrize(
    ("outputs", "classes"),
    [([EMBEDDING, LOGITS], None), ([info("aux", 10), LOGITS], TEN), ([EMBEDDING, info("other", 9)], TEN)],
)
def test_between_several_nobody_guesses(outputs, classes, caplog):
    with caplog.at_level(logging.WARNING):
        assert find_scores(outputs, classes, None) is None
    assert all(item.name in caplog.text for item in outputs)
    assert "--output NAME" in caplog.text


def test_the_named_output_is_taken():
    assert find_scores([EMBEDDING, LOGITS], TEN, "embedding") == "embedding"


@pytest.mark.parametrize(
    ("wanted", "problem", "fix"),
    [
        ("logit", "no output 'logit', only heat, embedding and logits", "choose embedding or logits"),
        ("heat", "heat is float32 batchx3x8x8, which is no list of scores", "choose embedding or logits"),
    ],
)
def test_an_output_that_cannot_be_meant_is_refused(wanted, problem, fix):
    with pytest.raises(InputError) as caught:
        find_scores([HEAT, EMBEDDING, LOGITS], TEN, wanted)
    assert problem in caught.value.problem
    assert caught.value.fix == fix


def test_where_nothing_can_be_chosen_leaving_the_option_out_is_the_fix():
    with pytest.raises(InputError) as caught:
        find_scores([HEAT], TEN, "heat")
    assert caught.value.fix.startswith("leave --output out")


def test_probabilities_are_not_squashed_a_second_time():
    shares = np.float64([0.7, 0.2, 0.1])
    assert probabilities_of(shares).tolist() == shares.tolist()
    assert probabilities_of(np.log(shares)) == pytest.approx(shares)
    assert probabilities_of(np.float64([0.7, 0.2, 0.2])) != pytest.approx([0.7, 0.2, 0.2])


def test_names_are_used_only_where_there_is_one_for_each_score():
    scores = np.float64([1, 3, 2])
    assert best_classes(scores, 2, ("a", "b", "c"))[0] == ("b", "c")
    assert best_classes(scores, 2, ("a", "b"))[0] == ("1", "2")
    assert best_classes(scores, 9, None)[0] == ("1", "2", "0")


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.float32([[1, -2], [np.nan, np.inf]]), ("float32", (2, 2), -2, 1, 2)),
        (np.float16([np.nan]), ("float16", (1,), None, None, 1)),
        (np.array(7), ("int64", (), 7, 7, 0)),
        (np.array([True, False]), ("bool", (2,), 0, 1, 0)),
        (np.zeros((0, 4), np.float32), ("float32", (0, 4), None, None, 0)),
        (np.array(["cat"], object), ("text", (1,), None, None, 0)),
    ],
    ids=str,
)
def test_an_output_is_summed_up(array, expected):
    told = summary_of("name", array)
    assert (told.dtype, told.shape, told.min, told.max, told.not_finite) == expected
