"""Archives of images: listed, sorted into classes, and every member decoded."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import tarfile
import zipfile
from functools import partial
from itertools import islice
from pathlib import Path

from fuzzing import Reader
from mutating import chance, some_bytes, tar_archive, zip_archive
from PIL import Image

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.data.batches import batches
from s2mlp_deploy.data.collect import collect
from s2mlp_deploy.data.feeds import ModelInputs
from s2mlp_deploy.errors import S2MLPDeployError
from s2mlp_deploy.preprocess import Preprocessing

_INPUTS = ModelInputs((TensorInfo("x", "float32", ("batch", 3, 4, 4)),), Preprocessing((4, 4), (0.5,) * 3, (0.25,) * 3))


def _archive(suffix: str, data: bytes, folder: Path) -> None:
    path = folder / f"photos{suffix}"
    path.write_bytes(data)
    with contextlib.suppress(S2MLPDeployError):
        collect(path, classes=("cat", "dog", "bird"))
    found = collect(path, limit=8)
    for _ in islice(batches(found, _INPUTS, 2, on_broken="skip"), 8):
        pass


def _packed(pack: str) -> object:
    """A change to what is inside of a packed tar archive, which is packed again."""
    unpack, repack = (gzip.decompress, gzip.compress) if pack == "gz" else (lzma.decompress, lzma.compress)

    def change(data: bytes, rng):
        try:
            return repack(tar_archive(unpack(data), rng))
        except (OSError, EOFError, lzma.LZMAError, ValueError):
            return some_bytes(data, rng)

    return change


READERS = (
    Reader("archives/zip", partial(_archive, ".zip"), chance((zip_archive(), zip_archive(), some_bytes))),
    Reader("archives/tar", partial(_archive, ".tar"), tar_archive, largest=65_536),
    Reader("archives/tgz", partial(_archive, ".tar.gz"), _packed("gz")),
    Reader("archives/txz", partial(_archive, ".tar.xz"), _packed("xz")),
)


def _png(red: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (red, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def seeds() -> dict[str, dict[str, bytes]]:
    """By reader and name the files to begin with."""
    members = {"photos/cat/1.png": _png(1), "photos/dog/2.png": _png(2), "photos/notes.txt": b"nothing"}
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    with tarfile.open(fileobj=tarred, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    whole = tarred.getvalue()
    return {
        "archives/zip": {"classes": zipped.getvalue()},
        "archives/tar": {"classes": whole[:4096]},
        "archives/tgz": {"classes": gzip.compress(whole, mtime=0)},
        "archives/txz": {"classes": lzma.compress(whole)},
    }
