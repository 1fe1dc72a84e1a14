"""Changes to files of a format that leave them files of it: what single bytes would take hours to come to."""

from __future__ import annotations

import io
import json
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

Change = Callable[[bytes, random.Random], bytes]

_DEEP = "[" * 3000 + "]" * 3000
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 255, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64),
    *(-(2**63), 10**30, 0.0, -0.0, 0.5, -0.5, 1e-320, 1e308, -1e308, 3.0, "", " ", "a", "1", "x" * 5000, "../../x"),
    *("/etc/passwd", "\0", "\ud800", "\u202e", "\x1b[2J", "é" * 50, "{0.__class__}", "%s%n", "<script>", "fp32"),
    *("float32", "int8-trt", "model.fp32.onnx", "..", "9" * 5000, "a\nb", [], {}, [[]], [0], [None], ["a"], [1, 2, 3]),
    *([-1, 0], {"": 0}, {"a": {"b": []}}, [[1], [2, 3]], [0.5] * 3),
)
_RAW = ("1e999", "-1e999", "NaN", "Infinity", "1" * 400, "1" * 5000, "-0", "1E400", _DEEP, '"\\ud800"', "[" * 3000, "")


def chance(changes: tuple[Change, ...]) -> Change:
    """One of several changes."""
    return lambda data, rng: rng.choice(changes)(data, rng)


def json_text(data: bytes, rng: random.Random) -> bytes:
    """A JSON document with up to three places changed."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return some_bytes(data, rng)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        document = _changed(document, rng)
    try:
        text = json.dumps(document)
    except (ValueError, RecursionError):
        return data
    while rng.random() < 0.1 and (place := text.find("0", rng.randrange(len(text) + 1))) >= 0:
        text = text[:place] + rng.choice(_RAW) + text[place + 1 :]
    return text.encode("utf-8", "surrogatepass")


def _places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found.append((value, key))
        if len(found) < 5000:
            _places(inner, found)
    return found


def _changed(document: Any, rng: random.Random) -> Any:
    places = _places(document, [])
    if not places or rng.random() < 0.03:
        return rng.choice(_VALUES)
    holder, key = rng.choice(places)
    kind, value = rng.randrange(8), holder[key]
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[rng.choice(("", "kind", "schema_version", "name", "é", str(key) + "s"))] = holder.pop(key)
    elif kind == 2 and isinstance(holder, list):
        holder.extend([value] * rng.choice((1, 2, 50)))
    elif kind == 3:
        other, place = rng.choice(places)
        holder[key] = json.loads(json.dumps(other.get(place) if isinstance(other, dict) else (other or [0])[0]))
    elif kind == 4 and isinstance(value, int | float) and not isinstance(value, bool):
        holder[key] = rng.choice((-value, value * 1000, value + 1, value - 1, float(value), 1 / value if value else 0))
    else:
        holder[key] = rng.choice(_VALUES)
    return document


def some_bytes(data: bytes, rng: random.Random) -> bytes:
    """Bytes with a few changed, removed, repeated or put in."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(made) + 1)
        count = rng.choice((1, 1, 2, 4, 8, 100))
        kind = rng.randrange(5)
        if kind == 0:
            del made[place : place + count]
        elif kind == 1:
            made[place:place] = made[place : place + count]
        elif kind == 2:
            made[place : place + count] = rng.choice((b"\0", b"\xff", b"\x80", b"\x7f")) * count
        elif kind == 3:
            made[place : place + count] = rng.randbytes(count)
        else:
            number = rng.choice((0, 1, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63))
            made[place : place + 8] = struct.pack(rng.choice(("<Q", ">Q")), number)
    return bytes(made)


_NAMES = (
    *("a.png", "../../x.png", "/x.png", "a/b/c.png", "1/a.png", "99999999999999999999/a.png", "9" * 5000 + "/a.png"),
    *("C:\\x.png", "train/a.png", ".hidden/a.png", "a/" * 3000 + "x.png", "é.png", "\udcff.png", "x\0.png", "a//b.png"),
    *("data.pkl", "archive/data.pkl", "archive/data/0", "archive/version", "described.npy", "labels.npy", "cat/"),
)


def zip_archive(inner: Change = some_bytes) -> Change:
    """A zip archive with a member changed, or with fields of its own."""

    def change(data: bytes, rng: random.Random) -> bytes:
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                members = [(info.filename, info.compress_type, archive.read(info)) for info in archive.infolist()]
        except Exception:
            return some_bytes(data, rng)
        if not members:
            return some_bytes(data, rng)
        index = rng.randrange(len(members))
        name, packing, content = members[index]
        kind = rng.randrange(6)
        if kind == 0:
            name = rng.choice(_NAMES)
        elif kind == 1:
            packing = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
        elif kind == 2:
            members.append((rng.choice((name, *_NAMES)), packing, rng.choice((content, b"", bytes(100_000)))))
        elif kind == 3 and len(members) > 1:
            del members[index - 1]
            index = min(index, len(members) - 1)
        else:
            content = inner(content, rng)
        members[index] = (name, packing, content)
        made = io.BytesIO()
        try:
            with zipfile.ZipFile(made, "w") as archive:
                for member, how, what in members:
                    archive.writestr(zipfile.ZipInfo(member), what, how)
        except Exception:
            return some_bytes(data, rng)
        return some_bytes(made.getvalue(), rng) if rng.random() < 0.3 else made.getvalue()

    return change


def tar_archive(data: bytes, rng: random.Random) -> bytes:
    """A tar archive with members of other names, kinds and sizes."""
    made = io.BytesIO()
    kinds = (
        tarfile.REGTYPE,
        tarfile.LNKTYPE,
        tarfile.SYMTYPE,
        tarfile.FIFOTYPE,
        tarfile.CHRTYPE,
        tarfile.DIRTYPE,
        b"S",
    )
    try:
        with (
            tarfile.open(fileobj=io.BytesIO(data)) as source,
            tarfile.open(fileobj=made, mode="w", format=rng.choice((0, 1, 2))) as target,
        ):
            members = [(info, source.extractfile(info)) for info in source.getmembers()]
            for info, stream in members:
                content = stream.read() if stream is not None else b""
                if rng.random() < 0.4:
                    info.name = rng.choice(_NAMES)
                if rng.random() < 0.2:
                    info.type = rng.choice(kinds)
                    info.linkname = rng.choice(("/etc/passwd", "../x", info.name, "a.png"))
                if rng.random() < 0.2:
                    info.size = rng.choice((0, 1, 2**20, 2**33, 2**62))
                target.addfile(info, io.BytesIO(content + bytes(rng.choice((0, 512)))) if info.size < 2**20 else None)
    except Exception:
        return some_bytes(data, rng)
    return some_bytes(made.getvalue(), rng) if rng.random() < 0.5 else made.getvalue()


_HEADERS = (
    "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 4, 4), }",
    "{'descr': '<f4', 'fortran_order': True, 'shape': (), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 2), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000000000000000, 2), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
    "{'descr': '|V0', 'fortran_order': False, 'shape': (1000000000,), }",
    "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }",
    "{'descr': [('a', ('<f4', (1000000,) * 9))], 'fortran_order': False, 'shape': (1,), }",
    "{'descr': (), 'fortran_order': False, 'shape': (1,), }",
    "{'descr': ('<f4', 5), 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<M8[ns]', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<f4', 'fortran_order': 0, 'shape': [1], }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1L,), }",
    "(" * 300,
    "{'a': (",
    "\n  {'descr'\n :",
    "{'descr': '<f4' 'fortran_order'}",
    "'''",
)


def npy_file(data: bytes, rng: random.Random) -> bytes:
    """An ``.npy`` file with another header, whose length fits."""
    if len(data) < 10 or rng.random() < 0.4:
        return some_bytes(data, rng)
    end = 10 + int.from_bytes(data[8:10], "little")
    header, rest = data[10:end], data[end:]
    header = rng.choice(_HEADERS).encode() + b"\n" if rng.random() < 0.5 else some_bytes(header, rng)
    version = rng.choice((b"\1\0", b"\2\0", b"\3\0", b"\4\0"))
    size = struct.pack("<H" if version == b"\1\0" else "<I", min(len(header), 65_535))
    return b"\x93NUMPY" + version + size + header + rest


def with_length(inner: Change) -> Change:
    """A safetensors file: eight bytes of length, JSON, tensors."""

    def change(data: bytes, rng: random.Random) -> bytes:
        length = int.from_bytes(data[:8], "little")
        if len(data) < 8 or length > len(data) or rng.random() < 0.3:
            return some_bytes(data, rng)
        head = inner(data[8 : 8 + length], rng)
        return struct.pack("<Q", len(head)) + head + data[8 + length :]

    return change


def behind_a_line(inner: Change) -> Change:
    """A line, which is changed now and then, and behind it a document."""

    def change(data: bytes, rng: random.Random) -> bytes:
        line, _, rest = data.partition(b"\n")
        if rng.random() < 0.2:
            line = rng.choice((b"", b"0", b"-1", b"9" * 30, "٣".encode(), str(rng.randrange(400)).encode()))
        return line + b"\n" + inner(rest, rng)

    return change


def words(known: tuple[str, ...]) -> Change:
    """A line of words with some of them changed."""

    def change(data: bytes, rng: random.Random) -> bytes:
        parts = data.decode("utf-8", "replace").split(" ")
        for _ in range(rng.choice((1, 1, 2, 4))):
            place = rng.randrange(len(parts) + 1)
            name, equals, value = rng.choice(known).partition("=")
            value = rng.choice((value, "", "9" * 5000, "-1", "a:1x2", "x:1x3x4x4,y:[1,2]", "٣", "\0", "'", "1e9", "1G"))
            parts[place : place + rng.randrange(2)] = [f"{name}{equals}{value}" if equals else name]
        return " ".join(parts).encode("utf-8", "replace")

    return change


def protobuf(data: bytes, rng: random.Random) -> bytes:
    """A protobuf message with one field changed at some depth; what holds it keeps its lengths."""
    fields = _fields_of(data)
    if not fields:
        return some_bytes(data, rng)
    index = rng.randrange(len(fields))
    number, kind, value = fields[index]
    if kind == 2 and value and rng.random() < 0.7:
        inner = _fields_of(value)
        fields[index] = (number, kind, protobuf(value, rng) if inner and rng.random() < 0.9 else some_bytes(value, rng))
    else:
        choice = rng.randrange(5)
        if choice == 0:
            del fields[index]
        elif choice == 1:
            fields[index:index] = [fields[index]] * rng.choice((1, 2, 30))
        elif choice == 2:
            fields[index] = (rng.choice((number + 1, rng.randrange(1, 30), 2**28)), kind, value)
        elif choice == 3 and kind == 0:
            fields[index] = (number, 0, rng.choice((0, 1, 7, 127, 2**31, 2**32, 2**63, 2**64 - 1)))
        else:
            other = rng.choice(fields)
            fields[index] = (number, other[1], other[2])
    return b"".join(map(_field, fields))


def _fields_of(data: bytes) -> list[tuple[int, int, Any]]:
    """Fields of a message; none where the bytes are none."""
    found: list[tuple[int, int, Any]] = []
    position = 0
    try:
        while position < len(data):
            tag, position = _varint(data, position)
            if tag & 7 == 0:
                value, position = _varint(data, position)
                found.append((tag >> 3, 0, value))
            elif tag & 7 in (1, 5):
                size = 8 if tag & 7 == 1 else 4
                found.append((tag >> 3, tag & 7, data[position : position + size]))
                position += size
            elif tag & 7 == 2:
                size, position = _varint(data, position)
                if position + size > len(data):
                    return []
                found.append((tag >> 3, 2, data[position : position + size]))
                position += size
            else:
                return []
    except IndexError:
        return []
    return found


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position


def _number(value: int) -> bytes:
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def _field(field: tuple[int, int, Any]) -> bytes:
    number, kind, value = field
    body = _number(value) if kind == 0 else _number(len(value)) + value if kind == 2 else value
    return _number(number << 3 | kind) + body
