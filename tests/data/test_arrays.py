"""Samples in the rows of arrays."""

from __future__ import annotations

import io
import os
import time
import tracemalloc
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from s2mlp_deploy.data import arrays
from s2mlp_deploy.data.archive import check_members
from s2mlp_deploy.data.arrays import open_arrays
from s2mlp_deploy.data.collect import collect
from s2mlp_deploy.errors import DataError


def rows(path: Path, **options: object) -> list[dict[str, np.ndarray]]:
    return [dict(sample.source) for sample in collect(path, **options)]  # type: ignore[arg-type]


def test_a_row_is_a_sample(tmp_path: Path) -> None:
    array = np.random.default_rng(0).standard_normal((7, 3, 2)).astype(np.float32)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "b.npz", array)
    np.savez_compressed(tmp_path / "c.npz", x=array)
    for name in ("a.npy", "b.npz", "c.npz"):
        found = [next(iter(row.values())) for row in rows(tmp_path / name)]
        np.testing.assert_array_equal(np.stack(found), array)
        collection = collect(tmp_path / name)
        assert len(collection) == 7
        assert not collection.labelled


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_names_are_inputs_and_labels_are_labels(tmp_path: Path, save: object) -> None:
    left, right = np.arange(12.0).reshape(6, 2), np.arange(6, dtype=np.int64)
    save(tmp_path / "a.npz", left=left, right=right, labels=[0, 1, 2, 0, -1, 2])  # type: ignore[operator]
    collection = collect(tmp_path / "a.npz")
    assert [sample.label for sample in collection] == [0, 1, 2, 0, None, 2]
    for index, row in enumerate(rows(tmp_path / "a.npz")):
        assert list(row) == ["left", "right"]
        np.testing.assert_array_equal(row["left"], left[index])
        assert row["right"] == index


def test_samples_are_drawn_by_class_and_seed(tmp_path: Path) -> None:
    labels = np.array([0] * 20 + [1] * 5)
    np.savez(tmp_path / "a.npz", x=np.arange(25.0)[:, None], labels=labels)
    one, other = (collect(tmp_path / "a.npz", limit=8, seed=seed) for seed in (1, 2))
    assert Counter(sample.label for sample in one) == {0: 4, 1: 4}
    drawn = [sample.source["x"][0] for sample in one]  # type: ignore[index,call-overload]
    assert drawn == sorted(drawn) != [sample.source["x"][0] for sample in other]  # type: ignore[index,call-overload]


def test_only_a_row_at_a_time_is_in_memory(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((100, 100_000), np.float32))  # 40 MB
    tracemalloc.start()
    assert sum(1 for _ in collect(tmp_path / "a.npy")) == 100
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()


def test_an_npz_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "MAX_NPZ", 2**20)
    np.savez_compressed(tmp_path / "b.npz", x=np.zeros((100, 100_000), np.float32))
    with pytest.raises(DataError, match="more than 0 GiB of memory") as caught:
        collect(tmp_path / "b.npz")
    assert ".npy" in str(caught.value.fix)


def test_an_array_in_column_order_is_read_like_any_other(tmp_path: Path) -> None:
    array = np.arange(12.0).reshape(4, 3)
    np.save(tmp_path / "a.npy", np.asfortranarray(array))
    np.testing.assert_array_equal(np.stack([row[""] for row in rows(tmp_path / "a.npy")]), array)


class TestRefused:
    def test_python_objects(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.array([{}, []], object), allow_pickle=True)
        with pytest.raises(DataError, match="object"):
            collect(tmp_path / "a.npy")

    def test_text(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.array(["a", "b"]))
        with pytest.raises(DataError, match="holds <U1"):
            collect(tmp_path / "a.npy")

    def test_lengths_that_differ(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", x=np.zeros((3, 2)), labels=[0, 1])
        with pytest.raises(DataError, match="x 3 and labels 2"):
            collect(tmp_path / "a.npz")

    @pytest.mark.parametrize("array", [np.zeros((0, 3)), np.float32(1)])
    def test_nothing_in_it(self, tmp_path: Path, array: np.ndarray) -> None:
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(DataError, match="no sample"):
            collect(tmp_path / "a.npy")

    @pytest.mark.parametrize("labels", [[0, 1, 3], [0, 1, -2]])
    def test_a_label_that_is_no_class(self, tmp_path: Path, labels: list[int]) -> None:
        np.savez(tmp_path / "a.npz", x=np.zeros((3, 2)), labels=labels)
        with pytest.raises(DataError, match=f"label {labels[2]} is no class") as caught:
            collect(tmp_path / "a.npz", classes=["a", "b", "c"])
        assert "from 0 to 2" in str(caught.value.fix)

    @pytest.mark.parametrize("labels", [np.zeros((3, 10), np.int64), np.zeros(3)])
    def test_labels_that_are_no_indices(self, tmp_path: Path, labels: np.ndarray) -> None:
        np.savez(tmp_path / "a.npz", x=np.zeros((3, 2)), labels=labels)
        with pytest.raises(DataError, match="index of its class"):
            collect(tmp_path / "a.npz")

    def test_damage(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.zeros((30, 20)))
        np.savez(tmp_path / "b.npz", x=np.zeros((30, 20)))
        for name in ("a.npy", "b.npz"):
            path = tmp_path / name
            whole = path.read_bytes()
            for damaged in (b"", whole[:40], b"text" * 30):
                path.write_bytes(damaged)
                with pytest.raises(DataError, match="cannot be read"):
                    collect(path)
        (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes() + b"x")

    def test_a_file_that_ends_early(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.zeros((30, 20)))
        (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-200])
        with pytest.raises(DataError, match="cannot be read"):
            list(collect(tmp_path / "a.npy"))

    def test_a_header_that_claims_terabytes(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive, archive.open("x.npy", "w") as stream:
            header = {"descr": "<f4", "fortran_order": False, "shape": (1, 2**40)}
            np.lib.format.write_array_header_1_0(stream, header)
        with pytest.raises(DataError, match="cannot be read"):
            collect(tmp_path / "a.npz")


CLAIMS = {
    "rows without elements": (10**12, 0),
    "rows of a byte": (10**12,),
    "two million and one": (2_000_001, 0),
}


@pytest.mark.parametrize("kind", CLAIMS)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_header_that_claims_more_rows_than_anybody_has_is_refused_at_once(tmp_path, kind, suffix):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": CLAIMS[kind]})
    path = tmp_path / f"x{suffix}"
    if suffix == ".npy":
        path.write_bytes(header.getvalue())
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("input.npy", header.getvalue())
    start = time.process_time()
    with pytest.raises(DataError):
        open_arrays(path, classes=None, limit=16, seed=0)
    assert time.process_time() - start < 2


def test_more_labels_than_anybody_has_are_refused_before_they_become_a_list(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, input=np.zeros((3_000_000, 0), np.uint8), labels=np.zeros(3_000_000, np.int8))
    with pytest.raises(DataError, match="3,000,000 samples"):
        open_arrays(path, classes=None, limit=16, seed=0)


def test_members_that_lie_on_top_of_each_other_are_refused(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, **{f"arr{index}": np.zeros((4, 1000), np.uint8) for index in range(3)})
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
    infos *= 5000
    with pytest.raises(DataError, match="overlap"):
        check_members(path, infos)
    check_members(path, infos[:3])


def test_a_pipe_is_no_array(tmp_path):
    os.mkfifo(tmp_path / "x.npy")
    with pytest.raises(DataError, match="no regular file"):
        open_arrays(tmp_path / "x.npy", classes=None, limit=None, seed=0)


@pytest.mark.parametrize(
    "header",
    [
        "(" * 300,
        "{'descr': (",
        "{'descr': (), 'fortran_order': False, 'shape': (1,), }",
        "\n  {'descr'\n :",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 2), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000000000000000, 2), }",
        "{'descr': ['<f4'], 'fortran_order': False, 'shape': (1,), }",
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_header_that_is_no_description_of_an_array_is_refused(tmp_path: Path, header: str, suffix: str) -> None:
    text = header.encode() + b"\n"
    data = b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + bytes(64)
    path = tmp_path / f"x{suffix}"
    if suffix == ".npz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", data)
    else:
        path.write_bytes(data)
    with pytest.raises(DataError):
        collect(path)


def test_what_is_no_array_in_an_archive_or_in_its_place_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 2)))
    (tmp_path / "b.npy").write_bytes((tmp_path / "a.npz").read_bytes())
    with zipfile.ZipFile(tmp_path / "c.npz", "w") as archive:
        archive.writestr("notes.txt", "nothing")
    for name in ("b.npy", "c.npz"):
        with pytest.raises(DataError, match=r"is no array|cannot be read"):
            collect(tmp_path / name)
