"""A batch from end to end: its rows, going on where it stopped, workers that die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nano_artifact
import numpy as np
import pytest
from image_artifact import write_image_artifact
from photographs import colour_of, write_photographs

pytest.importorskip("pyarrow")
pytest.importorskip("onnxruntime")
import pyarrow.parquet as pq

from s2mlp_deploy.api.batching import batch
from s2mlp_deploy.errors import ArtifactError, CheckFailedError, InputError, OutputError
from s2mlp_deploy.locks import locked
from s2mlp_deploy.serving.batch import pools
from s2mlp_deploy.serving.batch.inputs import FileChunk
from s2mlp_deploy.serving.batch.output import STATE, part_name
from s2mlp_deploy.serving.batch.pools import Processes
from s2mlp_deploy.serving.batch.worker import WorkerOptions
from s2mlp_deploy.serving.plan import plan_run


@pytest.fixture
def artifact(tmp_path):
    write_image_artifact(tmp_path / "a")
    return tmp_path / "a"


def rows(output):
    return sorted(pq.read_table(output).to_pylist(), key=lambda row: row["row"])


def colours(output):
    return [row["classes"][0] if row["classes"] else None for row in rows(output)]


def test_every_image_is_a_row_and_broken_ones_say_why(tmp_path, artifact):
    write_photographs(tmp_path / "in", 10, broken=(3, 7))
    told = []
    done = batch(
        tmp_path / "in", artifact, tmp_path / "out", top=2, chunk=4, workers=1, progress=lambda *at: told.append(at)
    )
    assert (done.images, done.broken, done.failed, done.classified, done.parts, done.before) == (10, 2, 0, 8, 3, 0)
    found = rows(tmp_path / "out")
    assert [row["row"] for row in found] == list(range(10))
    assert [row["image"] for row in found] == [f"{index:03}.png" for index in range(10)]
    for index, row in enumerate(found):
        if index in (3, 7):
            assert (row["classes"], row["error_kind"]) == ([], "image")
            assert "not an image" in row["error"]
        else:
            assert (row["classes"][0], row["error"]) == (colour_of(index), None)
            assert len(row["classes"]) == len(row["probabilities"]) == 2
    assert told[-1] == ("classifying", 10, 10)


def test_outputs_of_what_is_no_classifier_are_columns(tmp_path):
    write_image_artifact(tmp_path / "a", outputs=("features",))
    write_photographs(tmp_path / "in", 3, broken=(1,))
    batch(tmp_path / "in", tmp_path / "a", tmp_path / "out", workers=1)
    first, broken, _ = rows(tmp_path / "out")
    values = np.reshape(first["output:features"], first["shape:features"])
    assert values.shape == (3, 8, 8)
    assert values.max() == pytest.approx(240 / 255)
    assert broken["output:features"] is None


def test_all_outputs_beside_the_classes(tmp_path, artifact):
    write_photographs(tmp_path / "in", 1)
    batch(tmp_path / "in", artifact, tmp_path / "out", workers=1, all_outputs=True)
    (row,) = rows(tmp_path / "out")
    assert row["classes"][0] == colour_of(0)
    assert {name for name in row if name.startswith("output:")} == {"output:features", "output:means", "output:logits"}


def test_what_is_not_finite_is_counted_apart(tmp_path):
    write_image_artifact(tmp_path / "a", bias=np.float32([np.nan] * 4))
    write_photographs(tmp_path / "in", 3, broken=(1,))
    done = batch(tmp_path / "in", tmp_path / "a", tmp_path / "out", workers=1)
    assert (done.broken, done.failed, done.classified) == (1, 2, 0)


_KILLED = """
import os, signal, sys
from s2mlp_deploy.api.batching import batch
from s2mlp_deploy.serving.batch import run

real, parts = run.write_part, []

def dying(*arguments):
    parts.append(real(*arguments))
    if len(parts) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return parts[-1]

run.write_part = dying
if __name__ == "__main__":
    batch(sys.argv[1], sys.argv[2], sys.argv[3], chunk=3, workers=2)
"""


def test_after_kill_9_it_goes_on_where_it_stopped(tmp_path, artifact):
    write_photographs(tmp_path / "in", 14, broken=(0,))
    script = tmp_path / "script.py"
    script.write_text(_KILLED)
    places = [tmp_path / "in", artifact, tmp_path / "out"]
    environment = os.environ | {"PYTHONPATH": nano_artifact.PACKAGE_ROOT}
    done = subprocess.run([sys.executable, script, *places], env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    left = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")}
    assert len(left) == 2
    # A part of which the disk lost the end is made again, as is one that was being written.
    lost = tmp_path / "out" / sorted(left)[1]
    lost.write_bytes(lost.read_bytes()[:-9])
    (tmp_path / "out" / ".part-000009.parquet.0123456789ab.tmp").write_bytes(b"half")
    again = batch(*places, chunk=3, workers=1)
    assert (again.images, again.before, again.broken) == (14, 3, 1)
    assert colours(tmp_path / "out") == [None, *(colour_of(index) for index in range(1, 14))]
    kept = tmp_path / "out" / min(left)
    assert kept.stat().st_mtime_ns == left[kept.name]
    # Workers end with the process that began them.
    deadline = time.monotonic() + 20
    while (alive := _running(str(tmp_path / "script.py"))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive
    whole = batch(*places, chunk=3, workers=1)
    assert (whole.before, whole.images) == (14, 14)


def _running(script):
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            command = (path.parent / "cmdline").read_bytes()
            if b"multiprocessing" in command and script.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"top": 3}, "top 5 is now 3"),
        ({"chunk": 2}, "chunk 256 is now 2"),
        ({"all_outputs": True}, "outputs False is now True"),
        ({"source": "more"}, "images 2 is now 3"),
    ],
)
def test_another_question_does_not_go_on(tmp_path, artifact, change, says):
    write_photographs(tmp_path / "in", 2)
    write_photographs(tmp_path / "more", 3)
    batch(tmp_path / "in", artifact, tmp_path / "out", workers=1)
    before = nano_artifact.snapshot(tmp_path / "out")
    source = tmp_path / change.pop("source", "in")
    with pytest.raises(InputError, match=says):
        batch(source, artifact, tmp_path / "out", workers=1, **change)
    assert nano_artifact.snapshot(tmp_path / "out") == before


@pytest.mark.parametrize("place", ["in", "in/classes", "in/../in/x"])
def test_results_among_the_images_are_refused(tmp_path, artifact, place):
    write_photographs(tmp_path / "in", 2)
    with pytest.raises(InputError, match="among what is to be classified"):
        batch(tmp_path / "in", artifact, tmp_path / place, workers=1)
    assert len(list((tmp_path / "in").iterdir())) == 2


def test_another_model_does_not_go_on(tmp_path, artifact):
    write_photographs(tmp_path / "in", 2)
    batch(tmp_path / "in", artifact, tmp_path / "out", workers=1)
    write_image_artifact(tmp_path / "b", bias=np.float32([1, 0, 0, 0]))
    with pytest.raises(InputError, match="file_sha256"):
        batch(tmp_path / "in", tmp_path / "b", tmp_path / "out", workers=1)


def test_a_folder_of_something_else_is_left_alone(tmp_path, artifact):
    write_photographs(tmp_path / "in", 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "part-000000.parquet").write_bytes(b"mine")
    with pytest.raises(OutputError, match="not empty"):
        batch(tmp_path / "in", artifact, tmp_path / "out", workers=1)
    (tmp_path / "out" / STATE).write_text("{}")
    with pytest.raises(OutputError, match="cannot be read"):
        batch(tmp_path / "in", artifact, tmp_path / "out", workers=1)
    assert (tmp_path / "out" / "part-000000.parquet").read_bytes() == b"mine"


def test_one_batch_at_a_time_writes_to_a_folder(tmp_path, artifact):
    write_photographs(tmp_path / "in", 1)
    with locked(tmp_path / "out" / "_batch.lock"), pytest.raises(OutputError):
        batch(tmp_path / "in", artifact, tmp_path / "out", workers=1)


def test_what_is_refused_writes_nothing(tmp_path):
    write_image_artifact(tmp_path / "a", proven=False)
    write_photographs(tmp_path / "in", 1)
    for options, error in (
        ({}, ArtifactError),
        ({"allow_unproven": True, "top": 0}, InputError),
        ({"allow_unproven": True, "workers": 0}, InputError),
        ({"allow_unproven": True, "score_output": "x"}, InputError),
        ({"allow_unproven": True, "address": "auto"}, InputError),
    ):
        with pytest.raises(error):
            batch(tmp_path / "in", tmp_path / "a", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_what_ends_before_its_first_chunk_has_begun_nothing(tmp_path, artifact):
    write_photographs(tmp_path / "in", 1)
    (artifact / "model.fp32.onnx").write_bytes(b"changed")
    with pytest.raises(ArtifactError, match="not the one its manifest describes"):
        batch(tmp_path / "in", artifact, tmp_path / "new" / "out", workers=1)
    assert not (tmp_path / "new").exists()


class Deadly(FileChunk):
    """Images that end the process which reads them, so often as the folder has files ``die``."""

    def images(self):
        for path in sorted(Path(self.folder).glob("die*")):
            try:
                path.unlink()
            except FileNotFoundError:
                continue
            os.kill(os.getpid(), signal.SIGKILL)
        yield from super().images()


@pytest.mark.parametrize("deaths", [1, pools._DEATHS])
def test_a_worker_that_dies_loses_nothing(tmp_path, artifact, deaths):
    folder = write_photographs(tmp_path / "in", 4)
    for index in range(deaths):
        (folder / f"die{index}").touch()
    chunks = [Deadly(index, index, (f"{index:03}.png",), str(folder)) for index in range(4 if deaths == 1 else 1)]
    pool = Processes(WorkerOptions(plan_run(artifact, threads=1), None), 1)
    if deaths == 1:
        assert sorted(result.index for result in pool.map(chunks)) == [0, 1, 2, 3]
    else:
        with pytest.raises(CheckFailedError, match="died 3 times"):
            list(pool.map(chunks))


def test_an_artifact_that_cannot_run_is_told_from_whatever_process(tmp_path, artifact):
    plan = plan_run(artifact, threads=1)
    (artifact / "model.fp32.onnx").write_bytes(b"changed")
    chunk = FileChunk(0, 0, ("000.png",), str(write_photographs(tmp_path / "in", 1)))
    with pytest.raises(ArtifactError, match="not the one its manifest describes"):
        list(Processes(WorkerOptions(plan, None), 1).map([chunk]))


def test_cores_are_shared_out(artifact, tmp_path, monkeypatch):
    from dataclasses import replace

    from s2mlp_deploy.evidence.machine import Machine
    from s2mlp_deploy.evidence.tune import EngineSettings
    from s2mlp_deploy.processor import Processor
    from s2mlp_deploy.serving.batch import run
    from s2mlp_deploy.serving.batch.inputs import open_input

    machine = Machine(Processor("x86_64", "", ()), 8, 16, 16, cpu_quota=6.5)
    monkeypatch.setattr(run, "this_machine", lambda: machine)
    found = open_input(write_photographs(tmp_path / "in", 20), column=None, size=1)
    plan = plan_run(artifact)
    assert run._share(None, plan, found) == (6, 1)
    assert run._share(3, plan, found) == (3, 2)
    assert run._share(None, replace(plan, settings=EngineSettings(threads=2)), found) == (3, 2)
    assert run._share(None, replace(plan, engine="onnxruntime:cuda"), found) == (1, 0)
    assert run._share(None, plan, open_input(tmp_path / "in", column=None, size=10)) == (2, 3)


def test_part_names_sort_as_chunks(tmp_path):
    assert sorted(map(part_name, (10, 2, 100000))) == [part_name(2), part_name(10), part_name(100000)]


def test_the_state_says_what_was_asked(tmp_path, artifact):
    write_photographs(tmp_path / "in", 1)
    batch(tmp_path / "in", artifact, tmp_path / "out", workers=1)
    state = json.loads((tmp_path / "out" / STATE).read_text())
    assert (state["model"], state["file"], state["images"]) == ("colours", "model.fp32.onnx", 1)
