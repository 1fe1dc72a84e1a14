"""Commands on one artifact at the same time, each in a process of its own: whoever succeeds leaves what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nano_artifact
import pytest
from plain_artifact import write_data, write_plain

from s2mlp_deploy.artifact import read_manifest, verify_file
from s2mlp_deploy.evidence.accuracy import AccuracyReport
from s2mlp_deploy.evidence.calibration import CalibrationReport
from s2mlp_deploy.evidence.store import read_evidence, read_record

WORKER = """
import sys, time
from pathlib import Path
from s2mlp_deploy import api
from s2mlp_deploy.api import quantizing
from s2mlp_deploy.errors import S2MLPDeployError
from plain_artifact import write_plain
root, command, argument, slow = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4] == "slow"
meeting = root.parent / "meeting"
(meeting / f"{command}-{Path(argument).name}").touch()
while len(list(meeting.iterdir())) < 2:
    time.sleep(0.01)
# One is slow after its files are written and before its scores are: the other could come between.
save = quantizing.save_scores
def save_late(*arguments):
    time.sleep(slow * 2)
    return save(*arguments)
quantizing.save_scores = save_late
def pause(what, done, total):
    time.sleep(0.7 if what == "writing files" and not slow else 0)
try:
    if command == "export":
        write_plain(root, seed=int(argument), force=True)
    else:
        api.quantize(root, api.PrecisionOptions(precisions=["int8"], data=argument), progress=pause)
except S2MLPDeployError as error:
    sys.exit(str(error))
"""


def at_once(root: Path, *commands: tuple[str, object, str]) -> list[tuple[int, str]]:
    (root.parent / "meeting").mkdir()
    env = os.environ | {"PYTHONPATH": f"{nano_artifact.PACKAGE_ROOT}:{Path(nano_artifact.__file__).parent}"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(root), *map(str, command)], env=env, stderr=subprocess.PIPE, text=True
        )
        for command in commands
    ]
    told = [worker.communicate(timeout=120)[1] for worker in workers]
    return [(worker.returncode, text) for worker, text in zip(workers, told, strict=True)]


def check_whole(root: Path) -> None:
    """Files, scores and ranges are of one another."""
    manifest = read_manifest(root)
    for record in manifest.files:
        verify_file(root, record)
    (scores, *_), ranges = read_evidence(root).newest(AccuracyReport) or (None,), read_record(root, CalibrationReport)
    if len(manifest.files) > 1:
        assert scores is not None
        assert scores.outdated(manifest) == frozenset()
        assert ranges is not None
        assert ranges.calibration == manifest.calibration
    else:
        assert scores is ranges is None
    assert not list(root.glob(".*"))


@pytest.mark.parametrize("slow", [("slow", "quick"), ("quick", "slow")])
def test_quantize_beside_quantize(tmp_path, slow):
    root = tmp_path / "artifact"
    write_plain(root)
    data = [write_data(tmp_path / f"{seed}.npy", seed) for seed in range(2)]
    results = at_once(root, ("quantize", data[0], slow[0]), ("quantize", data[1], slow[1]))
    assert [code for code, _ in results] == [0, 0], results
    assert len(read_manifest(root).files) == 3
    check_whole(root)


def test_quantize_beside_a_forced_export(tmp_path):
    root = tmp_path / "artifact"
    write_plain(root)
    data = write_data(tmp_path / "data.npy")
    results = at_once(root, ("quantize", data, "slow"), ("export", 1, "quick"))
    assert [code for code, _ in results] == [0, 0], results
    assert read_manifest(root).name == "perceptron-1"
    check_whole(root)
