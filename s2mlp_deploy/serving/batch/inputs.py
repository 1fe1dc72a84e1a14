"""What a batch is made of: a folder, a list of files or a Parquet data set, in chunks that any process can read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from s2mlp_deploy.data.images import images_below
from s2mlp_deploy.data.layout import EXTENSIONS_FIX, is_hidden, is_image
from s2mlp_deploy.errors import DataError, InputError
from s2mlp_deploy.files import read_file
from s2mlp_deploy.serving.images import NamedImage
from s2mlp_deploy.text import first_line_of, join_names

PARQUET = ".parquet"
LISTS = (".txt", ".lst")
MAX_IMAGES = 100_000_000
"""In all tables together: a footer of some bytes may state any number of rows."""

_DAMAGED = (OSError, pa.ArrowException, UnicodeDecodeError)
"""What Arrow raises of a damaged file, and Python of texts in it that are not UTF-8."""

_NAMED_PATHS = ("path", "file", "file_name", "filename", "image", "image_path")


@dataclass(frozen=True)
class FileChunk:
    """Images that are files.

    Attributes:
        index: Number of the chunk.
        first: Number of its first image in the input.
        names: What the images are called.
        folder: What the names are relative to.
    """

    index: int
    first: int
    names: tuple[str, ...]
    folder: str

    def __len__(self) -> int:
        return len(self.names)

    def images(self) -> Iterator[NamedImage]:
        """Each image, not read yet."""
        for name in self.names:
            yield NamedImage(name, Path(self.folder, name))


@dataclass(frozen=True)
class TableChunk:
    """Images that are rows of a Parquet file.

    Attributes:
        index: Number of the chunk.
        first: Number of its first image in the input.
        file: The Parquet file.
        group: Number of its row group.
        start: First row in the group.
        count: How many rows.
        column: What holds the images: bytes, paths relative to the file's folder, or a structure of both.
        place: Number of the first row in the file.
    """

    index: int
    first: int
    file: str
    group: int
    start: int
    count: int
    column: str
    place: int

    def __len__(self) -> int:
        return self.count

    def images(self) -> Iterator[NamedImage]:
        """Each image; a row without one is an empty file.

        Raises:
            DataError: The file cannot be read any more.
        """
        folder, left, skipped = Path(self.file).parent, self.count, self.start
        try:
            with pq.ParquetFile(self.file) as file:
                for rows in file.iter_batches(1024, row_groups=[self.group], columns=[self.column]):
                    values = rows.column(0)[skipped : skipped + left]
                    skipped = max(0, skipped - len(rows))
                    for value in values:
                        yield self._image(value.as_py(), folder, self.place + self.count - left)
                        left -= 1
                    if not left:
                        return
        except _DAMAGED as error:
            raise _unreadable(self.file, error) from error

    def _image(self, value: Any, folder: Path, row: int) -> NamedImage:
        name = f"{Path(self.file).name}#{row}"
        if isinstance(value, dict):
            told = value.get("path")
            name = told if isinstance(told, str) and told else name
            value = value.get("bytes") if value.get("bytes") is not None else told
        if isinstance(value, str):
            return NamedImage(value, folder / value)
        return NamedImage(name, value if isinstance(value, bytes) else b"")


Chunk = FileChunk | TableChunk


@dataclass(frozen=True)
class BatchInput:
    """Everything that is to be classified.

    Attributes:
        description: In words.
        sha256: Of the names, or of the files and their rows: what another run is compared by.
        count: How many images.
        chunks: In order; each comes again with the same index.
    """

    description: str
    sha256: str
    count: int
    chunks: tuple[Chunk, ...]


def open_input(source: str | Path | Sequence[str | Path], *, column: str | None, size: int) -> BatchInput:
    """Finds what is to be classified; reads no image.

    Args:
        source: A folder of images, at any depth; an image; a text file with a path a line, relative to its folder; a
            Parquet file, or a folder of them; or paths of images.
        column: Of Parquet: what holds the images. Default: the only column that can.
        size: Images in a chunk.

    Raises:
        DataError: There is no image, something cannot be read, or a folder holds both kinds.
        InputError: No column was named where several can be meant, or one that cannot; or one for no Parquet.
    """
    if not isinstance(source, (str, Path)):
        names = [str(item) for item in source]
        return _files(names, Path(), f"{len(names)} paths", size, column)
    path = Path(source)
    if path.is_dir():
        return _folder(path, column, size)
    if path.suffix.lower() == PARQUET:
        return _tables([path], column, size, str(path))
    if path.suffix.lower() in LISTS:
        return _files(_listed(path), path.parent, str(path), size, column)
    if is_image(path.name) and path.is_file():
        return _files([path.name], path.parent, str(path), size, column)
    raise DataError(
        "there is nothing to classify" if path.exists() else "there is no such file or folder",
        where=str(path),
        fix=f"name a folder, a list of paths ({' or '.join(LISTS)}) or {PARQUET}; {EXTENSIONS_FIX}",
    )


def _folder(path: Path, column: str | None, size: int) -> BatchInput:
    images = images_below(path)
    tables = sorted(
        file
        for file in path.rglob(f"*{PARQUET}")
        if not any(is_hidden(part) or part.startswith("_") for part in file.relative_to(path).parts)
    )
    if images and tables:
        raise DataError(
            f"the folder holds images ({images[0].name}) and Parquet files ({tables[0].name})",
            where=str(path),
            fix="name a folder of one kind, or the Parquet file",
        )
    if tables:
        return _tables(tables, column, size, str(path))
    if not images:
        raise DataError("there is no image in the folder", where=str(path), fix=EXTENSIONS_FIX)
    return _files([image.relative_to(path).as_posix() for image in images], path, str(path), size, column)


def _listed(path: Path) -> list[str]:
    try:
        lines = read_file(path, "list").decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(str(path), error) from error
    return [line.strip() for line in lines if line.strip()]


def _files(names: list[str], folder: Path, said: str, size: int, column: str | None) -> BatchInput:
    if column is not None:
        raise InputError("--column names a column of Parquet files, and there are none", fix="leave --column out")
    if not names:
        raise DataError("it names no image", where=said, fix="write a path on each line")
    home = str(folder.resolve())
    chunks = tuple(
        FileChunk(index, start, tuple(names[start : start + size]), home)
        for index, start in enumerate(range(0, len(names), size))
    )
    digest = hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()
    return BatchInput(said, digest, len(names), chunks)


def _tables(files: Sequence[Path], column: str | None, size: int, said: str) -> BatchInput:
    chunks: list[TableChunk] = []
    count, digest = 0, hashlib.sha256()
    for file in files:
        try:
            with pq.ParquetFile(file) as opened:
                about = opened.metadata
                kinds = {field.name: _holds(field.type) for field in opened.schema_arrow}
        except _DAMAGED as error:
            raise _unreadable(str(file), error) from error
        chosen = _column(kinds, column, file)
        digest.update(f"{file.name}\n{about.num_rows}\n{file.stat().st_size}\n{chosen}\n".encode())
        place, home = 0, str(file.resolve())
        for group in range(about.num_row_groups):
            rows = about.row_group(group).num_rows
            if not 0 <= rows <= MAX_IMAGES - count:
                raise DataError(
                    f"it says that it has {rows:,} rows, and at most {MAX_IMAGES:,} are classified at once",
                    where=str(file),
                    fix="check the file, or give a part of it",
                )
            for start in range(0, rows, size):
                taken = min(size, rows - start)
                chunks.append(TableChunk(len(chunks), count, home, group, start, taken, chosen, place + start))
                count += taken
            place += rows
    if not count:
        raise DataError("it has no rows", where=said, fix="name a data set with images")
    return BatchInput(said, digest.hexdigest(), count, tuple(chunks))


def _column(kinds: Mapping[str, str], wanted: str | None, file: Path) -> str:
    """The column that holds images, of those whose kinds :func:`_holds` tells.

    Raises:
        InputError: It is not there, holds something else, or several can be meant.
    """
    there = [name for name, kind in kinds.items() if kind]
    if wanted is not None:
        if not kinds.get(wanted):
            problem = "holds no bytes and no paths" if wanted in kinds else "is not there"
            raise InputError(
                f"the column {wanted!r} {problem}",
                where=str(file),
                fix=f"choose {join_names(there, last='or')}" if there else "name a data set with images",
            )
        return wanted
    content = [name for name in there if kinds[name] == "bytes"]
    paths = [name for name in there if name.lower() in _NAMED_PATHS] or there
    found = content or paths
    if len(found) != 1:
        raise InputError(
            f"several columns can hold the images: {join_names(found)}" if found else "no column can hold images",
            where=str(file),
            fix=f"--column {found[0]}" if found else "name a data set with bytes or paths of images",
        )
    return str(found[0])


def _holds(kind: pa.DataType) -> str:
    """``bytes`` (also beside a path, as Hugging Face's data sets have it), ``paths``, or nothing."""
    if pa.types.is_struct(kind):
        return "bytes" if kind.get_field_index("bytes") >= 0 else ""
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return "bytes"
    return "paths" if pa.types.is_string(kind) or pa.types.is_large_string(kind) else ""


def _unreadable(file: str, error: Exception) -> DataError:
    return DataError(f"it cannot be read: {first_line_of(error)}", where=file, fix="check the file")
