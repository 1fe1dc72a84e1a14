"""What differs between TensorRT 10, TensorRT 11 and TensorRT-RTX: the only place that says so.

Names of the libraries' own API stand here as text and are compared, with every other name the package uses, with the
public API of all three (``tests/engines/tensorrt/test_trt_api_names.py``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from s2mlp_deploy.errors import TargetError
from s2mlp_deploy.text import whole_number

FP8_CAPABILITY = 89
"""The first compute capability with fp8 arithmetic: RTX says `Cannot compile for target(s) sm86, because the model
contains HW-specific datatypes: fp8_e4m3`."""

# What the ONNX parser of TensorRT-RTX 1.7.1.116 answers no to (OnnxParser.supports_operator over every operator of
# onnx 1.23). The operator table of TensorRT 10.15 names the same ones, but for DeformConv, which has a plugin there.
_NO_IMPORTER = frozenset(
    """AffineGrid Bernoulli BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CenterCropPad Col2Im Compress
    ConcatFromSequence ConvInteger CumProd DFT Det DynamicQuantizeLinear ImageDecoder MatMulInteger MaxRoiPool
    MaxUnpool MelWeightMatrix Multinomial NegativeLogLikelihoodLoss Optional OptionalGetElement
    OptionalHasElement QLinearConv QLinearMatMul RegexFullMatch SequenceAt SequenceConstruct SequenceEmpty
    SequenceErase SequenceInsert SequenceLength SequenceMap SoftmaxCrossEntropyLoss SplitToSequence StringConcat
    StringNormalizer StringSplit SwiGLU TfIdfVectorizer Unique""".split()  # noqa: SIM905
)
# From the change log of the ONNX parser.
_SINCE = {
    "DeformConv": (10, 1),
    "BlackmanWindow": (10, 4),
    "HammingWindow": (10, 4),
    "HannWindow": (10, 4),
    "STFT": (10, 5),
    "Attention": (10, 14),
    "RotaryEmbedding": (10, 15),
    "RMSNormalization": (10, 15),
    "TensorScatter": (10, 15),
}
# Same source: inputs that had to be initializers before that version.
_TENSOR_AXES_SINCE = {"Slice": (10, 3), "Pad": (10, 4)}
_TACTIC_SOURCES = ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")
# Gone with 11: these libraries are no longer asked for kernels.
_TACTIC_SOURCES_OF_10 = ("CUBLAS", "CUBLAS_LT", "CUDNN")
_BUILD_ROUTES_SINCE = (11, 1)
_LEVELS_SINCE = {"same-compute-capability": (10, 9)}
# Of TensorRT-RTX: ComputeCapability in the bindings of 1.4 and 1.5.
_TARGETS_SINCE = {"sm121": (1, 5)}

Version = tuple[int, ...]
_VERSION = re.compile(r"(?P<numbers>\d{1,9}(\.\d{1,9})*)((a|b|rc|\.post|\.dev|\+).*)?", re.ASCII)


@dataclass(frozen=True)
class Flavour:
    """One of the libraries.

    Attributes:
        name: On the command line.
        title: In messages.
        module: What is imported.
        distribution: What ``pip`` calls it.
        extra: The extra of this package that installs it.
        version: The version that is meant when none is installed or given.
        targets: Compute capabilities it compiles for without such a GPU; empty where it compiles for the GPU at hand.
        builds_without_gpu: Whether an engine can be built on a machine without a GPU.
        hardware_levels: Values of ``--hardware-compatible`` and their names in ``HardwareCompatibilityLevel``.
        timing_cache: Whether a timing cache changes anything.
        needs: Options that cannot be used without something, and what that is.
        refused: Options that it does not have at all, and why.
        later_majors: Majors whose runtimes load the version-compatible engines of a major, each in later versions only;
            empty where engines never load in another version.
        tactic_sources: Names in ``TacticSource``.
        build_routes: Whether the builder's internal options can be chosen (``IBuilderConfig.build_route``).
        max_opset: The newest opset it is documented for, or was built with here.
        no_fp32_gemm: Targets for which it compiles no fp32 MatMul or Gemm.
        own_cuda_graphs: Whether the library captures CUDA graphs itself (``IRuntimeConfig.cuda_graph_strategy``).
        no_importer: Standard operators that its parser refuses.
        since: Operators that its parser takes from a version on.
        tensor_axes_since: Operators whose axes may be computed from a version on.
    """

    name: str
    title: str
    module: str
    distribution: str
    extra: str
    version: Version
    targets: tuple[str, ...]
    builds_without_gpu: bool
    hardware_levels: Mapping[str, str]
    timing_cache: bool
    needs: Mapping[str, str]
    max_opset: int
    own_cuda_graphs: bool
    refused: Mapping[str, str] = field(default_factory=dict)
    later_majors: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    tactic_sources: tuple[str, ...] = _TACTIC_SOURCES
    build_routes: bool = False
    no_fp32_gemm: tuple[str, ...] = ()
    no_importer: frozenset[str] = _NO_IMPORTER
    since: Mapping[str, Version] = field(default_factory=dict)
    tensor_axes_since: Mapping[str, Version] = field(default_factory=dict)

    @property
    def version_text(self) -> str:
        """``10.16``."""
        return ".".join(map(str, self.version))

    def loads(self, built: str, here: str, *, version_compatible: bool) -> bool:
        """Whether a runtime of one version loads an engine of another.

        Args:
            built: The version that built the engine.
            here: That of the runtime.
            version_compatible: Whether the engine was built with ``--version-compatible``.
        """
        older, newer = numbers_of(built), numbers_of(here)
        # A package may be a later packing of the same library, which itself does not know: 10.14.1.48.post1.
        if built == here or (older and older == newer):
            return True
        if not (version_compatible and older and newer):
            return False
        # "Two combinations are supported across major versions": TensorRT's support matrix. Of those, 10 in 11 is ours.
        return newer[0] in self.later_majors.get(older[0], ()) and older <= newer


_LEVELS = {"none": "NONE", "ampere+": "AMPERE_PLUS", "same-compute-capability": "SAME_COMPUTE_CAPABILITY"}

_TENSORRT = Flavour(
    name="tensorrt",
    title="TensorRT",
    module="tensorrt",
    distribution="tensorrt",
    extra="tensorrt",
    version=(11, 4),
    targets=(),
    builds_without_gpu=False,
    hardware_levels=_LEVELS,
    timing_cache=True,
    needs={},
    # The parser's operator table of 10.15: "opset 9 to opset 24".
    max_opset=24,
    own_cuda_graphs=False,
    later_majors={10: (10, 11), 11: (11,)},
    build_routes=True,
    since=_SINCE,
    tensor_axes_since=_TENSOR_AXES_SINCE,
)
_TENSORRT_RTX = Flavour(
    name="tensorrt-rtx",
    title="TensorRT-RTX",
    module="tensorrt_rtx",
    distribution="tensorrt-rtx",
    extra="rtx",
    version=(1, 7),
    # tensorrt_rtx.ComputeCapability without NONE and CURRENT.
    targets=("sm75", "sm80", "sm86", "sm89", "sm120", "sm121"),
    builds_without_gpu=True,
    # "setHardwareCompatibilityLevel() is unsupported in TensorRT-RTX": several targets do that work.
    hardware_levels={},
    # "Timing cache operations are no-ops in TensorRT-RTX": kernels are chosen on the user's GPU.
    timing_cache=False,
    # Both were tried on a machine without a GPU and failed at the end of the build.
    needs={
        "refit": "an NVIDIA GPU on the building machine",
        "strip_plan": "an NVIDIA GPU on the building machine",
    },
    refused={
        # "TensorRT-RTX engines are not compatible between different releases of TensorRT-RTX."
        "version_compatible": "its engines load in no other release: build one for each",
        # Its configuration has the attribute, which stays empty.
        "build_route": "its builder has no routes to choose from",
    },
    # Built here up to the newest opset that `export` writes; the parser itself checks no opset.
    max_opset=25,
    own_cuda_graphs=True,
    # "Cannot compile operation for Turing (SM75): FP32 GEMM is not supported"; fp32 convolutions are.
    no_fp32_gemm=("sm75",),
    no_importer=_NO_IMPORTER | {"DeformConv"},
)


def numbers_of(version: str) -> Version:
    """The numbers of a version without what marks a packing or a preview: (10, 14, 1) of ``10.14.1.post1``."""
    found = _VERSION.fullmatch(version)
    return tuple(map(int, found["numbers"].split("."))) if found else ()


NAMES = (_TENSORRT.name, _TENSORRT_RTX.name)
_MAJORS = {"tensorrt": (10, 11), "tensorrt-rtx": (1,)}
# "Built-in CUDA Graphs" came with TensorRT-RTX 1.2, and engines are run with them.
_FIRST = {"tensorrt": (10, 0), "tensorrt-rtx": (1, 2)}


def flavour(name: str, version: str | None = None) -> Flavour:
    """The flavour of that name.

    Args:
        name: ``tensorrt`` or ``tensorrt-rtx``.
        version: ``10``, ``10.16``, ``11.4.0.106``; None for the newest known one.

    Raises:
        TargetError: There is no such flavour, or the version is none that this package knows.
    """
    if name not in NAMES:
        raise TargetError(f"there is no engine builder {name!r}", fix=f"choose one of {', '.join(NAMES)}")
    found = _TENSORRT_RTX if name == _TENSORRT_RTX.name else _TENSORRT
    if version is None:
        return found
    numbers = numbers_of(version)
    # A major alone means its newest minor: nothing is refused that some 10.x can do.
    meant = numbers if len(numbers) > 1 else (*numbers, 99)
    if not numbers or numbers[0] not in _MAJORS[name] or meant < _FIRST[name]:
        majors = " or ".join(f"{major}.x" for major in _MAJORS[name])
        since = f" from {'.'.join(map(str, _FIRST[name]))} on" if _FIRST[name][1] else ""
        raise TargetError(
            f"{found.title} {version} is not known here",
            fix=f"give a version {majors}{since}, such as {found.version_text}",
        )
    if found is _TENSORRT_RTX:
        targets = tuple(target for target in found.targets if meant >= _TARGETS_SINCE.get(target, ()))
        return replace(found, version=meant, targets=targets)
    sources = found.tactic_sources + (_TACTIC_SOURCES_OF_10 if meant[0] == 10 else ())
    levels = {name: level for name, level in found.hardware_levels.items() if meant >= _LEVELS_SINCE.get(name, ())}
    return replace(
        found,
        version=meant,
        tactic_sources=sources,
        build_routes=meant >= _BUILD_ROUTES_SINCE,
        hardware_levels=levels,
    )


def capability_of(target: str) -> int:
    """The number of a target: 89 of ``sm89``; 0 of what is no target, as sidecars of others may say."""
    return whole_number(target.removeprefix("sm")) or 0


def check_targets(found: Flavour, targets: tuple[str, ...]) -> None:
    """Refuses targets that the flavour does not know.

    Raises:
        TargetError: Lists the known ones.
    """
    if found.targets:
        unknown = [target for target in targets if target not in found.targets]
        if unknown or not targets:
            raise TargetError(
                f"{found.title} {found.version_text} has no target {', '.join(map(repr, unknown))}"
                if unknown
                else f"{found.title} builds for the targets that it is given, and there is none",
                fix=f"choose from {', '.join(found.targets)} with --target",
            )
        return
    unknown = [target for target in targets if not (target.startswith("sm") and capability_of(target))]
    if unknown or len(targets) > 1:
        raise TargetError(
            f"{found.title} has no target {', '.join(map(repr, unknown or targets))}",
            fix=f"{found.title} builds for the GPU of the building machine: leave --target out, or name that GPU "
            "(sm90, for example) and pass --hardware-compatible for others",
        )
