"""trtexec's command line: a line of it read as a build of ours, and a build of ours written as such a line.

The names are those of the help text of trtexec 10 and 11, and of ``tensorrt_rtx``, the same tool for TensorRT-RTX. Two
defaults differ: trtexec allows TF32, and keeps names alone of the layers.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, get_args

from s2mlp_deploy.choices import ProfilingVerbosity
from s2mlp_deploy.engines.profiles import Shapes, parse_shapes, text_of
from s2mlp_deploy.engines.tensorrt.options import BuildOptions, parse_size
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.evidence.build import Profile
from s2mlp_deploy.text import join_names, whole_number

_TOOLS = {"trtexec": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}
_LEVELS = {"none": "none", "ampere+": "ampere+", "sameComputeCapability": "same-compute-capability"}
_OF_SHELL = re.compile(r"(?:.*(?=;$))?((?:\d*|&)>[>&]?|<|\|\|?|&&?|;)", re.DOTALL)
"""What a word that leads away from the tool begins with; a semicolon may also be its end."""

_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_MEGABYTE = 2**20
_CAPABILITIES = "computeCapabilities"
_PRECISIONS = ("fp8", "int8", "bf16", "fp16")
"""Flags for a precision, the one that decides first: int8 with fp16 was int8 over fp16."""

_STRONGLY_TYPED = "the network is strongly typed here, as all are from TensorRT 11 on: precision lies in the graph"
_ALWAYS = ("stronglyTyped", "explicitBatch", "skipInference", "buildOnly")
"""What is so in every build of ours."""

_OF_MEASURING = frozenset(
    """shapes loadInputs loadRefOutputs iterations warmUp duration sleepTime idleTime infStreams streams exposeDMA
    includeDataTransfers noDataTransfers useManagedMemory noSpinWait useSpinWait threads noCudaGraph useCudaGraph
    timeDeserialize timeRefit separateProfileRun persistentCacheRatio useProfile allocationStrategy avgRuns percentile
    dumpRefit dumpOutput dumpRawBindingsToFile dumpProfile dumpLayerInfo dumpOptimizationProfile exportTimes
    exportOutput exportProfile exportLayerInfo accuracyAlgorithm accuracyThreshold atol rtol refPair nvtxMode
    runtimeCacheFile specializeStrategyDS rtxCudaGraphStrategy""".split()  # noqa: SIM905
)
_EXPORT = "export with --precision {}, and build that file"
_REFUSED = {
    "best": (_STRONGLY_TYPED, "export a file for each precision, build each, and compare them with bench"),
    "int4": (_STRONGLY_TYPED, _EXPORT.format("int8 or fp8")),
    "calib": (_STRONGLY_TYPED, "export with --precision int8 --calibration-data IMAGES, and build that file"),
    "precisionConstraints": (_STRONGLY_TYPED, "export with --exclude REGEX: such layers stay in higher precision"),
    "layerPrecisions": (_STRONGLY_TYPED, "export with --exclude REGEX: such layers stay in higher precision"),
    "layerOutputTypes": (_STRONGLY_TYPED, "export with --exclude REGEX: such layers stay in higher precision"),
    "inputIOFormats": (_STRONGLY_TYPED, "export with --half-io for float16 inputs and outputs"),
    "outputIOFormats": (_STRONGLY_TYPED, "export with --half-io for float16 inputs and outputs"),
    "allowWeightStreaming": (
        "weights are not streamed here: it is for networks that do not fit the GPU, costs time at every run, and these "
        "have some hundred megabytes",
        "leave it out",
    ),
    "tuneBuildRoutes": ("trying several build routes is trtexec's work", "give the best one with --setBuildRoute"),
    "tuneBuildRouteFile": ("trying several build routes is trtexec's work", "give the best one with --setBuildRoute"),
    "loadEngine": ("there is nothing to build in it", "give the engine to the commands bench or inspect"),
    "refitFromOnnx": ("engines are refitted when they are loaded", "TensorRTEngine(path, weights=FILE.onnx)"),
    "useGpu": ("an engine is for the GPUs that are named", "name yours: --computeCapabilities=89; doctor shows it"),
    "runtimePlatform": ("an engine is for the system that it is built on", "build it there"),
    "model": ("Caffe's format is gone from TensorRT", "give the network as --onnx=FILE"),
    "deploy": ("Caffe's format is gone from TensorRT", "give the network as --onnx=FILE"),
    "uff": ("UFF is gone from TensorRT", "give the network as --onnx=FILE"),
}
_NOT_OFFERED = frozenset(
    """minShapesCalib optShapesCalib maxShapesCalib avgTiming minTiming noBuilderCache noCompilationCache
    errorOnTimingCacheMiss preview maxTactics tilingOptimizationLevel l2LimitForTiling excludeLeanRuntime leanDLLPath
    useRuntime tempdir tempfileControls monitorMemory directIO restricted safe consistency dumpKernelText
    buildDLAStandalone allowGPUFallback useDLACore layerDeviceTypes decomposableAttentions pluginInstanceNorm pi
    uint8AsymmetricQuantizationDLA reportCapabilityDLA adjustForDLA enablePluginOverride markDebug
    markUnfusedTensorsAsDebugTensors saveDebugTensors saveAllDebugTensors weightStreamingBudget remoteAutoTuningConfig
    cpuOnly plugins staticPlugins dynamicPlugins setPluginsToSerialize ignoreParsedPluginLibs safetyPlugins
    asyncFileReader getPlanVersionOnly batch maxBatch helpBuildRoute tuningSearch dryRun tuningCacheFile""".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class TrtexecBuild:
    """What a line of trtexec builds.

    Attributes:
        engine: ``tensorrt``, or ``tensorrt-rtx`` for a line of its tool.
        onnx: The graph.
        output: The engine; None where the line saves none.
        targets: Compute capabilities, which lines of ``tensorrt_rtx`` name; empty where the line names none.
        min_shapes: Smallest shapes, for each profile.
        opt_shapes: Shapes to tune for, for each profile.
        max_shapes: Largest shapes, for each profile.
        precision: What the line's precision flags ask for: here a condition that the graph must meet.
        options: Of the builder.
        notes: What was left aside, and why.
    """

    engine: str
    onnx: Path
    output: Path | None = None
    targets: tuple[str, ...] = ()
    min_shapes: tuple[Shapes, ...] = ()
    opt_shapes: tuple[Shapes, ...] = ()
    max_shapes: tuple[Shapes, ...] = ()
    precision: str | None = None
    options: BuildOptions = field(default_factory=BuildOptions)
    notes: tuple[str, ...] = ()


def parse_line(line: str) -> TrtexecBuild:
    """Reads a command line of trtexec.

    Raises:
        InputError: An option is unknown, has no value or a wrong one, or has no place in a build of ours; says which.
    """
    tool, words = _split(line)
    engine = _TOOLS.get(tool, "tensorrt")
    given, shapes = _sorted_out(words)
    if "onnx" not in given:
        raise InputError("the line of trtexec names no graph", fix="add --onnx=FILE")
    flags = [name for name in _PRECISIONS if name in given]
    notes = []
    if measuring := [f"--{name}" for name in given if name in _OF_MEASURING and name != "shapes"]:
        notes.append(f"{join_names(measuring)} are of measuring, which the command bench does with the engine")
    if flags:
        notes.append(f"--{flags[0]} is a condition and converts nothing: {_STRONGLY_TYPED}")
    if not shapes and (text := given.get("shapes")):
        shapes = {0: {"optShapes": text}}
    profiles = [_filled(shapes[index]) for index in sorted(shapes)]
    low, mid, high = (tuple(bounds) for bounds in zip(*profiles, strict=True)) if profiles else ((), (), ())
    return TrtexecBuild(
        engine=engine,
        onnx=Path(given["onnx"]),
        output=Path(given["saveEngine"]) if "saveEngine" in given else None,
        targets=_targets(given.get(_CAPABILITIES)),
        min_shapes=low,
        opt_shapes=mid,
        max_shapes=high,
        precision=flags[0] if flags else None,
        options=_options(given),
        notes=tuple(notes),
    )


def line_of(onnx: Path, output: Path, profiles: Sequence[Profile], options: BuildOptions) -> str:
    """The line of trtexec that builds the same.

    Args:
        onnx: The graph.
        output: The engine.
        profiles: Shapes.
        options: Of the builder.
    """
    words = ["trtexec", f"--onnx={onnx}", f"--saveEngine={output}", "--skipInference"]
    for index, profile in enumerate(profiles):
        if len(profiles) > 1:
            words.append(f"--profile={index}")
        for bound in ("min", "opt", "max"):
            shapes = ",".join(f"{_quoted(name)}:{text_of(getattr(ranges, bound))}" for name, ranges in profile.items())
            words.append(f"--{bound}Shapes={shapes}")
    # Needed by 10, and taken by 11, which knows nothing else.
    words += ["--stronglyTyped", f"--profilingVerbosity={options.profiling_verbosity}"]
    if options.hardware_compatible != "none":
        names = {ours: theirs for theirs, ours in _LEVELS.items()}
        words.append(f"--hardwareCompatibilityLevel={names[options.hardware_compatible]}")
    for name, value in (
        ("noTF32", not options.tf32),
        ("memPoolSize", None if options.workspace is None else f"workspace:{_size(options.workspace)}"),
        ("builderOptimizationLevel", options.builder_optimization_level),
        ("sparsity", "enable" if options.sparsity else None),
        ("maxAuxStreams", options.max_aux_streams),
        ("tacticSources", options.tactic_sources),
        ("setBuildRoute", options.build_route),
        ("versionCompatible", options.version_compatible),
        ("refit", options.refit),
        ("stripWeights", options.strip_plan),
        ("timingCacheFile", options.timing_cache),
        ("device", options.device or None),
        ("verbose", options.verbose),
    ):
        if value is True:
            words.append(f"--{name}")
        elif value is not None and value is not False:
            words.append(f"--{name}={value}")
    return shlex.join(words)


def _split(line: str) -> tuple[str, list[str]]:
    """The tool that a line calls, empty where it begins with options, and the words that it gives it.

    Raises:
        InputError: The line calls something else, or more than the tool.
    """
    try:
        # As a shell reads them: lines that a backslash continues are one.
        words = shlex.split(re.sub(r"\\\r?\n", "", line))
    except ValueError as error:
        raise InputError(f"the line of trtexec cannot be read: {error}", fix="close the quotes") from None
    tools = [_tool_of(word) for word in words]
    start = next((index for index, tool in enumerate(tools) if tool in _TOOLS), None)
    if start is None and words and not words[0].startswith("-"):
        raise InputError(
            f"{words[0]!r:.100} is neither {join_names(_TOOLS, last='nor')}",
            fix="give a line of one of them; what another tool builds `build FILE.onnx` builds with options of its own",
        )
    if start:
        before = " ".join(words[:start])
        raise InputError(
            f"{before!r:.100} stands before {tools[start]}, and is for the shell",
            fix=f"leave it out of the line, and write {before:.100} before s2mlp-deploy"
            if all(map(_ASSIGNMENT.match, words[:start]))
            else "leave it out of the line: s2mlp-deploy builds, and runs no trtexec",
        )
    for index, word in enumerate(words):
        if found := _OF_SHELL.match(word):
            rest = [word[found.start(1) :], *words[index + 1 :]]
            raise InputError(
                f"{found[1]!r} is for the shell, and no option of trtexec",
                fix=f"leave {' '.join(rest)!r:.100} out of the line, and write it behind s2mlp-deploy's own words",
            )
    return ("", words) if start is None else (tools[0], words[1:])


def _tool_of(word: str) -> str:
    """The name of a program, however its path is written; empty for an option."""
    return "" if word.startswith("-") else PurePath(word.replace("\\", "/")).name.removesuffix(".exe")


def _sorted_out(words: Sequence[str]) -> tuple[dict[str, str], dict[int, dict[str, str]]]:
    """The options by name, and the shapes by profile.

    Raises:
        InputError: One is unknown, refused, or given twice.
    """
    given: dict[str, str] = {}
    shapes: dict[int, dict[str, str]] = {}
    index = 0
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not name:
            raise InputError(f"{word!r} is no option of trtexec", fix="write --option=value")
        name = _SHORT.get(name, name)
        _check_known(name)
        if (name in _READERS or name in _SHAPES) and not (equals and value):
            raise InputError(f"--{name} of trtexec has no value", fix=f"write --{name}=VALUE")
        if name == "profile":
            index = _number(name, value)
            continue
        place = shapes.setdefault(index, {}) if name in _SHAPES else given
        if name in place:
            raise InputError(f"the line of trtexec has --{name} twice", fix="leave one out")
        place[name] = value
    return given, shapes


def _check_known(name: str) -> None:
    if name in _REFUSED:
        reason, fix = _REFUSED[name]
        raise InputError(f"--{name} of trtexec has no place here: {reason}", fix=fix)
    if name in _NOT_OFFERED:
        raise InputError(f"--{name} of trtexec is not offered here", fix="leave it out, or build with trtexec itself")
    if name not in {*_READERS, *_SHAPES, *_FLAGS, *_ALWAYS, *_OF_MEASURING, *_PRECISIONS, "profile"}:
        raise InputError(f"trtexec has no option --{name} that is known here", fix="check its name, or leave it out")


def _options(given: Mapping[str, str]) -> BuildOptions:
    # trtexec's own defaults, where they are not ours.
    values: dict[str, Any] = {"tf32": True, "profiling_verbosity": "layer_names_only"}
    for name, value in given.items():
        if name in _FLAGS:
            values |= _FLAGS[name]
        elif name in _READERS:
            values |= _READERS[name](value)
    return BuildOptions(**values)


def _filled(texts: Mapping[str, str]) -> tuple[Shapes, Shapes, Shapes]:
    low, mid, high = (parse_shapes(texts[name].replace("'", "")) if name in texts else None for name in _SHAPES)
    some = mid or high or low or {}
    return low or some, mid or some, high or some


def _targets(text: str | None) -> tuple[str, ...]:
    numbers = [] if text is None else [whole_number(part) for part in text.split(",")]
    if None in numbers:
        raise InputError(
            f"--{_CAPABILITIES}={text:.100} of trtexec names no GPUs", fix="write numbers joined by commas: 86,89"
        )
    return tuple(f"sm{number}" for number in numbers)


def _pool(text: str) -> dict[str, Any]:
    found = {}
    for part in text.split(","):
        pool, colon, size = part.partition(":")
        if pool != "workspace" or not colon:
            raise InputError(f"the memory pool {part!r} of trtexec is not offered here", fix="give workspace:SIZE")
        # A number alone is of MiB.
        found["workspace"] = parse_size(size.removesuffix("B") if size[-1:].isalpha() else f"{size}M")
    return found


def _sparsity(text: str) -> dict[str, Any]:
    if text == "force":
        raise InputError(
            "--sparsity=force of trtexec has no place here: it overwrites weights",
            fix="prune and train the network, then --sparsity=enable",
        )
    return {"sparsity": _among("sparsity", text, ("disable", "enable")) == "enable"}


def _among(name: str, value: str, choices: Sequence[str]) -> str:
    if value not in choices:
        raise InputError(f"--{name}={value} of trtexec is no choice", fix=f"choose {join_names(choices, last='or')}")
    return value


def _number(name: str, value: str) -> int:
    number = whole_number(value)
    if number is None:
        raise InputError(f"--{name}={value:.100} of trtexec is no number", fix="give 0 or more")
    return number


def _size(size: int) -> str:
    return f"{size // _MEGABYTE}M" if size % _MEGABYTE == 0 else f"{size}B"


def _quoted(name: str) -> str:
    """A name with a colon in it stands between quotes."""
    return f"'{name}'" if ":" in name else name


_SHORT = {"vc": "versionCompatible", "v": "verbose"}
_SHAPES = ("minShapes", "optShapes", "maxShapes")
_FLAGS: dict[str, dict[str, Any]] = {
    "noTF32": {"tf32": False},
    "versionCompatible": {"version_compatible": True},
    "refit": {"refit": True},
    "stripWeights": {"strip_plan": True},
    "stripAllWeights": {"strip_plan": True, "refit": True},
    "verbose": {"verbose": True},
}
_READERS: dict[str, Callable[[str], dict[str, Any]]] = {
    "onnx": lambda _: {},
    "saveEngine": lambda _: {},
    _CAPABILITIES: lambda _: {},
    "memPoolSize": _pool,
    "workspace": lambda text: _pool(f"workspace:{text}"),
    "builderOptimizationLevel": lambda text: {"builder_optimization_level": _number("builderOptimizationLevel", text)},
    "maxAuxStreams": lambda text: {"max_aux_streams": _number("maxAuxStreams", text)},
    "sparsity": _sparsity,
    "tacticSources": lambda text: {"tactic_sources": text},
    "setBuildRoute": lambda text: {"build_route": text},
    "profilingVerbosity": lambda text: {
        "profiling_verbosity": _among("profilingVerbosity", text, get_args(ProfilingVerbosity))
    },
    "hardwareCompatibilityLevel": lambda text: {
        "hardware_compatible": _LEVELS[_among("hardwareCompatibilityLevel", text, tuple(_LEVELS))]
    },
    "timingCacheFile": lambda text: {"timing_cache": Path(text)},
    "device": lambda text: {"device": _number("device", text)},
}
