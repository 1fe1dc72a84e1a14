"""`build`, `inspect FILE.engine` and engines in `parity`, through the command line."""

from __future__ import annotations

import json
import resource
import signal
from dataclasses import replace

import nano_artifact
import pytest

pytest.importorskip("onnx_ir")
pytest.importorskip("tensorrt_rtx")
import onnx_graphs as og

from s2mlp_deploy.engines.record import read_sidecar, write_sidecar
from s2mlp_deploy.engines.sidecar import sidecar_of
from s2mlp_deploy.gpu import gpus

TARGETS = "sm75, sm80, sm86, sm89, sm120, sm121"


@pytest.fixture
def graph(tmp_path):
    """A small graph of ours."""
    made = og.perceptron(metadata={"precision": "fp32", "name": "small"})
    return og.save(made, tmp_path / "model.fp32.onnx")


@pytest.fixture
def scatter_add(tmp_path):
    """A graph that no TensorRT parses, whose only node is of a shift."""
    made = og.model(
        [og.node("ScatterND", ["x", "i", "u"], ["y"], "net.shift/Shift/ScatterND", reduction="add")],
        [og.value("x", og.FLOAT, [2, 4]), og.value("u", og.FLOAT, [1, 4])],
        [og.value("y", og.FLOAT, [2, 4])],
        [og.constant("i", [[0]], "int64")],
        metadata={"shifts": [{"origin": {"module": "net.shift", "line": "net.py:12"}}]},
    )
    return og.save(made, tmp_path / "model.onnx")


@pytest.fixture
def refuse(refused, tmp_path):
    """Runs a command that must be refused and leave the folder as it was."""

    def run(*arguments):
        before = nano_artifact.snapshot(tmp_path)
        text = refused(*arguments)
        assert nano_artifact.snapshot(tmp_path) == before
        return text

    return run


@pytest.fixture
def engine(cli, graph):
    result = cli("build", graph, "--target", "sm89")
    assert result.code == 0, result.err
    return graph.with_name("model.fp32.tensorrt-rtx.sm89.engine")


def test_a_build_prints_what_is_inside_and_a_second_one_finds_it(cli, graph, engine):
    record = json.loads(cli("build", graph, "--target", "sm89", "--json").out)
    assert record["cached"] is True
    assert record["engine"] == engine.name
    assert record["precision"] == "fp32"
    text = cli("build", graph, "--target", "sm89").out
    assert text.startswith(f"Found {engine.name}")
    forced = cli("build", graph, "--target", "sm89", "--force").out
    assert forced.startswith(f"Built {engine.name}")
    assert "2 of 2 GEMMs and convolutions in fp32" in " ".join(forced.split())


def test_options_are_those_of_trtexec(cli, graph):
    shapes = (
        *("--min-shapes", "input:1x8", "--opt-shapes", "input:[2,8]", "--max-shapes", "input:4x8"),
        *("--min-shapes", "input:16x8", "--opt-shapes", "input:16x8", "--max-shapes", "input:64x8"),
    )
    options = ("--workspace", "1G", "--builder-optimization-level", "4", "--target", "sm86", "--target", "sm120")
    result = cli("build", graph, *shapes, *options, "--json")
    assert result.code == 0, result.err
    record = json.loads(result.out)
    assert [profile["input"]["max"] for profile in record["profiles"]] == [[4, 8], [64, 8]]
    assert record["flags"]["workspace"] == 2**30
    assert record["flags"]["builder_optimization_level"] == 4
    assert record["engine"] == "model.fp32.tensorrt-rtx.sm86-sm120.engine"


def test_inspecting_an_engine_shows_layers_and_precision(cli, engine):
    text = cli("inspect", engine).out
    assert "MATRIX_MULTIPLY" in text
    assert "2 of 2 GEMMs and convolutions in fp32" in " ".join(text.split())
    document = json.loads(cli("inspect", engine, "--json").out)
    assert [gemm["name"] for gemm in document["record"]["contents"]["matrix_ops"]] == ["fc1/MatMul", "fc2/MatMul"]
    assert document["mismatches"] == []


def test_tf32_is_off_unless_asked_for_and_told(cli, graph):
    flags = {}
    for option in ("", "--no-tf32", "--tf32"):
        result = cli("build", graph, "--target", "sm89", *filter(None, [option]), "--json")
        assert result.code == 0, result.err
        record = json.loads(result.out)
        flags[option] = (record["flags"]["tf32"], "TF32" in record["builder_flags"], record["key"])
        assert record["cached"] is (option == "--no-tf32")
    assert flags["--no-tf32"][:2] == (False, False)
    assert flags["--tf32"][:2] == (True, True)
    assert flags["--no-tf32"][2] != flags["--tf32"][2]
    assert flags[""] == flags["--no-tf32"]


def test_a_line_of_trtexec_is_printed_and_builds_again(cli, refused, graph, tmp_path):
    options = ("--max-shapes", "input:4x8", "--workspace", "1G", "--tactic-sources", "-JIT_CONVOLUTIONS")
    printed = cli("build", graph, "--engine", "tensorrt", "--print-trtexec", *options)
    assert printed.code == 0, printed.err
    line = printed.out.strip()
    assert line.startswith(f"trtexec --onnx={graph} ")
    assert {"--noTF32", "--memPoolSize=workspace:1024M", "--tacticSources=-JIT_CONVOLUTIONS"} <= set(line.split())
    assert json.loads(cli("build", graph, "--engine", "tensorrt", "--print-trtexec", "--json").out)["trtexec"]
    built = cli("build", "--from-trtexec", line, "--engine", "tensorrt-rtx", "--target", "sm89", "--json")
    assert built.code == 0, built.err
    record = json.loads(built.out)
    assert record["profiles"][0]["input"]["max"] == [4, 8]
    assert record["flags"]["tactic_sources"] == "-JIT_CONVOLUTIONS"
    assert not record["flags"]["tf32"]
    text = refused("build", "--from-trtexec", line, "--workspace", "1G")
    assert "leave --workspace out" in text
    assert "name an ONNX file" in refused("build", "--target", "sm89")
    assert "no option --fp17" in refused("build", "--from-trtexec", f"trtexec --onnx={graph} --fp17")
    rtx = f"tensorrt_rtx --onnx={graph} --computeCapabilities=86,89"
    for given, targets in ((), ["sm86", "sm89"]), (("--target", "sm120"), ["sm120"]):
        told = cli("build", "--from-trtexec", rtx, *given, "--dry-run", "--json")
        assert json.loads(told.out)["targets"] == targets
    kept = refused("build", "--from-trtexec", f"{rtx} --versionCompatible", "--dry-run")
    assert "its engines load in no other release" in kept
    half = cli("build", "--from-trtexec", f"trtexec --onnx={graph} --fp16", "--dry-run")
    assert half.code == 2
    assert "--fp16 is a condition and converts nothing" in half.text
    assert "the metadata of the file says fp32" in half.text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--precision", "int8"), "no Q/DQ"),
        (("--precision", "fp16"), "the metadata of the file says fp32"),
        (("--target", "sm89"), "leave --target out"),
        (("--force",), "leave --force out"),
        (("--tactic-sources", "-NO_SUCH"), "has no tactic source NO_SUCH"),
        (("--tactic-sources", "-CUDNN", "--build-route", "-a=on"), "no build routes"),
    ],
    ids=" ".join,
)
def test_a_line_of_trtexec_drops_nothing_that_was_asked(refuse, graph, arguments, says):
    assert says in refuse("build", graph, "--engine", "tensorrt", "--print-trtexec", *arguments)


def test_a_line_of_trtexec_is_printed_only_of_what_builds(cli, refuse, graph, scatter_add):
    assert "cannot parse ScatterND with a reduction" in refuse(
        "build", scatter_add, "--engine", "tensorrt", "--print-trtexec"
    )
    # Of 10 alone, which the trtexec may be of that reads the line.
    assert cli("build", graph, "--engine", "tensorrt", "--print-trtexec", "--tactic-sources", "-CUDNN").code == 0


def test_another_precision_is_status_1_with_the_layers_named(cli, tmp_path):
    path = og.save(og.perceptron(metadata={"precision": "fp16"}), tmp_path / "model.fp16.onnx")
    result = cli("build", path, "--target", "sm89")
    assert result.code == 1
    assert "fc1/MatMul: fp32" in result.text
    assert list(tmp_path.iterdir()) == [path]


def test_int8_that_is_likely_slow_is_explained_before_the_build(cli, tmp_path, graph):
    import numpy as np

    path = og.to_quantized(graph, tmp_path / "model.int8.onnx", lambda: [{"input": np.ones((2, 8), np.float32)}])
    result = cli("build", path, "--target", "sm89")
    assert result.code == 0, result.err
    assert "int8 is likely slower than fp16 here" in result.text
    assert "SLOW?" in result.out


# Dry runs


def test_a_dry_run_of_a_good_graph_writes_nothing(cli, graph, tmp_path):
    for arguments in (
        ("--target", "sm89"),
        ("--engine", "tensorrt"),
        ("--engine", "tensorrt", "--engine-version", "10"),
    ):
        result = cli("build", graph, "--dry-run", *arguments)
        assert result.code == 0, result.err
        assert "would build" in result.out
    assert list(tmp_path.iterdir()) == [graph]


def test_a_dry_run_that_finds_something_is_status_1(cli, scatter_add, tmp_path):
    path = scatter_add
    result = cli("build", path, "--dry-run", "--engine", "tensorrt", "--engine-version", "10.16")
    assert result.code == 1
    assert "cannot parse ScatterND with a reduction" in result.out
    assert "net.py:12" in result.out
    assert "fix:" in result.err
    (finding,) = json.loads(cli("build", path, "--dry-run", "--target", "sm89", "--json").out)["findings"]
    assert finding["lines"] == ["net.py:12"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_dry_run_needs_no_builder(process, graph):
    blocked = ("tensorrt", "tensorrt_rtx", "torch", "onnxruntime")
    for engine in (("tensorrt-rtx", "--target", "sm89"), ("tensorrt",)):
        result = process("build", graph, "--dry-run", "--engine", *engine, blocked=blocked)
        assert result.code == 0, result.err


# Bad input


@pytest.mark.parametrize("arguments", [("--target", "sm99"), ("--target", "sm89", "--target", "ampere"), ()])
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_target_that_does_not_exist_lists_them(refuse, graph, arguments, dry):
    assert TARGETS in refuse("build", graph, *arguments, *dry)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--engine", "nosuch"), "choose tensorrt-rtx, tensorrt, openvino or onnxruntime"),
        (("--engine", "onnxruntime"), "--optimize-for"),
        (("--optimize-for", "cpu"), "--engine onnxruntime"),
        (("--max-shapes", "input"), "NAME:1x3x224x224"),
        (("--min-shapes", "input:ax8"), "NAME:1x3x224x224"),
        (("--min-shapes", "inptu:1x8"), "the inputs are input"),
        (("--min-shapes", "input:1x9"), "does not fit the input input"),
        (("--min-shapes", "input:1x8", "--opt-shapes", "input:64x8", "--max-shapes", "input:32x8"), "not in order"),
        (("--min-shapes", "input:1x8", "--min-shapes", "input:2x8", "--max-shapes", "input:2x8"), "differently often"),
        (("--workspace", "much"), "write 2G"),
        (("--builder-optimization-level", "9"), "choose 0 to 5"),
        (("--hardware-compatible", "ampere+"), "--target"),
        (("--timing-cache", "cache"), "leave --timing-cache out"),
        (("--engine-version", "1.7"), "--dry-run"),
        (("--version-compatible",), "its engines load in no other release"),
        (("--build-route", "-knob=on"), "its builder has no routes"),
        (("--tactic-sources", "-CUDNN"), "choose from EDGE_MASK_CONVOLUTIONS, JIT_CONVOLUTIONS"),
        (("--profiling-verbosity", "loud"), "detailed, layer_names_only or none"),
        (("--print-trtexec",), "--engine tensorrt"),
        (("--from-trtexec", "--onnx=model.onnx"), "names the graph"),
        (("--dry-run", "--engine-version", "9"), "give a version"),
        (("--dry-run", "--engine", "tensorrt", "--engine-version", "8.6"), "10.x or 11.x"),
        (("--precision", "int8"), "no Q/DQ"),
        (("--precision", "int8", "--dry-run"), "no Q/DQ"),
        (("--precision", "int9"), "fp32, fp16, bf16, int8 or fp8"),
        (("--precision", "fp16"), "the metadata of the file says fp32"),
    ],
    ids=" ".join,
)
def test_options_that_cannot_be_are_explained(refuse, graph, arguments, says):
    assert says in refuse("build", graph, "--target", "sm89", *arguments)


@pytest.mark.skipif(bool(gpus()), reason="this machine has a GPU")
@pytest.mark.parametrize("option", ["--refit", "--strip-plan"])
def test_options_that_need_a_gpu_say_so(refuse, graph, option):
    assert f"{option} needs" in refuse("build", graph, "--target", "sm89", option)


@pytest.mark.skipif(bool(gpus()), reason="this machine has a GPU")
def test_tensorrt_without_a_gpu_says_what_can_be_done(refuse, graph):
    assert "--engine tensorrt-rtx" in refuse("build", graph, "--engine", "tensorrt")
    # Not before what is wrong with the file: whoever mistypes it on the wrong machine is told both, that one first.
    missing = f"trtexec --onnx={graph.with_name('missing.onnx')}"
    assert "missing.onnx" in refuse("build", "--from-trtexec", missing)


@pytest.mark.parametrize("content", [b"", b"text", bytes(range(256)) * 9])
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_file_that_is_not_onnx_is_named(refuse, tmp_path, content, dry):
    (tmp_path / "bad.onnx").write_bytes(content)
    assert "bad.onnx" in refuse("build", tmp_path / "bad.onnx", "--target", "sm89", *dry)
    assert "nothing.onnx" in refuse("build", tmp_path / "nothing.onnx", "--target", "sm89", *dry)


@pytest.mark.parametrize(("opset", "ir"), [(99, 10), (20, 99), (26, 10)])
def test_an_opset_or_ir_version_that_is_too_new_is_named(refuse, tmp_path, opset, ir):
    relu = og.node("Relu", ["x"], ["y"])
    made = og.model([relu], [og.value("x", og.FLOAT, [1])], [og.value("y", og.FLOAT, [1])], opset=opset, ir=ir)
    text = refuse("build", og.save(made, tmp_path / "new.onnx"), "--target", "sm89")
    assert f"opset {opset}" in text
    assert "--opset" in text


def test_a_foreign_dynamic_input_without_shapes_is_named(refuse, tmp_path):
    path = og.save(og.perceptron(), tmp_path / "foreign.onnx")
    text = refuse("build", path, "--target", "sm89")
    assert "axis 0 (batch) of the input input is dynamic" in text
    assert "--max-shapes input:Nx8" in text


def test_fp8_for_sm86_is_refused(refuse, tmp_path, graph):
    import numpy as np

    path = og.to_quantized(graph, tmp_path / "m.fp8.onnx", lambda: [{"input": np.ones((2, 8), np.float32)}], "fp8")
    assert "sm86 has no fp8 arithmetic" in refuse("build", path, "--target", "sm86", "--target", "sm89")


def test_a_disk_that_fills_up_is_told(refuse, graph):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        assert "cannot write" in refuse("build", graph, "--target", "sm89")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("command", [("inspect",), ("parity", "s2mlpv2_nano")], ids=" ".join)
def test_a_tampered_engine_is_refused_wherever_it_is_used(refuse, engine, command):
    engine.write_bytes(engine.read_bytes()[:-1])
    text = refuse(*command, engine)
    assert "not the one its sidecar describes" in text
    assert f"s2mlp-deploy build {engine.with_name('model.fp32.onnx')} --engine tensorrt-rtx --target sm89" in text


def test_an_engine_without_its_sidecar_is_refused(refuse, engine):
    engine.with_name(f"{engine.name}.json").unlink()
    assert "no readable sidecar" in refuse("inspect", engine)


def test_an_engine_of_another_version_is_refused_and_shown(refuse, cli, engine):
    write_sidecar(engine, replace(read_sidecar(engine), version="1.0.0.1"))
    text = refuse("parity", "s2mlpv2_nano", engine)
    assert "version: built for 1.0.0.1" in text
    assert "build it again" in text
    assert f"s2mlp-deploy build {engine.with_name('model.fp32.onnx')} --engine tensorrt-rtx --target sm89" in text
    assert "DIFFERS version: built for 1.0.0.1" in cli("inspect", engine).told


def test_shapes_outside_the_profile_are_refused(refuse, engine):
    text = refuse("parity", "s2mlpv2_nano", engine, "--batch", "33")
    assert "33x8 of input is outside the engine's profiles" in text
    assert "1x8 to 32x8" in text


@pytest.mark.skipif(bool(gpus()), reason="this machine has a GPU")
def test_running_without_a_gpu_says_so_in_one_line(refuse, engine):
    pytest.importorskip("cuda.bindings.runtime")
    assert "running an engine needs an NVIDIA GPU, and there is none here" in refuse("parity", "s2mlpv2_nano", engine)


# Graphs for ONNX Runtime


def test_a_graph_is_optimized_for_this_processor_and_refused_for_another(cli, refuse, tmp_path):
    artifact = nano_artifact.copy_to(tmp_path / "artifact")
    result = cli("build", artifact / "model.fp32.onnx", "--engine", "onnxruntime", "--optimize-for", "cpu", "--json")
    assert result.code == 0, result.err
    record = json.loads(result.out)
    path = artifact / record["optimized"]
    assert path.name == "model.fp32.onnxruntime.cpu.onnx"
    parity = ("parity", "s2mlpv2_nano", path, "--checkpoint", nano_artifact.weights(), "--samples", 2)
    assert cli(*parity).code == 0
    sidecar = sidecar_of(path)
    sidecar.write_text(sidecar.read_text().replace(record["traits"]["architecture"], "riscv64"))
    assert "optimized for another machine" in refuse(*parity)
    sidecar.unlink()
    assert "no readable sidecar" in refuse(*parity)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(("--optimize-for", "gpu"), "choose cpu"), (("--optimize-for", "cpu", "--target", "sm89"), "--target")],
)
def test_optimizing_for_what_cannot_be_is_refused(refuse, graph, arguments, says):
    assert says in refuse("build", graph, "--engine", "onnxruntime", *arguments)


def test_doctor_tells_of_gpus_and_cuda(cli):
    document = json.loads(cli("doctor", "--json").out)
    assert [gpu["capability"] for gpu in document["gpus"]] == [gpu.capability for gpu in gpus()]
    assert {"gpus", "cuda", "engines", "machine"} <= set(document)
    names = {item["name"]: item for item in document["engines"]}
    assert names["tensorrt-rtx"]["available"]
    assert (names["tensorrt"]["version"] is None) == ("s2mlp-deploy[tensorrt]" in names["tensorrt"]["install_hint"])
    if not document["gpus"]:
        assert "no NVIDIA GPU" in cli("doctor").out


def test_openvino_compiles_and_what_it_compiled_is_inspected(cli, tmp_path):
    pytest.importorskip("openvino")
    graph = og.save(og.perceptron(metadata={"precision": "fp32"}), tmp_path / "model.fp32.onnx")
    result = cli("build", graph, "--engine", "openvino", "--json")
    assert result.code == 0, result.err
    told = json.loads(result.out)
    assert told["flavour"] == "openvino"
    shown = cli("inspect", graph.with_name(told["engine"]))
    assert shown.code == 0
    assert "openvino" in shown.out
    refused = cli("build", graph, "--engine", "openvino", "--workspace", "1G")
    assert refused.code == 2
    assert "--workspace" in refused.text
