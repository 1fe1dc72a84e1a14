"""Words of messages."""

from pathlib import Path

import pytest

from s2mlp_deploy.text import command_line, first_line_of, join_names, problem_of, whole_number


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("no such axis\nbacktrace"), "no such axis"),
        (ValueError("\n  \n  indented\nmore"), "indented"),
        (ValueError(), "ValueError"),
        (MemoryError("\n\n"), "MemoryError"),
    ],
)
def test_the_first_line_that_says_something(error, line):
    assert first_line_of(error) == line


def test_names_in_a_sentence():
    assert join_names([]) == ""
    assert join_names(["a"]) == "a"
    assert join_names(iter("ab")) == "a and b"
    assert join_names("abc", last="or") == "a, b or c"
    assert join_names("abc", limit=3) == "a, b and c"
    assert join_names("abcde", limit=3) == "a, b, c and 2 more"
    assert join_names(["a (1, 2)", "b (3,)", "c"], separator="; ") == "a (1, 2); b (3,) and c"
    assert join_names(range(20), limit=None).endswith("17, 18 and 19")


@pytest.mark.parametrize("text", ["", "-1", " 1", "1_0", "\u00b2", "\u0663", "9" * 19, "9" * 5000])
def test_what_is_no_whole_number_is_none(text):
    assert whole_number(text) is None
    assert whole_number("007") == 7


def test_a_command_is_one_that_a_shell_takes():
    assert command_line("bench", Path("an artifact"), "--batch", 8) == "s2mlp-deploy bench 'an artifact' --batch 8"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(2, "No such file or directory", "a.json"), "No such file or directory"),
        (OSError("odd"), "odd"),
        (ValueError("first\nsecond"), "first"),
    ],
)
def test_what_went_wrong_in_one_line(error, said):
    assert problem_of(error) == said
