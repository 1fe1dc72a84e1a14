"""Tables fit the terminal without breaking a word, and a pipe without breaking anything."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from s2mlp_deploy.report.tables import print_pairs, print_table

COLUMNS = ("File", "Precision", "What it is")
ROWS = [
    ("model.int8-trt.onnx", "int8-trt", "Q/DQ placed for TensorRT, over float16, calibrated on 64 samples of pictures"),
    ("model.fp32.onnx", "fp32", "the float32 graph"),
]


def printed(width: int, rows=ROWS) -> list[str]:
    stream = io.StringIO()
    print_table(Console(file=stream, width=width), None, COLUMNS, rows)
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("width", [200, 80, 60, 44])
def test_a_table_keeps_to_the_width_and_breaks_only_between_words(width):
    lines = printed(width)
    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    for row in ROWS:
        assert all(word in words for value in row for word in value.split())
    assert lines[0].split() == ["File", "Precision", "What", "it", "is"]


def test_where_words_do_not_fit_beside_one_another_they_stand_below():
    width = 36
    lines = printed(width)
    assert lines[0] == "File: model.int8-trt.onnx"
    assert lines[1].split() == ["Precision", "int8-trt"]
    assert max(map(len, lines)) <= width
    assert "File: model.fp32.onnx" in lines


def test_a_word_that_is_longer_than_the_terminal_is_printed_whole():
    name = "x" * 100
    assert any(name in line for line in printed(60, [(name, "fp32", "")]))


def test_a_value_stands_below_its_name_only_where_a_word_does_not_fit_beside_it():
    stream = io.StringIO()
    path = f"out/{'x' * 30}.onnx"
    print_pairs(Console(file=stream, width=40), [("file", path), ("size", "9 MB"), ("why", "it is the fastest " * 3)])
    assert stream.getvalue().splitlines() == [
        "  file",
        f"    {path}",
        "  size  9 MB",
        "  why   it is the fastest it is the",
        "        fastest it is the fastest",
        "",
    ]


def test_no_line_ends_in_spaces():
    stream = io.StringIO()
    console = Console(file=stream, width=80)
    print_table(console, "Title", COLUMNS, ROWS)
    print_pairs(console, [("a", "short"), ("b", "a longer value")])
    lines = stream.getvalue().splitlines()
    assert [line for line in lines if line != line.rstrip()] == []
