"""Arrays: samples in ``.npy`` and ``.npz``, and a calibration's statistics."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import numpy as np
from fuzzing import Reader
from mutating import chance, npy_file, some_bytes, zip_archive

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.artifact.ownership import is_own_cache
from s2mlp_deploy.calibration.store import Key, load
from s2mlp_deploy.data.dataset import open_data
from s2mlp_deploy.serving.saving import check_target

_KEY = Key("g" * 64, "d" * 64, "")


def _samples(suffix: str, data: bytes, folder: Path) -> None:
    path = folder / f"samples{suffix}"
    path.write_bytes(data)
    opened = open_data(path, inputs=(TensorInfo("x", "float32", ("batch", 3, 4, 4)),), samples=64, workers=0)
    for _ in opened:
        pass


def _cache(data: bytes, folder: Path) -> None:
    path = folder / "calibration.npz"
    path.write_bytes(data)
    is_own_cache(path)
    load(path, _KEY)


def _outputs(data: bytes, folder: Path) -> None:
    path = folder / "outputs.npz"
    path.write_bytes(data)
    check_target(path)


READERS = (
    Reader("arrays/npy", partial(_samples, ".npy"), npy_file),
    Reader("arrays/npz", partial(_samples, ".npz"), zip_archive(npy_file)),
    Reader("arrays/calibration", _cache, zip_archive(npy_file)),
    Reader("arrays/outputs", _outputs, chance((zip_archive(), some_bytes))),
)


def seeds() -> dict[str, dict[str, bytes]]:
    """By reader and name the files to begin with."""
    import tempfile

    from s2mlp_deploy.calibration.histogram import Histogram
    from s2mlp_deploy.calibration.observe import Statistics
    from s2mlp_deploy.calibration.store import save

    images = np.arange(2 * 3 * 4 * 4, dtype=np.float32).reshape(2, 3, 4, 4)
    one, several = io.BytesIO(), io.BytesIO()
    np.save(one, images)
    np.savez_compressed(several, x=images, labels=np.array([0, 1]))
    seen = Histogram()
    seen.update(images)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "c.npz"
        save(path, _KEY, Statistics({"a": seen}, {"a": 3.0}, {}, samples=2, skipped=0), complete=True)
        statistics = path.read_bytes()
    return {
        "arrays/npy": {"images": one.getvalue()},
        "arrays/npz": {"images": several.getvalue()},
        "arrays/calibration": {"whole": statistics},
        "arrays/outputs": {"others": several.getvalue()},
    }
