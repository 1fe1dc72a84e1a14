"""Images in archives: the same samples as unpacked, and nothing of a hostile archive takes effect."""

from __future__ import annotations

import io
import lzma
import os
import tarfile
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from image_files import pack, put
from PIL import Image

from s2mlp_deploy.data import archive as archives
from s2mlp_deploy.data.collect import collect
from s2mlp_deploy.data.samples import Collection
from s2mlp_deploy.errors import DataError, ImageError

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".TXZ")


def zipped(archive: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return archive


def image(value: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def seen(collection: Collection) -> list[tuple[str, bytes, int | None]]:
    """Names, files and labels, sorted: an archive has an order of its own."""
    found = []
    for sample in collection:
        content = sample.source.read_bytes() if isinstance(sample.source, Path) else sample.source
        assert isinstance(content, bytes)
        found.append((sample.path.relative_to(collection.root).as_posix(), content, sample.label))
    return sorted(found)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    put(root, *(f"cat/{i}.png" for i in range(9)), *(f"dog/deep/{i}.jpg" for i in range(5)), "._x.png", "notes.txt")
    return root


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("held", [0, 2**20])
def test_an_archive_is_the_folder_that_was_packed(
    folder: Path, tmp_path: Path, ending: str, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "HELD_BYTES", held)
    archive = pack(folder, tmp_path / f"data{ending}")
    for limit in (None, 6):
        expected, found = collect(folder, limit=limit, seed=3), collect(archive, limit=limit, seed=3)
        assert seen(found) == seen(expected)
        assert seen(found) == seen(found), "a second pass gives the same"
        assert found.class_names == expected.class_names == ("cat", "dog")
        assert found.labelled


def test_a_folder_in_an_archive_is_named_like_any_folder(folder: Path, tmp_path: Path) -> None:
    put(tmp_path / "all", *(f"{part}/{name}/{i}.png" for part in ("train", "test") for name in "ab" for i in range(2)))
    archive = pack(tmp_path / "all", tmp_path / "all.tar.xz")
    assert seen(collect(archive / "test")) == seen(collect(tmp_path / "all" / "test"))
    flat = collect(archive / "test" / "b")
    assert len(flat) == 2
    assert not flat.labelled
    with pytest.raises(DataError, match="parts of a data set") as caught:
        collect(archive)
    assert str(archive / "test") in str(caught.value.fix)
    with pytest.raises(DataError, match="no images in 'val'") as caught:
        collect(archive / "val")
    assert "test/a, test/b, train/a" in str(caught.value.fix)
    with pytest.raises(DataError, match="behind a file that is no archive"):
        collect(folder / "cat" / "0.png" / "inside")


def test_a_folder_around_everything_is_entered(tmp_path: Path) -> None:
    members = {f"set/part/{name}/{i}.png": image(i) for name in ("cat", "dog") for i in range(2)}
    found = collect(zipped(tmp_path / "a.zip", members))
    assert found.class_names == ("cat", "dog")
    assert found.root == tmp_path / "a.zip" / "set" / "part"
    flat = collect(zipped(tmp_path / "b.zip", {f"photos/{i}.png": image(i) for i in range(3)}))
    assert (len(flat), flat.labelled) == (3, False)
    # A model's class is a class, also when it is the only one there.
    one = collect(tmp_path / "b.zip", classes=["other", "photos"])
    assert [sample.label for sample in one] == [1, 1, 1]


def test_member_names_lead_nowhere_and_links_are_passed_over(tmp_path: Path) -> None:
    outside = tmp_path / "secret.png"
    outside.write_bytes(image(9))
    archive = tmp_path / "inner" / "bad.tar"
    archive.parent.mkdir()
    with tarfile.open(archive, "w") as packed:
        for name, kind in (("cat/link.png", tarfile.SYMTYPE), ("cat/hard.png", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(outside)
            packed.addfile(info)
        device = tarfile.TarInfo("cat/device.png")
        device.type = tarfile.CHRTYPE
        packed.addfile(device)
        for name in ("../../cat/up.png", "/dog/root.png"):
            info = tarfile.TarInfo(name)
            info.size = len(image())
            packed.addfile(info, io.BytesIO(image()))
    before = sorted(tmp_path.rglob("*"))
    assert [name for name, _, _ in seen(collect(archive))] == ["cat/up.png", "dog/root.png"]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("ending", [".zip", ".tar.xz"])
def test_a_bomb_is_one_broken_image(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBER", 2**20)
    source = tmp_path / "source"
    put(source, "a.png", "c.png")
    with (source / "b.png").open("wb") as stream:
        stream.truncate(100 * 2**20)
    archive = pack(source, tmp_path / f"bomb{ending}")
    assert archive.stat().st_size < 200_000
    tracemalloc.start()
    contents = [sample.source for sample in collect(archive)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [type(content) for content in contents] == [bytes, ImageError, bytes]
    assert "unpacks to more than 1 MiB" in str(contents[1])
    assert peak < 20 * 2**20  # of which xz takes 8


def test_a_giant_tar_header_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 200 * 2**20
    with lzma.open(tmp_path / "bad.tar.xz", "wb") as stream:
        stream.write(info.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(200):
            stream.write(bytes(2**20))
    tracemalloc.start()
    with pytest.raises(DataError, match="cannot be read: a header of 209715200 bytes"):
        collect(tmp_path / "bad.tar.xz")
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("ending", [".zip", ".tar.gz", ".tar.xz", ".tar"])
def test_damaged_archives_are_refused(folder: Path, tmp_path: Path, ending: str) -> None:
    archive = pack(folder, tmp_path / f"data{ending}")
    whole = archive.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"no archive at all" * 100):
        archive.write_bytes(damaged)
        with pytest.raises(DataError, match=r"cannot be read|no image"):
            collect(archive)


def test_one_damaged_member_of_a_zip_is_one_broken_image(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {f"{i}.png": os.urandom(500) for i in range(4)})
    data = bytearray(archive.read_bytes())
    data[data.index(b"1.png") + 100] ^= 0xFF
    archive.write_bytes(data)
    contents = [sample.source for sample in collect(archive)]
    assert [type(content) for content in contents] == [bytes, ImageError, bytes, bytes]
    assert "cannot be unpacked" in str(contents[1])


def test_an_encrypted_zip_names_the_fix(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"a.png": image()})
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    with pytest.raises(DataError, match="without a password"):
        collect(archive)


def test_what_is_held_needs_the_archive_no_more(folder: Path, tmp_path: Path) -> None:
    archive = pack(folder, tmp_path / "data.tar.xz")
    found = collect(archive, limit=4)
    archive.unlink()
    assert len(seen(found)) == 4


def test_memory_does_not_grow_with_an_archive_that_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "HELD_BYTES", 0)
    peaks = []
    for count in (10, 100):
        with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as packed:
            for index in range(count):
                info = tarfile.TarInfo(f"{index}.png")
                info.size = 200_000
                packed.addfile(info, io.BytesIO(bytes(200_000)))
        tracemalloc.start()
        assert sum(1 for _ in collect(tmp_path / "a.tar.gz")) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 500_000  # 90 more files would be 18 MB


@pytest.mark.data
def test_the_cifar_archive(data_dir: Path) -> None:
    archive = data_dir / "cifar10_jpeg.tar.xz"
    found = collect(archive / "test", limit=20)
    assert found.class_names is not None
    assert len(found.class_names) == 10
    assert sorted(sample.label for sample in found if sample.label is not None) == [i // 2 for i in range(20)]
    assert all(isinstance(sample.source, bytes) and sample.source[:2] == b"\xff\xd8" for sample in found)


def test_a_member_below_thousands_of_folders_is_found_at_once(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "deep.zip", {"a/" * 32_000 + f"{name}.png": image() for name in range(40)})
    start = time.process_time()
    assert len(collect(archive)) == 40
    assert time.process_time() - start < 5


def test_a_folder_of_thousands_of_digits_is_a_name(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {f"{'9' * 5000}/a.png": image(), "0/b.png": image()})
    assert sorted(label or 0 for _, _, label in seen(collect(archive))) == [0, 1]
    with pytest.raises(DataError, match="no class of the model"):
        collect(archive, classes=("cat", "dog"))


def test_an_index_that_no_label_can_have_is_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {f"{'9' * 18}/a.png": image(), "0/b.png": image()})
    with pytest.raises(DataError, match="is no class"):
        collect(archive)


def test_a_member_without_a_name_is_passed_over(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr(zipfile.ZipInfo(""), image())
        packed.writestr("a.png", image())
    assert len(collect(archive)) == 1
