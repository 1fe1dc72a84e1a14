"""Will this file build for that flavour, version and GPU? Answered from the file: no builder needs to be installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from s2mlp_deploy.engines.profiles import Shapes, make_profiles
from s2mlp_deploy.engines.tensorrt.flavours import Flavour, check_targets
from s2mlp_deploy.engines.tensorrt.graph import OnnxFile, module_of
from s2mlp_deploy.engines.tensorrt.quantized import Quantization, examine
from s2mlp_deploy.engines.tensorrt.rules import RULES, Violation
from s2mlp_deploy.errors import BuildError, InputError
from s2mlp_deploy.evidence.build import Profile

_SHOWN = 3


@dataclass(frozen=True)
class Finding:
    """Something that would fail the build.

    Attributes:
        rule: Its short name.
        problem: What is wrong.
        nodes: Which nodes, in the graph's order; empty where it is the whole file.
        modules: The modules they belong to.
        lines: Source lines, where the file knows them.
        fix: The option that mends it.
    """

    rule: str
    problem: str
    nodes: tuple[str, ...]
    modules: tuple[str, ...]
    lines: tuple[str, ...]
    fix: str


@dataclass(frozen=True)
class Preflight:
    """What a dry run says.

    Attributes:
        onnx: The file.
        flavour: Of the builder.
        version: Of the builder that was asked about.
        targets: Compute capabilities asked about.
        precision: The precision that the file's metadata names; None where it names none.
        opset: Of the file.
        nodes: How many nodes it has.
        profiles: The shapes an engine would take.
        quantization: What the Q/DQ pairs of the file do; None where it has none.
        findings: What would fail the build.
    """

    onnx: str
    flavour: str
    version: str
    targets: tuple[str, ...]
    precision: str | None
    opset: int
    nodes: int
    profiles: tuple[Profile, ...]
    quantization: Quantization | None
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing would fail."""
        return not self.findings


def find(file: OnnxFile, flavour: Flavour, targets: tuple[str, ...]) -> tuple[Finding, ...]:
    """Everything in the graph that the flavour cannot build, equal problems together."""
    groups: dict[tuple[str, str, str], list[Violation]] = {}
    for name, rule in RULES.items():
        for violation in rule(file, flavour, targets):
            groups.setdefault((name, violation.problem, violation.fix), []).append(violation)
    findings = []
    for (name, problem, fix), violations in groups.items():
        nodes = tuple(dict.fromkeys(violation.node for violation in violations if violation.node))
        findings.append(
            Finding(
                name,
                problem,
                nodes,
                tuple(dict.fromkeys(filter(None, map(module_of, nodes)))),
                tuple(dict.fromkeys(filter(None, map(file.line_of, nodes)))),
                fix,
            )
        )
    return tuple(findings)


def preflight(
    file: OnnxFile,
    flavour: Flavour,
    targets: tuple[str, ...],
    min_shapes: Sequence[Shapes] = (),
    opt_shapes: Sequence[Shapes] = (),
    max_shapes: Sequence[Shapes] = (),
) -> Preflight:
    """A dry run.

    Args:
        file: The graph.
        flavour: The builder, in the version that is meant.
        targets: Compute capabilities; may be empty for a flavour that builds for the GPU at hand.
        min_shapes: Smallest shapes, for each profile.
        opt_shapes: Shapes to tune for, for each profile.
        max_shapes: Largest shapes, for each profile.

    Raises:
        TargetError: A target does not exist.
        InputError: Given shapes do not fit the graph.
    """
    if targets or flavour.targets:
        check_targets(flavour, targets)
    findings = (*find(file, flavour, targets), *_unchecked(file))
    profiles: tuple[Profile, ...] = ()
    try:
        profiles = profiles_of(file, min_shapes, opt_shapes, max_shapes)
    except InputError as error:
        if min_shapes or opt_shapes or max_shapes:
            raise
        findings = (*findings, Finding("shapes", error.problem, (), (), (), error.fix or ""))
    return Preflight(
        onnx=file.path.name,
        flavour=flavour.name,
        version=flavour.version_text,
        targets=targets,
        precision=file.precision,
        opset=file.opset,
        nodes=len(file.nodes),
        profiles=profiles,
        quantization=examine(file),
        findings=findings,
    )


def _unchecked(file: OnnxFile) -> tuple[Finding, ...]:
    """What no rule could judge: most rules are about types, and these are not known, or do not fit together.

    A dry run only: a real build asks the parser itself.
    """
    from s2mlp_deploy.graph.checking import problem_of  # It needs onnx, which only reading a file asks for.

    if problem := problem_of(file.model):
        return (
            Finding(
                "shapes",
                f"the graph's types and shapes do not fit together: {problem}",
                (),
                (),
                (),
                "write the file again with the tool that made it",
            ),
        )
    unknown = [node for node in file.nodes if any(value.name and value.dtype is None for value in node.outputs)]
    if not unknown:
        return ()
    names = tuple(node.name or node.op_type for node in unknown)
    return (
        Finding(
            "types",
            f"the types of {len(unknown)} of {len(file.nodes)} nodes cannot be inferred, so they were not checked",
            names,
            (),
            (),
            "build it without --dry-run, which asks the parser, or write the types into the file",
        ),
    )


def profiles_of(
    file: OnnxFile, min_shapes: Sequence[Shapes], opt_shapes: Sequence[Shapes], max_shapes: Sequence[Shapes]
) -> tuple[Profile, ...]:
    """The profiles of a file: our own artifacts have a batch of 1 to 32, of a foreign file nothing is assumed.

    Raises:
        InputError: As :func:`~s2mlp_deploy.engines.profiles.make_profiles`.
    """
    if file.ours:
        return make_profiles(file.inputs, min_shapes, opt_shapes, max_shapes, limits=file.limits)
    return make_profiles(file.inputs, min_shapes, opt_shapes, max_shapes, default_batches=None, limits=file.limits)


def refuse(file: OnnxFile, findings: Sequence[Finding], flavour: Flavour) -> None:
    """Raises for what would fail, the first findings in words.

    Raises:
        BuildError: There is at least one finding.
    """
    if not findings:
        return
    lines = [f"{finding.problem}{_places(finding)}" for finding in findings]
    raise BuildError(
        f"{flavour.title} {flavour.version_text} cannot build this graph:\n    " + "\n    ".join(lines),
        where=str(file.path),
        fix="\n         ".join(dict.fromkeys(finding.fix for finding in findings)),
    )


def _places(finding: Finding) -> str:
    if not finding.nodes:
        return ""
    more = f" and {len(finding.nodes) - _SHOWN} more" if len(finding.nodes) > _SHOWN else ""
    lines = f", {', '.join(finding.lines[:_SHOWN])}" if finding.lines else ""
    return f" ({', '.join(finding.nodes[:_SHOWN])}{more}{lines})"
