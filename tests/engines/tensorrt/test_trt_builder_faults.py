"""Builds that are interrupted, killed or beside others: nothing half is left, and nothing foreign is replaced."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import nano_artifact
import onnx_graphs as og
import pytest
from plain_artifact import write_plain

from s2mlp_deploy.errors import (
    ArtifactError,
    OutputError,
)

pytest.importorskip("tensorrt_rtx")
pytest.importorskip("onnx_ir")
import tensorrt_rtx as trt

from s2mlp_deploy import api
from s2mlp_deploy.engines import record as records
from s2mlp_deploy.engines.record import read_engine
from s2mlp_deploy.engines.sidecar import sidecar_of
from s2mlp_deploy.engines.tensorrt import library, plan
from s2mlp_deploy.engines.tensorrt.flavours import flavour


@pytest.fixture
def interruptible():
    """Python's own handler of SIGINT: a job that was started in the background ignores the signal instead."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_build_leaves_nothing_and_python_its_handler(artifact):
    before, handler = nano_artifact.snapshot(artifact), signal.getsignal(signal.SIGINT)
    sent = []

    def interrupt(what: str, done: int, total: int | None) -> None:
        if what == "building engine" and not sent:
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        api.build(artifact / "model.fp32.onnx", targets=["sm89"], progress=interrupt)
    assert sent
    assert nano_artifact.snapshot(artifact) == before
    assert signal.getsignal(signal.SIGINT) is handler
    # The library is as good as new.
    assert api.build(artifact / "model.fp32.onnx", targets=["sm89"]).bytes > 0


def test_a_build_in_another_thread_takes_no_signals(graph):
    records = []
    thread = threading.Thread(target=lambda: records.append(api.build(graph, targets=["sm89"])))
    thread.start()
    thread.join()
    assert records[0].bytes > 0


def test_a_killed_build_leaves_nothing_that_looks_whole_and_the_next_one_cleans_up(graph):
    code = (
        "import os, signal\n"
        "from s2mlp_deploy.engines import record\n"
        "from s2mlp_deploy import api\n"
        "write = record.write_sidecar\n"
        "record.write_sidecar = lambda *given: (write(*given), os.kill(os.getpid(), signal.SIGKILL))\n"
        f"api.build({str(graph)!r}, targets=['sm89'])\n"
    )
    environment = {"PYTHONPATH": nano_artifact.PACKAGE_ROOT}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == -signal.SIGKILL
    engine = plan.engine_path(graph, "tensorrt-rtx", ["sm89"])
    with pytest.raises(ArtifactError, match="no such engine file"):
        read_engine(engine)
    assert len(list(engine.parent.glob(".*.tmp"))) == 1
    half = engine.with_name(f".{engine.name}.0123456789ab.tmp")
    half.write_bytes(b"half")
    assert not api.build(graph, targets=["sm89"]).cached
    assert not list(engine.parent.glob(".*"))
    read_engine(engine)


def test_an_artifact_that_cannot_be_written_costs_no_engine(tmp_path, monkeypatch, caplog):
    write_plain(tmp_path / "artifact")
    before = nano_artifact.snapshot(tmp_path / "artifact")

    def read_only(*_):
        raise OutputError("cannot write: Read-only file system", where="artifact")

    monkeypatch.setattr("s2mlp_deploy.api.evidence.lock_artifact", read_only)
    record = api.build(tmp_path / "artifact" / "model.fp32.onnx", targets=["sm89"], output=tmp_path / "out.engine")
    assert read_engine(tmp_path / "out.engine") == record
    assert "was not saved in the artifact: cannot write" in caplog.text
    assert nano_artifact.snapshot(tmp_path / "artifact") == before


@pytest.mark.parametrize("change", ["replaced", "gone"])
def test_a_graph_that_is_replaced_while_it_is_built_gives_no_engine(tmp_path, change):
    write_plain(tmp_path)
    graph = tmp_path / "model.fp32.onnx"

    def replace(what: str, done: int, total: int | None) -> None:
        if what == "writing the engine":
            graph.unlink()
            if change == "replaced":
                write_plain(tmp_path, seed=1, force=True)

    with pytest.raises(OutputError, match="the graph was replaced while the engine was built"):
        api.build(graph, targets=["sm89"], progress=replace)
    assert nano_artifact.snapshot(tmp_path).keys() == {"manifest.json"} | (
        {graph.name} if change == "replaced" else set()
    )


@pytest.mark.parametrize("name", ["model.fp32.onnx", "manifest", "notes", "link.engine", "manifest.json"])
def test_no_file_that_is_no_engine_is_replaced_by_one_or_by_its_sidecar(tmp_path, name):
    write_plain(tmp_path)
    for mine in ("notes", "other.plan"):
        (tmp_path / mine).write_bytes(b"mine")
    (tmp_path / "link.engine").symlink_to("other.plan")
    before = nano_artifact.snapshot(tmp_path)
    with pytest.raises(OutputError, match="no file that a build has made") as caught:
        api.build(tmp_path / "model.fp32.onnx", targets=["sm89"], output=tmp_path / name, force=True)
    assert "model.fp32.tensorrt-rtx.sm89.engine" in str(caught.value.fix)
    assert nano_artifact.snapshot(tmp_path) == before


def test_an_engine_with_its_sidecar_is_replaced_and_a_copy_under_another_name_is_not(tmp_path):
    graph = og.save(og.perceptron(metadata={"precision": "fp32"}), tmp_path / "a.onnx")
    output = tmp_path / "mine.engine"
    first = api.build(graph, targets=["sm89"], output=output)
    assert not api.build(graph, targets=["sm86"], output=output).cached
    shutil.copy(output, tmp_path / "b.engine")
    shutil.copy(sidecar_of(output), tmp_path / "b.engine.json")
    with pytest.raises(OutputError, match=r"b\.engine is no file"):
        api.build(graph, targets=["sm86"], output=tmp_path / "b.engine")
    assert read_engine(output).key != first.key


def test_a_full_disk_leaves_the_old_engine_with_its_sidecar(graph, monkeypatch):
    api.build(graph, targets=["sm89"])
    before = nano_artifact.snapshot(graph.parent)

    def full(*_):
        raise OutputError("the disk is full")

    monkeypatch.setattr(records, "write_sidecar", full)
    with pytest.raises(OutputError, match="full"):
        api.build(graph, targets=["sm89"], force=True)
    assert nano_artifact.snapshot(graph.parent) == before


def _build_in_a_process(path: str, queue) -> None:
    record = api.build(path, targets=["sm89"])
    queue.put((record.cached, record.engine_sha256, os.getpid()))


def test_concurrent_builds_of_one_engine_wait_and_one_builds(graph):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=_build_in_a_process, args=(str(graph), queue)) for _ in range(3)]
    for worker in workers:
        worker.start()
    results = [queue.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    assert sorted(cached for cached, _, _ in results) == [False, True, True]
    assert len({digest for _, digest, _ in results}) == 1
    assert library.version_here(flavour("tensorrt-rtx")) == trt.__version__
