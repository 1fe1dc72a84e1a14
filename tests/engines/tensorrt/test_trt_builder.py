"""Real TensorRT-RTX builds, which need no GPU."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import nano_artifact
import onnx_graphs as og
import pytest
from plain_artifact import write_plain

from s2mlp_deploy.errors import (
    ArtifactError,
    BuildError,
    CheckFailedError,
    InputError,
    OutputError,
    S2MLPDeployError,
    TargetError,
)
from s2mlp_deploy.files import sha256_of

pytest.importorskip("tensorrt_rtx")
pytest.importorskip("onnx_ir")
import tensorrt_rtx as trt

from s2mlp_deploy import api
from s2mlp_deploy.engines import record as records
from s2mlp_deploy.engines.record import read_engine
from s2mlp_deploy.engines.sidecar import sidecar_of
from s2mlp_deploy.engines.tensorrt import builder, library, plan
from s2mlp_deploy.engines.tensorrt.flavours import flavour
from s2mlp_deploy.engines.tensorrt.options import BuildOptions
from s2mlp_deploy.evidence.build import MatrixOp
from s2mlp_deploy.gpu import gpus

SHAPE = {"input": (2, 8)}


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


@pytest.fixture
def artifact(tmp_path):
    pytest.importorskip("torch")
    return nano_artifact.copy_to(tmp_path / "artifact")


@pytest.fixture
def graph(tmp_path):
    """A small graph of ours: it builds in milliseconds."""
    return og.save(og.perceptron(metadata={"precision": "fp32", "name": "small"}), tmp_path / "model.fp32.onnx")


def test_the_digit_network_becomes_an_engine_with_sidecar_and_evidence(artifact):
    before = files(artifact)
    record = api.build(artifact / "model.fp32.onnx", targets=["sm89"])
    engine = artifact / "model.fp32.tensorrt-rtx.sm89.engine"
    evidence = "evidence/build-model.fp32.tensorrt-rtx.sm89.json"
    assert files(artifact) - before == {engine.name, f"{engine.name}.json", evidence}
    assert record.engine == engine.name
    assert record.bytes == engine.stat().st_size > 1_000_000
    assert record.engine_sha256 == sha256_of(engine)
    assert record.onnx_sha256 == sha256_of(artifact / "model.fp32.onnx")
    assert record.targets == ("sm89",)
    assert record.version == trt.__version__
    assert record.precision == "fp32"
    assert not record.cached
    (profile,) = record.profiles
    assert [shape[0] for shape in (profile["input"].min, profile["input"].opt, profile["input"].max)] == [
        1,
        8,
        32,
    ]
    # Strongly typed: nothing was lowered to half precision behind the user's back.
    assert record.layer_dtypes["float"] > 0
    assert set(record.layer_dtypes) <= {"float", "int32", "int64", "bool"}
    saved = json.loads((artifact / evidence).read_text())
    assert saved["engine_sha256"] == record.engine_sha256
    assert saved == json.loads(sidecar_of(engine).read_text())
    assert engine.name in (artifact / "report.html").read_text()
    assert read_engine(engine) == record


def test_a_second_build_is_instant_and_says_so(graph, monkeypatch):
    first = api.build(graph, targets=["sm89"])
    stamp = (graph.parent / first.engine).stat().st_mtime_ns

    def never(*_):
        raise AssertionError("it builds")

    monkeypatch.setattr(builder, "_build", never)
    second = api.build(graph, targets=["sm89"])
    assert second.cached
    assert second.key == first.key
    assert (graph.parent / first.engine).stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    "change",
    [
        {"max_shapes": SHAPE},
        {"options": BuildOptions(workspace=2**28)},
        {"options": BuildOptions(optimization_level=5)},
        {"force": True},
    ],
    ids=str,
)
def test_whatever_determines_the_engine_builds_another_one(graph, change):
    first = api.build(graph, targets=["sm89"])
    second = api.build(graph, targets=["sm89"], **change)
    assert not second.cached
    assert (second.key == first.key) == ("force" in change)


def test_another_graph_or_a_damaged_engine_is_built_again(graph):
    record = api.build(graph, targets=["sm89"])
    engine = graph.parent / record.engine
    engine.write_bytes(engine.read_bytes() + b"x")
    assert not api.build(graph, targets=["sm89"]).cached
    sidecar_of(engine).write_text("{")
    assert not api.build(graph, targets=["sm89"]).cached
    og.save(og.perceptron(metadata={"precision": "fp32", "name": "other"}), graph)
    again = api.build(graph, targets=["sm89"])
    assert not again.cached
    assert again.onnx_sha256 != record.onnx_sha256


FORGED = {
    "another file": lambda record, raw: (record, b"MZ" + raw),
    "more layers": lambda record, raw: (replace(record, contents=replace(record.contents, layers=3897)), raw),
    "another precision of a layer": lambda record, raw: (
        replace(record, contents=replace(record.contents, matrix_ops=(MatrixOp("fc1/MatMul", "int8"),))),
        raw,
    ),
    "no contents": lambda record, raw: (replace(record, contents=None), raw),
    "another precision": lambda record, raw: (replace(record, precision="int8"), raw),
    "another graph": lambda record, raw: (replace(record, onnx_sha256="0" * 64), raw),
    "other shapes": lambda record, raw: (replace(record, profiles=()), raw),
    "another size": lambda record, raw: (replace(record, bytes=3), raw),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_file_is_not_found_because_its_sidecar_says_its_hash(graph, kind):
    first = api.build(graph, targets=["sm89"])
    engine = graph.parent / first.engine
    record, raw = FORGED[kind](read_engine(engine), engine.read_bytes())
    engine.write_bytes(raw)
    records.write_sidecar(engine, replace(record, engine_sha256=sha256_of(engine)))
    read_engine(engine)
    again = api.build(graph, targets=["sm89"])
    assert not again.cached
    assert (again.contents, again.precision) == (first.contents, "fp32")
    assert api.build(graph, targets=["sm89"]).cached


def test_options_only_tell_how_to_build_and_are_no_part_of_the_key(graph):
    first = api.build(graph, targets=["sm89"])
    assert api.build(graph, targets=["sm89"], options=BuildOptions(verbose=True)).key == first.key


def test_verbose_passes_on_what_the_library_says(graph, caplog):
    caplog.set_level(logging.WARNING, logger="s2mlp_deploy")
    api.build(graph, targets=["sm89"], options=BuildOptions(verbose=True))
    assert len(caplog.records) > 3


def test_two_profiles_two_targets_and_a_place_of_its_own(tmp_path):
    graph = og.save(og.perceptron(), tmp_path / "graph.onnx")
    output = tmp_path / "elsewhere" / "my engine.plan"
    record = api.build(
        graph,
        targets=["sm86", "sm89", "sm86"],
        output=output,
        min_shapes=[{"input": (1, 8)}, {"input": (64, 8)}],
        max_shapes=[{"input": (4, 8)}, {"input": (128, 8)}],
    )
    assert record.targets == ("sm86", "sm89")
    assert [profile["input"].max for profile in record.profiles] == [(4, 8), (128, 8)]
    assert record.precision is None
    assert files(tmp_path) == {graph.name, "elsewhere/my engine.plan", "elsewhere/my engine.plan.json"}
    assert record.command == (
        "s2mlp-deploy build graph.onnx --engine tensorrt-rtx --target sm86 --target sm89 "
        "--min-shapes input:1x8 --opt-shapes input:4x8 --max-shapes input:4x8 "
        "--min-shapes input:64x8 --opt-shapes input:128x8 --max-shapes input:128x8"
    )


def test_equal_builds_give_equal_bytes(graph):
    first = api.build(graph, targets=["sm86", "sm120"])
    assert api.build(graph, targets=["sm86", "sm120"], force=True).engine_sha256 == first.engine_sha256


def test_progress_is_told_phase_by_phase(graph):
    told = []
    api.build(graph, targets=["sm89"], progress=lambda *step: told.append(step))
    names = [name for name, _, _ in told]
    assert names.index("parsing the graph") < names.index("building engine") < names.index("writing the engine")
    assert any(total and done == total for _, done, total in told)


# Bad input


def refuse(error: type[S2MLPDeployError], path: Path, **options) -> str:
    """The message of a build that must fail and leave the folder as it was."""
    before = nano_artifact.snapshot(path.parent)
    with pytest.raises(error) as caught:
        api.build(path, **{"targets": ["sm89"]} | options)
    assert nano_artifact.snapshot(path.parent) == before
    return str(caught.value)


@pytest.mark.parametrize("content", [b"", b"this is not an ONNX file", bytes(range(256)) * 99])
def test_a_file_that_is_not_onnx_is_named(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert str(path) in refuse(ArtifactError, path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    assert "nothing.onnx" in refuse(ArtifactError, tmp_path / "nothing.onnx")


@pytest.mark.parametrize(("opset", "ir"), [(99, 10), (20, 99)])
def test_an_opset_or_ir_version_of_the_future_is_named(tmp_path, opset, ir):
    made = og.model(
        [og.node("Relu", ["x"], ["y"])],
        [og.value("x", og.FLOAT, [1])],
        [og.value("y", og.FLOAT, [1])],
        opset=opset,
        ir=ir,
    )
    text = refuse(ArtifactError, og.save(made, tmp_path / "new.onnx"))
    assert "99" in text
    assert "--opset" in text


def test_an_operator_the_parser_refuses_is_named(make_graph):
    text = refuse(BuildError, make_graph([1, 3], op="NoSuchOperator", domain="my.domain"))
    assert "the_node" in text
    assert "NoSuchOperator" in text
    assert "graph.onnx" in text


def test_what_only_the_parser_notices_is_told_in_its_words(tmp_path, monkeypatch):
    made = og.model(
        [og.node("ReduceSum", ["x", "axes"], ["y"], "the_sum")],
        [og.value("x", og.FLOAT, [2, 4]), og.value("axes", og.INT64, [1])],
        [og.value("y", og.FLOAT, [None, None])],
    )
    monkeypatch.setattr(plan, "find", lambda *_: ())
    text = refuse(BuildError, og.save(made, tmp_path / "graph.onnx"))
    assert "the_sum: " in text
    assert "build-time constant" in text


def test_a_foreign_graph_with_a_dynamic_input_needs_shapes_and_names_it(make_graph):
    text = refuse(InputError, make_graph(["batch", 3, "height", 8]))
    assert "0 (batch), 2 (height) of the input input" in text
    assert "--max-shapes input:Nx3xNx8" in text
    assert "axis 0 (batch) of the input input" in refuse(InputError, make_graph(["batch", 3]))


def test_shapes_out_of_order_are_refused(make_graph):
    low, high = {"input": (8, 3)}, {"input": (4, 3)}
    assert "not in order" in refuse(InputError, make_graph(["batch", 3]), min_shapes=low, max_shapes=high)


def test_a_size_past_the_runtime_is_refused(make_graph):
    refuse(S2MLPDeployError, make_graph(["batch", 3]), max_shapes={"input": (10**25, 3)})


def test_the_graph_is_never_replaced_by_its_engine(graph):
    assert "model.fp32.onnx is no file that a build has made" in refuse(OutputError, graph, output=graph)


def test_an_output_that_cannot_be_written_leaves_nothing(graph, tmp_path):
    (tmp_path / "taken").mkdir()
    assert "a directory" in refuse(OutputError, graph, output=tmp_path / "taken")
    assert graph.name in refuse(OutputError, graph, output=graph / "below a file.engine")


def test_a_network_of_another_precision_writes_no_engine(tmp_path):
    path = og.save(og.perceptron(metadata={"precision": "fp16"}), tmp_path / "model.fp16.onnx")
    text = refuse(CheckFailedError, path)
    assert "fc1/MatMul: fp32" in text


@pytest.mark.skipif(bool(gpus()), reason="this machine has a GPU")
@pytest.mark.parametrize("option", ["refit", "strip_plan", "version_compatible"])
def test_options_that_need_a_gpu_say_so(graph, option):
    assert "GPU" in refuse(TargetError, graph, options=BuildOptions(**{option: True}))


def test_without_the_package_the_extra_is_named(graph):
    code = (
        "import sys; sys.modules['tensorrt_rtx'] = None; "
        f"sys.argv = ['s2mlp-deploy', 'build', {str(graph)!r}, '--target', 'sm89']; "
        "from s2mlp_deploy.cli.main import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": nano_artifact.PACKAGE_ROOT}, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert "s2mlp-deploy[rtx]" in result.stderr
    assert "Traceback" not in result.stderr
    assert files(graph.parent) == {graph.name}


def test_a_version_of_the_library_nobody_knows_is_refused(graph, monkeypatch):
    monkeypatch.setattr(trt, "__version__", "2.0.0.1")
    assert "TensorRT-RTX 2.0.0.1 is not known" in refuse(TargetError, graph)


# A full disk, a killed build, an interrupted one, two at once


def test_a_disk_that_fills_up_during_serialization_leaves_nothing(graph):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        assert "File too large" in refuse(OutputError, graph)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


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
    assert files(tmp_path) == {"manifest.json"} | ({graph.name} if change == "replaced" else set())


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


def test_weights_beside_the_graph_are_part_of_the_key_and_must_be_there(graph):
    import onnx

    large = graph.with_name("model.large.onnx")
    onnx.save(onnx.load(graph), large, save_as_external_data=True, location="model.large.onnx.data", size_threshold=0)
    data = graph.with_name("model.large.onnx.data")
    first = api.build(large, targets=["sm89"])
    assert api.build(large, targets=["sm89"]).cached
    weights = bytearray(data.read_bytes())
    weights[3] ^= 1
    data.write_bytes(weights)
    again = api.build(large, targets=["sm89"])
    assert not again.cached
    assert again.onnx_sha256 == first.onnx_sha256 == sha256_of(large)
    data.unlink()
    with pytest.raises(ArtifactError, match=r"weights beside the graph are missing[\s\S]*model\.large\.onnx\.data"):
        api.build(large, targets=["sm89"])
