"""Lines of trtexec, read and written."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from s2mlp_deploy.engines.tensorrt.options import BuildOptions, parse_size
from s2mlp_deploy.engines.tensorrt.trtexec import line_of, parse_line
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.evidence.build import InputProfile

THEIRS = {"tf32": True, "profiling_verbosity": "layer_names_only"}
"""Defaults of trtexec that are not ours."""


def options(line: str) -> BuildOptions:
    return parse_line(f"trtexec --onnx=m.onnx {line}").options


def test_a_whole_line_is_read():
    read = parse_line(
        "/usr/src/tensorrt/bin/trtexec --onnx='my model.onnx' --saveEngine=m.plan --minShapes=x:1x3x8x8,\"'a:0':1x4\" "
        "--optShapes=x:4x3x8x8,a:0:4x4 --maxShapes=x:8x3x8x8,a:0:8x4 --memPoolSize=workspace:4096 --noTF32 "
        "--builderOptimizationLevel=5 --stronglyTyped --skipInference --profilingVerbosity=detailed "
        "--timingCacheFile=cache.bin --iterations=100 --useCudaGraph"
    )
    assert (read.engine, read.onnx, read.output) == ("tensorrt", Path("my model.onnx"), Path("m.plan"))
    assert read.min_shapes == ({"x": (1, 3, 8, 8), "a:0": (1, 4)},)
    assert read.max_shapes == ({"x": (8, 3, 8, 8), "a:0": (8, 4)},)
    assert read.precision is None
    assert read.options == BuildOptions(workspace=2**32, builder_optimization_level=5, timing_cache=Path("cache.bin"))
    (note,) = read.notes
    assert note.startswith("--iterations and --useCudaGraph are of measuring")


def test_a_line_over_several_lines_is_one():
    read = parse_line("trtexec --onnx=m.onnx \\\n    --noTF32 \\\r\n    --saveEngine=m.plan\n")
    assert (read.onnx, read.output, read.options.tf32) == (Path("m.onnx"), Path("m.plan"), False)


@pytest.mark.parametrize(
    ("line", "says", "fix"),
    [
        (
            "CUDA_VISIBLE_DEVICES=1 A='b c' trtexec --onnx=m.onnx",
            "before trtexec",
            "write CUDA_VISIBLE_DEVICES=1 A=b c",
        ),
        ("sudo -E ./trtexec --onnx=m.onnx", "'sudo -E' stands before trtexec", "runs no trtexec"),
        ("trtexec --onnx=m.onnx > log.txt 2>&1", "'>' is for the shell", "leave '> log.txt 2>&1' out"),
        ("trtexec --onnx=m.onnx 2>/dev/null", "'2>' is for the shell", "leave '2>/dev/null' out"),
        ("trtexec --onnx=m.onnx &>> log", "'&>>' is for the shell", "leave '&>> log' out"),
        ("trtexec --onnx=m.onnx --fp16 | tee log", "'|' is for the shell", "leave '| tee log' out"),
        ("trtexec --onnx=m.onnx && echo done", "'&&' is for the shell", "leave '&& echo done' out"),
        ("--onnx=m.onnx; echo done", "';' is for the shell", "leave '; echo done' out"),
        ("polygraphy run m.onnx --trt", "'polygraphy' is neither trtexec nor tensorrt_rtx", "build FILE.onnx"),
        ("trtexec m.onnx", "'m.onnx' is no option", "--option=value"),
    ],
)
def test_what_a_line_has_beside_the_tool_is_told_with_where_it_goes(line, says, fix):
    with pytest.raises(InputError) as caught:
        parse_line(line)
    assert says in caught.value.problem
    assert fix in caught.value.fix


def test_signs_of_the_shell_between_quotes_are_of_the_name():
    assert parse_line("trtexec --onnx='a (1) & b.onnx' --saveEngine=c#1").onnx == Path("a (1) & b.onnx")


def test_a_line_of_the_tool_of_rtx_names_the_gpus_that_it_builds_for():
    read = parse_line(
        "tensorrt_rtx --onnx=m.onnx --saveEngine=m.plan --computeCapabilities=75,86,120 --skipInference "
        "--runtimeCacheFile=kernels.bin --specializeStrategyDS=eager --rtxCudaGraphStrategy=wholeGraph"
    )
    assert (read.engine, read.targets) == ("tensorrt-rtx", ("sm75", "sm86", "sm120"))
    (note,) = read.notes
    assert "--runtimeCacheFile" in note
    assert parse_line("trtexec --onnx=m.onnx").targets == ()


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("", {}),
        ("--noTF32", {"tf32": False}),
        ("--memPoolSize=workspace:2G", {"workspace": 2**31}),
        ("--memPoolSize=workspace:0.5M", {"workspace": 2**19}),
        ("--memPoolSize=workspace:1024B", {"workspace": 1024}),
        ("--workspace=16", {"workspace": 2**24}),
        ("--sparsity=enable", {"sparsity": True}),
        ("--sparsity=disable", {}),
        ("--maxAuxStreams=0", {"max_aux_streams": 0}),
        ("--tacticSources=-CUDNN,+CUBLAS", {"tactic_sources": "-CUDNN,+CUBLAS"}),
        ("--setBuildRoute='-a=on -b=off'", {"build_route": "-a=on -b=off"}),
        ("--vc", {"version_compatible": True}),
        ("--versionCompatible", {"version_compatible": True}),
        ("--hardwareCompatibilityLevel=sameComputeCapability", {"hardware_compatible": "same-compute-capability"}),
        ("--refit", {"refit": True}),
        ("--stripWeights", {"strip_plan": True}),
        ("--stripAllWeights", {"strip_plan": True, "refit": True}),
        ("--device=1", {"device": 1}),
        ("--verbose", {"verbose": True}),
        ("--profilingVerbosity=none", {"profiling_verbosity": "none"}),
    ],
)
def test_each_option_becomes_one_of_ours(words, values):
    assert options(words) == BuildOptions(**THEIRS | values)


@pytest.mark.parametrize(
    ("words", "precision"),
    [("--fp16", "fp16"), ("--int8 --fp16", "int8"), ("--bf16", "bf16"), ("--fp8 --fp16", "fp8"), ("", None)],
)
def test_a_precision_is_a_condition_and_that_is_said(words, precision):
    read = parse_line(f"--onnx=m.onnx {words}")
    assert read.precision == precision
    assert bool(read.notes) == bool(words)
    assert all("converts nothing: the network is strongly typed" in note for note in read.notes)


def test_shapes_alone_are_those_to_build_for():
    assert parse_line("--onnx=m --shapes=x:2x3").opt_shapes == ({"x": (2, 3)},)
    both = parse_line("--onnx=m --shapes=x:2x3 --optShapes=x:4x3")
    assert both.min_shapes == both.opt_shapes == both.max_shapes == ({"x": (4, 3)},)


def test_profiles_are_kept_apart():
    read = parse_line("--onnx=m --profile=1 --optShapes=x:8x3 --profile=0 --minShapes=x:1x3 --maxShapes=x:2x3")
    assert read.min_shapes == ({"x": (1, 3)}, {"x": (8, 3)})
    assert read.opt_shapes == ({"x": (2, 3)}, {"x": (8, 3)})


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--fp17", "no option --fp17 that is known here"),
        ("-v", "'-v' is no option"),
        ("model.onnx", "'model.onnx' is no option"),
        ("--best", "strongly typed"),
        ("--int4", "strongly typed"),
        ("--calib=cache", "--calibration-data"),
        ("--layerPrecisions=a:fp32", "--exclude"),
        ("--precisionConstraints=obey", "--exclude"),
        ("--inputIOFormats=fp16:chw", "--half-io"),
        ("--allowWeightStreaming", "weights are not streamed here: it is for networks that do not fit"),
        ("--tuneBuildRoutes=-a=[on|off]", "--setBuildRoute"),
        ("--loadEngine=m.plan", "commands bench or inspect"),
        ("--useDLACore=0", "--useDLACore of trtexec is not offered"),
        ("--sparsity=force", "prune"),
        ("--sparsity=maybe", "disable or enable"),
        ("--memPoolSize=dlaSRAM:1", "workspace:SIZE"),
        ("--memPoolSize=workspace:", "is not a size"),
        ("--memPoolSize=workspace:lots", "is not a size"),
        ("--builderOptimizationLevel=high", "no number"),
        ("--builderOptimizationLevel", "has no value"),
        ("--saveEngine=", "has no value"),
        ("--onnx=n.onnx", "--onnx twice"),
        ("--minShapes=x:1 --minShapes=x:2", "--minShapes twice"),
        ("--minShapes=x:scalar", "is not a shape"),
        ("--profilingVerbosity=loud", "detailed, layer_names_only or none"),
        ("--hardwareCompatibilityLevel=hopper+", "none, ampere[+] or sameComputeCapability"),
        ("--tempdir='", "close the quotes"),
        ("--computeCapabilities=86,current", "numbers joined by commas: 86,89"),
        ("--computeCapabilities=", "has no value"),
        ("--useGpu", "--computeCapabilities=89"),
    ],
)
def test_what_cannot_be_read_is_named_with_what_to_do(words, says):
    with pytest.raises(InputError) as caught:
        parse_line(f"trtexec --onnx=m.onnx {words}")
    assert says.replace("[+]", "+") in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize("line", ["", "trtexec", "trtexec --saveEngine=a"])
def test_a_line_without_a_graph_is_refused(line):
    with pytest.raises(InputError, match="names no graph"):
        parse_line(line)


ALL = BuildOptions(
    workspace=3 * 2**20,
    builder_optimization_level=4,
    tf32=True,
    sparsity=True,
    max_aux_streams=2,
    tactic_sources="-JIT_CONVOLUTIONS",
    build_route="-a=on -b=off",
    profiling_verbosity="none",
    version_compatible=True,
    hardware_compatible="same-compute-capability",
    refit=True,
    strip_plan=True,
    timing_cache=Path("a cache.bin"),
    device=3,
    verbose=True,
)


@pytest.mark.parametrize("chosen", [BuildOptions(), ALL, BuildOptions(workspace=1000)])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_what_is_written_is_read_as_the_same(chosen, count):
    ranges = {"a:0": InputProfile((1, 3), (2, 3), (4, 3)), "b": InputProfile((5,), (5,), (5,))}
    line = line_of(Path("my model.onnx"), Path("out.engine"), (ranges,) * count, chosen)
    assert shlex.split(line)[0] == "trtexec"
    read = parse_line(line)
    assert (read.onnx, read.output, read.options) == (Path("my model.onnx"), Path("out.engine"), chosen)
    assert read.min_shapes == ({"a:0": (1, 3), "b": (5,)},) * count
    assert read.max_shapes == ({"a:0": (4, 3), "b": (5,)},) * count
    assert read.notes == ()


@pytest.mark.parametrize("digits", ["\u00b2", "9" * 5000, "\u0663"])
def test_digits_that_are_no_number_are_told_in_short(digits):
    for option in ("builderOptimizationLevel", "maxAuxStreams", "device", "profile"):
        with pytest.raises(InputError, match="no number") as caught:
            parse_line(f"trtexec --onnx=a.onnx --{option}={digits}")
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize("size", ["9" * 400, "9" * 400 + "G", "9" * 19, "0"])
def test_a_size_that_no_memory_has_is_refused(size):
    with pytest.raises(InputError, match="is not a size"):
        parse_size(size)
