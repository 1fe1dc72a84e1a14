"""What killed commands leave, and a full disk during a real export."""

from __future__ import annotations

import os
import subprocess
import sys

import nano_artifact
import pytest
from tiny_artifact import add_tiny, largest_file, write_tiny

from s2mlp_deploy.artifact import (
    MANIFEST,
    read_manifest,
    verify_file,
)
from s2mlp_deploy.errors import OutputError
from s2mlp_deploy.files import replacing


def test_files_that_a_killed_process_was_writing_are_removed_by_the_next_writer(tmp_path):
    write_tiny(tmp_path)
    (tmp_path / "evidence").mkdir()
    code = (
        "import os, signal, sys; from pathlib import Path; from s2mlp_deploy.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary: os.kill(os.getpid(), signal.SIGKILL)"
    )
    env = os.environ | {"PYTHONPATH": nano_artifact.PACKAGE_ROOT}
    for name in ("calibration.npz", "evidence/accuracy.json"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], env=env, check=False)
    assert len(list(tmp_path.rglob(".*.tmp"))) == 2
    with replacing(tmp_path / "report.html") as alive:
        alive.write_text("being written")
        add_tiny(tmp_path, {"model.int8.onnx": b"new"})
        assert list(tmp_path.rglob(".*")) == [alive]
    assert (tmp_path / "report.html").read_text() == "being written"


def test_a_full_disk_during_a_real_export_leaves_nothing(tmp_path):
    from s2mlp_deploy import api

    graph = nano_artifact.captured()
    with largest_file(1_000_000), pytest.raises(OutputError):
        api.export(graph, tmp_path / "a" / "out")
    assert list(tmp_path.iterdir()) == []


# A process captures once, then forks workers that only export; each worker is killed at a random moment.
KILLER = """
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from s2mlp_deploy import api
root, rounds = Path(sys.argv[1]), int(sys.argv[2])
captured = api.capture(api.load("s2mlpv2_nano"))
forms = ("slice-concat", "pad-slice", "grouped-conv")
start = time.monotonic()
api.export(captured, root / "first")
span = time.monotonic() - start
chance = random.Random(0)
for turn in range(rounds):
    worker = os.fork()
    if worker == 0:
        try:
            for count in range(1000):
                # Every other export replaces one artifact again and again, with other bytes each time.
                name = "same" if count % 2 == turn % 2 else f"new-{turn}-{count}"
                api.export(captured, root / name, shift_form=forms[(turn + count) % 3], force=True)
        finally:
            os._exit(1)
    time.sleep(chance.uniform(0.1, 3) * span)
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
"""


@pytest.mark.slow
def test_killed_exports_never_leave_something_that_looks_whole(tmp_path):
    onnx = pytest.importorskip("onnx")
    env = os.environ | {"PYTHONPATH": nano_artifact.PACKAGE_ROOT}
    subprocess.run([sys.executable, "-c", KILLER, str(tmp_path), "50"], check=True, env=env, timeout=280)
    whole, torn, checked = 0, 0, set()
    for directory in tmp_path.iterdir():
        torn += any(path.name.startswith(".s2mlp-deploy.incomplete-") for path in directory.iterdir())
        if not (directory / MANIFEST).exists():
            continue
        whole += 1
        records = read_manifest(directory).files
        assert records
        for record in records:
            path = verify_file(directory, record)
            if record.sha256 not in checked:
                onnx.checker.check_model(path)
                checked.add(record.sha256)
    assert whole > 10
    assert torn >= 5, "hardly any export was killed while it wrote: the test proves nothing"
    assert len(checked) == 3
