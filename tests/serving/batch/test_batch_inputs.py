"""What a batch is made of: every kind of input, cut into chunks, each image once."""

from __future__ import annotations

import os

import numpy as np
import pytest
from photographs import photograph, write_photographs

pytest.importorskip("pyarrow")
import pyarrow as pa
import pyarrow.parquet as pq

from s2mlp_deploy.errors import DataError, InputError
from s2mlp_deploy.serving.batch import inputs
from s2mlp_deploy.serving.batch.inputs import open_input


def read(found):
    """Every image's name and the bytes behind it."""
    for chunk in found.chunks:
        images = list(chunk.images())
        assert len(images) == len(chunk)
        for image in images:
            source = image.source
            yield image.name, source if isinstance(source, bytes) else source.read_bytes()


def table(**columns):
    return pa.table(columns)


def test_a_folder_in_chunks(tmp_path):
    write_photographs(tmp_path / "in" / "more", 5)
    (tmp_path / "in" / ".hidden.png").write_bytes(b"")
    found = open_input(tmp_path / "in", column=None, size=2)
    assert (found.count, [len(chunk) for chunk in found.chunks]) == (5, [2, 2, 1])
    assert [chunk.first for chunk in found.chunks] == [0, 2, 4]
    assert list(read(found)) == [(f"more/{index:03}.png", photograph(index)) for index in range(5)]


def test_lists_and_paths_and_a_single_image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_photographs(tmp_path / "in", 3)
    (tmp_path / "list.txt").write_text("in/002.png\n\n  in/000.png\n")
    for source in ("list.txt", ["in/002.png", tmp_path / "in" / "000.png"]):
        assert [content for _, content in read(open_input(source, column=None, size=5))] == [
            photograph(2),
            photograph(0),
        ]
    assert list(read(open_input("in/001.png", column=None, size=5))) == [("001.png", photograph(1))]


@pytest.mark.parametrize("kind", ["binary", "struct", "paths"])
def test_parquet_with_row_groups_and_files(tmp_path, kind):
    write_photographs(tmp_path / "in", 7)
    content = [photograph(index) for index in range(7)]
    names = [f"../in/{index:03}.png" for index in range(7)]
    columns = {
        "binary": pa.array(content, pa.binary()),
        "struct": pa.array([{"bytes": c, "path": n} for c, n in zip(content, names, strict=True)]),
        "paths": pa.array(names),
    }
    (tmp_path / "set" / "_private").mkdir(parents=True)
    (tmp_path / "set" / "_private" / "x.parquet").write_bytes(b"no parquet")
    whole = table(label=pa.array(range(7)), image=columns[kind])
    pq.write_table(whole.slice(0, 5), tmp_path / "set" / "a.parquet", row_group_size=3)
    pq.write_table(whole.slice(5), tmp_path / "set" / "b.parquet")
    found = open_input(tmp_path / "set", column=None, size=2)
    assert [len(chunk) for chunk in found.chunks] == [2, 1, 2, 2]
    assert [chunk.first for chunk in found.chunks] == [0, 2, 3, 5]
    read_names, read_content = zip(*read(found), strict=True)
    assert list(read_content) == content
    own = [f"a.parquet#{row}" for row in range(5)] + [f"b.parquet#{row}" for row in range(2)]
    assert list(read_names) == (own if kind == "binary" else names)


def test_a_row_without_an_image_is_one_that_cannot_be_used(tmp_path):
    pq.write_table(table(image=pa.array([None, b"x"], pa.binary())), tmp_path / "a.parquet")
    assert [content for _, content in read(open_input(tmp_path / "a.parquet", column=None, size=9))] == [b"", b"x"]


def test_a_column_is_chosen(tmp_path):
    both = table(left=pa.array([b"l"], pa.binary()), right=pa.array([b"r"], pa.binary()), n=pa.array([1]))
    pq.write_table(both, tmp_path / "a.parquet")
    assert [c for _, c in read(open_input(tmp_path / "a.parquet", column="right", size=9))] == [b"r"]
    for column, says in ((None, "several columns"), ("n", "holds no bytes"), ("m", "is not there")):
        with pytest.raises(InputError, match=says) as caught:
            open_input(tmp_path / "a.parquet", column=column, size=9)
        assert "left" in caught.value.fix
    pq.write_table(table(caption=pa.array(["a cat"]), path=pa.array(["cat.png"])), tmp_path / "b.parquet")
    (chunk,) = open_input(tmp_path / "b.parquet", column=None, size=9).chunks
    assert chunk.column == "path"


def nothing(_):
    pass


def both_kinds(path):
    write_photographs(path, 1)
    pq.write_table(table(image=pa.array([b"x"], pa.binary())), path / "a.parquet")


@pytest.mark.parametrize(
    ("name", "write", "says"),
    [
        ("nothing", nothing, "no such file"),
        ("a.zip", lambda path: path.write_bytes(b"PK"), "nothing to classify"),
        ("in", lambda path: path.mkdir(), "no image in the folder"),
        ("in", both_kinds, "images .* and Parquet"),
        ("a.txt", lambda path: path.write_text("\n"), "names no image"),
        ("a.txt", lambda path: path.write_bytes(b"\xff\xfe"), "cannot be read"),
        ("a.parquet", lambda path: path.write_bytes(b"no parquet"), "cannot be read"),
        ("a.parquet", lambda path: pq.write_table(table(image=pa.array([], pa.binary())), path), "no rows"),
    ],
)
def test_what_is_no_input_is_refused(tmp_path, name, write, says):
    write(tmp_path / name)
    with pytest.raises(DataError, match=says) as caught:
        open_input(tmp_path / name, column=None, size=2)
    assert caught.value.fix


def test_a_column_of_no_table_is_refused(tmp_path):
    with pytest.raises(InputError, match="there are none"):
        open_input(write_photographs(tmp_path / "in", 1), column="image", size=2)


def test_other_images_have_another_hash(tmp_path):
    first = open_input(write_photographs(tmp_path / "in", 2), column=None, size=2).sha256
    assert open_input(tmp_path / "in", column=None, size=1).sha256 == first
    assert open_input(write_photographs(tmp_path / "in", 3), column=None, size=2).sha256 != first


def test_texts_that_are_not_utf8_are_damage(tmp_path):
    paths = pa.StringArray.from_buffers(2, pa.py_buffer(np.int32([0, 1, 2])), pa.py_buffer(b"a\xff"))
    pq.write_table(pa.table({"path": paths}), tmp_path / "a.parquet")
    (chunk,) = open_input(tmp_path / "a.parquet", column=None, size=2).chunks
    with pytest.raises(DataError, match="cannot be read"):
        list(chunk.images())


def test_more_rows_than_can_be_classified_are_refused_before_they_are_counted(tmp_path, monkeypatch):
    pq.write_table(table(path=["a.png", "b.png", "c.png"]), tmp_path / "a.parquet")
    monkeypatch.setattr(inputs, "MAX_IMAGES", 2)
    with pytest.raises(DataError, match="says that it has 3 rows, and at most 2"):
        open_input(tmp_path / "a.parquet", column=None, size=2)


def test_a_pipe_named_like_a_list_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "photos.txt")
    with pytest.raises(DataError, match="no regular file"):
        open_input(tmp_path / "photos.txt", column=None, size=2)
