"""Small files that claim a lot, and files that never end: each command says so, in seconds and below a gigabyte.

The processes are real and the kernel counts: what a library allocates outside of Python is among it.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from plain_artifact import write_data, write_plain
from preprocess_images import claimed_png

GIGABYTE = 2**20
"""In the kibibytes that the kernel counts in."""

CPU_SECONDS = 12
"""Five of a quiet machine, of which importing torch takes three, and room for one that is not."""

WALL_SECONDS = 120


def sparse(path: Path, size: int, start: bytes = b"") -> Path:
    """A file of zeros that takes no room on the disk."""
    with path.open("wb") as stream:
        stream.write(start)
        stream.truncate(size)
    return path


def large_manifest(folder: Path) -> Sequence[str]:
    sparse(folder / "artifact" / "manifest.json", 500 * 2**20, b'{"name": "')
    return "inspect", "artifact"


def nested_manifest(folder: Path) -> Sequence[str]:
    (folder / "artifact" / "manifest.json").write_text("[" * 100_000)
    return "inspect", "artifact"


def endless_manifest(folder: Path) -> Sequence[str]:
    (folder / "artifact" / "manifest.json").unlink()
    (folder / "artifact" / "manifest.json").symlink_to("/dev/zero")
    return "inspect", "artifact"


def piped_model(folder: Path) -> Sequence[str]:
    os.mkfifo(folder / "pipe.onnx")
    return "build", "pipe.onnx", "--engine", "tensorrt", "--dry-run"


def many_parts(folder: Path) -> Sequence[str]:
    (folder / "parts.onnx").write_bytes(b"\x3a" + b"\x80\xda\xc4\x09" + b"\x0a\x00" * 10_000_000)
    return "inspect", "parts.onnx"


def wide_image(folder: Path) -> Sequence[str]:
    (folder / "wide.png").write_bytes(claimed_png(170_000_000, 1))
    return "quantize", "artifact", "--data", "wide.png"


def piped_data(folder: Path) -> Sequence[str]:
    os.mkfifo(folder / "data.npy")
    return "quantize", "artifact", "--data", "data.npy"


def claimed_rows(folder: Path) -> Sequence[str]:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 5, 8), }".ljust(117) + "\n"
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
    sparse(folder / "rows.npy", 2**30, start)
    return "quantize", "artifact", "--data", "rows.npy"


def many_samples(folder: Path) -> Sequence[str]:
    write_data(folder / "data.npy")
    return "quantize", "artifact", "--data", "data.npy", "--samples", "1000000000"


def compressed_cache(folder: Path) -> Sequence[str]:
    write_data(folder / "data.npy")
    # Just below what is read at all.
    path, shape = folder / "artifact" / "calibration.npz", (2**25 - 2**10,)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("counts.npy", "w", force_zip64=True) as member,
    ):
        np.lib.format.write_array_header_1_0(member, {"descr": "<i8", "fortran_order": False, "shape": shape})
        for _ in range(2**8):
            member.write(bytes(2**20 - 2**5))
    return "quantize", "artifact", "--data", "data.npy"


def inflated_checkpoint(folder: Path) -> Sequence[str]:
    with (
        zipfile.ZipFile(folder / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("bomb/data.pkl", "w", force_zip64=True) as member,
    ):
        member.write(b"\x80\x02](")
        for _ in range(100):
            member.write(b"]" * 2**20)
        member.write(b"e.")
    return "inspect", "s2mlpv2_nano", "--checkpoint", "bomb.pt"


CASES: dict[str, tuple[Callable[[Path], Sequence[str]], bool]] = {
    "a manifest of 500 MB": (large_manifest, True),
    "a manifest nested 100,000 deep": (nested_manifest, True),
    "a manifest that is a device": (endless_manifest, True),
    "a model that is a pipe": (piped_model, True),
    "a model of ten million parts": (many_parts, True),
    "an image of 170,000,000 pixels in a row": (wide_image, True),
    "data that is a pipe": (piped_data, True),
    "an array that claims 10^12 rows": (claimed_rows, True),
    "more samples than there are": (many_samples, False),
    "a cache that inflates": (compressed_cache, True),
    "a checkpoint that inflates": (inflated_checkpoint, True),
}
"""What prepares the files and names the command, and whether it is refused."""


@pytest.mark.skipif(sys.platform == "win32", reason="pipes, devices and the kernel's counts are Unix's")
@pytest.mark.parametrize("case", CASES)
def test_it_ends_in_words_within_seconds_and_a_gigabyte(tmp_path, case):
    pytest.importorskip("torch")
    prepare, refused = CASES[case]
    write_plain(tmp_path / "artifact")
    command = [sys.executable, "-m", "s2mlp_deploy", *prepare(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    with (tmp_path / "told").open("wb") as told:
        measured = subprocess.run(
            [sys.executable, "-c", _MEASURE, str(told.fileno()), *command],
            cwd=tmp_path,
            env=environment,
            pass_fds=[told.fileno()],
            capture_output=True,
            timeout=WALL_SECONDS,
            check=True,
        )
    text = (tmp_path / "told").read_text()
    status, kibibytes, seconds = map(float, measured.stdout.split())
    assert status in ((2,) if refused else (0, 1)), text
    assert "Traceback" not in text
    assert not refused or "error: " in text
    assert kibibytes < GIGABYTE, f"{kibibytes / 1024:.0f} MiB"
    assert seconds < CPU_SECONDS


# From a small process: to the kernel, the peak of a new one begins with that of the one that starts it.
_MEASURE = """
import os, subprocess, sys
told = int(sys.argv[1])
process = subprocess.Popen(sys.argv[2:], stdout=told, stderr=told)
_, status, used = os.wait4(process.pid, 0)
print(os.waitstatus_to_exitcode(status), used.ru_maxrss, used.ru_utime + used.ru_stime)
"""
