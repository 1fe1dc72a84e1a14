"""The text format, read back with the library of protocol buffers."""

from __future__ import annotations

import pytest

from s2mlp_deploy.serving.package.protobuf_text import Name, text_of


def test_fields_messages_and_repeats():
    message = {
        "name": "a",
        "size": 3,
        "on": True,
        "kind": Name("KIND_CPU"),
        "dims": [1, -1],
        "inner": [{"key": "b"}, {}],
    }
    text = 'name: "a" size: 3 on: true kind: KIND_CPU dims: 1 dims: -1 inner { key: "b" } inner { }'
    assert text_of(message).split() == text.split()


@pytest.mark.parametrize("text", ['a"b\\c', "zeile\nzwei", "grün", "\x00\x7f", ""])
def test_strings_come_back_as_they_were(text):
    struct = pytest.importorskip("google.protobuf.struct_pb2")
    text_format = pytest.importorskip("google.protobuf.text_format")
    value = text_format.Parse(text_of({"string_value": text}), struct.Value())
    assert value.string_value == text
