"""Images in a tar or zip archive, read where they lie: nothing is ever written to disk.

A member's name is only ever text to find its class in, so a name like ``../../etc/passwd`` leads nowhere, and links
and devices are passed over. No member is read beyond ``MAX_MEMBER`` bytes, so one that unpacks to terabytes is a
broken image and not a full memory.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from s2mlp_deploy.data.layout import Listing, arrange, is_hidden, is_image
from s2mlp_deploy.data.samples import Content, Sample
from s2mlp_deploy.errors import DataError, ImageError
from s2mlp_deploy.progress import ProgressCallback, no_progress
from s2mlp_deploy.text import join_names

MAX_MEMBER = 64 * 2**20
"""Most bytes of one image file in an archive."""

HELD_BYTES = 64 * 2**20
"""Up to so many bytes of drawn, still encoded images are held in memory where an archive can only be read from its
beginning: otherwise each pass would unpack all of it again."""

_PACKED: dict[str, Any] = {
    ".tar": io,
    ".tar.gz": gzip,
    ".tgz": gzip,
    ".tar.bz2": bz2,
    ".tbz2": bz2,
    ".tar.xz": lzma,
    ".txz": lzma,
}
ARCHIVE_EXTENSIONS = (".zip", *_PACKED)
"""File name endings that are taken for archives, in any case."""

_PROGRESS_EVERY = 1000
# What the standard library's readers raise on damaged or hostile bytes.
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
)


def is_archive(name: str) -> bool:
    """Whether a file is named like an archive."""
    return name.lower().endswith(ARCHIVE_EXTENSIONS)


@dataclass(frozen=True)
class _Member:
    """A file in an archive: its name, its unpacked size, and where a reader finds it."""

    name: str
    size: int
    place: int


def check_members(path: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse a zip archive whose members lie on top of each other: a few bytes then unpack to anything.

    Raises:
        DataError: They take more bytes than the file has.
    """
    packed, there = sum(member.compress_size for member in members), path.stat().st_size
    if packed > there:
        raise DataError(
            f"The archive's {len(members)} members take {packed:,} bytes of a file of {there:,}: they overlap",
            where=str(path),
            fix="pack the files again; if you did not pack them, distrust this archive",
        )


class _Reader(Protocol):
    """One kind of archive.

    Attributes:
        path: The archive.
        sequential: Whether it can only be read from its beginning.
    """

    path: Path
    sequential: bool

    def members(self) -> Iterator[_Member]:
        """List the regular files, in the archive's order."""

    def read(self, members: Sequence[_Member]) -> Iterator[bytes]:
        """Unpack members, which are in the archive's order."""


class _TarReader:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._module = next(module for ending, module in _PACKED.items() if path.name.lower().endswith(ending))
        self.sequential = self._module is not io

    def _open(self) -> IO[bytes]:
        stream: IO[bytes] = self._module.open(self.path, "rb")
        return stream

    def members(self) -> Iterator[_Member]:
        with self._open() as stream, tarfile.open(fileobj=_Bounded(stream), mode="r:") as tar:
            while (info := tar.next()) is not None:
                # The reader keeps every header; of a large archive they would fill the memory.
                tar.members.clear()  # type: ignore[attr-defined]
                if info.isreg() and not info.issparse():
                    yield _Member(info.name, info.size, info.offset_data)

    def read(self, members: Sequence[_Member]) -> Iterator[bytes]:
        with self._open() as stream:
            for member in members:
                stream.seek(member.place)  # of a packed stream this unpacks and forgets what lies between
                yield stream.read(min(member.size, MAX_MEMBER + 1))


class _ZipReader:
    sequential = False

    def __init__(self, path: Path) -> None:
        self.path = path

    def members(self) -> Iterator[_Member]:
        with zipfile.ZipFile(self.path) as archive:
            check_members(self.path, archive.infolist())
            for place, info in enumerate(archive.infolist()):
                if info.flag_bits & 1:
                    raise DataError(
                        "The archive is encrypted", where=str(self.path), fix="pack the images without a password"
                    )
                if info.filename and not info.is_dir():
                    yield _Member(info.filename, info.file_size, place)

    def read(self, members: Sequence[_Member]) -> Iterator[bytes]:
        with zipfile.ZipFile(self.path) as archive:
            infos = archive.infolist()
            for member in members:
                with archive.open(infos[member.place]) as stream:
                    yield stream.read(MAX_MEMBER + 1)


class _Bounded(io.RawIOBase):
    """A stream that refuses giant reads: a tar header may claim to be followed by gigabytes of its own extension."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= MAX_MEMBER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


@dataclass(frozen=True, eq=False)
class ArchiveCollection:
    """Images in an archive, in the archive's order.

    Attributes:
        root: The archive, and behind it the folder in it that the images lie in.
        listing: Names below ``root``, labels and classes.
    """

    root: Path
    listing: Listing
    _reader: _Reader
    _members: tuple[_Member, ...]
    _held: tuple[Content, ...] | None

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names the labels are indices into, if known."""
        return self.listing.class_names

    @property
    def labelled(self) -> bool:
        """Whether the folders say the classes."""
        return self.listing.labels is not None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._members)

    def __iter__(self) -> Iterator[Sample]:
        """Unpack the images one after the other."""
        contents = iter(self._held) if self._held is not None else _contents(self._reader, self._members)
        labels = self.listing.labels
        for index, (name, content) in enumerate(zip(self.listing.names, contents, strict=True)):
            yield Sample(self.root / name, content, None if labels is None else labels[index])


def open_archive(
    path: Path,
    inside: str = "",
    *,
    classes: Sequence[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    progress: ProgressCallback = no_progress,
) -> ArchiveCollection:
    """Find the images of an archive; see :func:`~s2mlp_deploy.data.collect.collect`.

    The archive is listed once. Where it can only be read from its beginning (``.tar.xz`` and the like) and the drawn
    images' files fit into ``HELD_BYTES``, they are unpacked once more and kept; else every pass unpacks anew.

    Args:
        path: The archive.
        inside: A folder in it; "" for its root. A single folder that holds everything else is entered by itself.
        classes: The model's class names.
        limit: Most images to draw.
        seed: Chooses them.
        progress: Told how many members were listed.

    Raises:
        DataError: The archive is damaged or encrypted, has no such folder, or what ``arrange`` raises.
    """
    reader: _Reader = _ZipReader(path) if path.name.lower().endswith(".zip") else _TarReader(path)
    with _damage_is_told(path):
        images = _images(reader, progress)
    prefix = f"{inside}/" if inside else ""
    below = [(name, member) for name, member in images if name.startswith(prefix)]
    if images and not below:
        folders = join_names(sorted({name.rpartition("/")[0] or "." for name, _ in images}))
        raise DataError(f"The archive has no images in {inside!r}", where=str(path), fix=f"its folders: {folders}")
    images = below
    prefix += _wrapper([name.removeprefix(prefix) for name, _ in images], classes or ())
    root = path / prefix.rstrip("/")
    listing = arrange([name.removeprefix(prefix) for name, _ in images], root, classes)
    chosen = listing.draw(limit, seed)
    members = tuple(images[index][1] for index in chosen)
    held = None
    if reader.sequential and sum(member.size for member in members) <= HELD_BYTES:
        held = tuple(_contents(reader, members))
    return ArchiveCollection(root, listing.pick(chosen), reader, members, held)


def _images(reader: _Reader, progress: ProgressCallback) -> list[tuple[str, _Member]]:
    found = []
    for count, member in enumerate(reader.members()):
        if count % _PROGRESS_EVERY == 0:
            progress("listing the archive", count, None)
        # Windows' tools write backslashes; "." and ".." mean nothing where nothing is written.
        parts = [part for part in member.name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        if parts and is_image(parts[-1]) and not any(map(is_hidden, parts)):
            found.append(("/".join(parts), member))
    return found


def _wrapper(names: Sequence[str], classes: Sequence[str]) -> str:
    """The folders that merely wrap an archive's content: ``photos/`` of ``photos.zip``."""
    common: list[str] = []
    # Level by level over all names at once: names of others may have thousands.
    for level in zip(*(name.split("/")[:-1] for name in names), strict=False):
        if len(set(level)) > 1 or level[0] in classes:
            break
        common.append(level[0])
    return "".join(f"{folder}/" for folder in common)


def _contents(reader: _Reader, members: Sequence[_Member]) -> Iterator[Content]:
    """Unpack members; one that is damaged or too large is an error as a value, and the next one is tried."""
    position = 0
    while position < len(members):
        stream = reader.read(members[position:])
        try:
            for content in stream:
                yield content if len(content) <= MAX_MEMBER else _too_large(reader, members[position])
                position += 1
        except _DAMAGED as error:
            # Behind damage a packed stream has nothing more to give; a zip's members stand alone.
            for member in members[position:] if reader.sequential else members[position : position + 1]:
                yield ImageError(
                    f"It cannot be unpacked: {str(error) or type(error).__name__}",
                    where=str(reader.path / member.name),
                    fix="pack or download the archive again",
                )
                position += 1


def _too_large(reader: _Reader, member: _Member) -> ImageError:
    return ImageError(
        f"It unpacks to more than {MAX_MEMBER // 2**20} MiB",
        where=str(reader.path / member.name),
        fix="distrust it, or unpack the archive and name the folder",
    )


@contextmanager
def _damage_is_told(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except _DAMAGED as error:
        raise DataError(
            f"The archive cannot be read: {str(error) or type(error).__name__}",
            where=str(path),
            fix="check that its name says what it is, or download it again",
        ) from error
