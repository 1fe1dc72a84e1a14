"""A user's own score of outputs, loaded from their file."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from s2mlp_deploy import api
from s2mlp_deploy.errors import SourceError

METRIC = """
import helper_of_metric

def right(outputs, labels):
    import helper_of_metric  # Found while it runs, too.
    return helper_of_metric.FULL * (outputs.argmax(1) == labels).mean()

def fails(outputs, labels):
    raise ValueError("no boxes here")

def nothing(outputs, labels):
    return float("nan")

def text(outputs, labels):
    return "good"

constant = 5
"""


@pytest.fixture
def place(tmp_path: Path) -> str:
    (tmp_path / "my_metric.py").write_text(METRIC)
    (tmp_path / "helper_of_metric.py").write_text("FULL = 100")
    return str(tmp_path / "my_metric.py")


def test_a_function_of_a_file_scores_outputs_and_leaves_the_path_as_it_was(place: str) -> None:
    before = list(sys.path)
    metric = api.load_metric(f"{place}:right")
    assert metric.name == "right"
    assert metric.measure(np.eye(4), np.array([0, 1, 2, 0])) == 75.0
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("fails", "the metric raised ValueError: no boxes here"),
        ("nothing", "the metric returned nan"),
        ("text", "the metric raised ValueError: could not convert string to float"),
    ],
)
def test_what_fails_or_is_no_number_is_told(place: str, name: str, says: str) -> None:
    with pytest.raises(SourceError, match=says) as caught:
        api.load_metric(f"{place}:{name}").measure(np.eye(4), None)
    assert "(outputs, labels)" in caught.value.fix


@pytest.mark.parametrize(
    "reference", ["", "right", ":right", "{place}:", "{place}:missing", "{place}:constant", "no.py:f"]
)
def test_what_is_no_function_is_refused(place: str, reference: str) -> None:
    with pytest.raises(SourceError):
        api.load_metric(reference.format(place=place))
