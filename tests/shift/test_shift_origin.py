"""The origin of a shift as the one text that travels through torch and ONNX."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2mlp_deploy.shift.origin import Origin


@given(st.builds(Origin, st.text(), st.text(), st.text(), st.text(), st.integers(0, 99)))
def test_text_and_back(origin: Origin) -> None:
    text = origin.to_text()
    assert "\n" not in text
    assert Origin.from_text(text) == origin


def test_no_text_is_an_origin_of_which_nothing_is_known() -> None:
    assert Origin.from_text("") == Origin()


@pytest.mark.parametrize("text", ["net.py:7", "[1]", '{"place": "net.py"}', '{"sizes": "4"}', "3"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not the origin of a shift"):
        Origin.from_text(text)
