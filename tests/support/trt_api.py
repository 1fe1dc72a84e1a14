"""Names of TensorRT's API: those that the package uses, and those that each release has.

The whole public API of each release stands in ``tensorrt_api/*.json`` of the shared data; what the tests need of it is
kept in ``tests/engines/tensorrt/api_names.json``, so that they run without that folder. To renew it when the code uses
another name, or from lists of other releases::

    PYTHONPATH=. python tests/support/trt_api.py ../shared/tensorrt_api
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from s2mlp_deploy import choices
from s2mlp_deploy.engines.tensorrt import config, flavours, runtime

PACKAGE = Path(flavours.__file__).parent
TRIMMED = Path(__file__).resolve().parents[1] / "engines" / "tensorrt" / "api_names.json"
# The files of the shared data: `dir` of the module, members of its enumerations and of its classes.
RELEASES = {
    "tensorrt-10": "tensorrt-10.16.1.11.json",
    "tensorrt-11": "tensorrt-11.4.0.106.json",
    "tensorrt-rtx": "tensorrt_rtx-1.7.1.116.json",
}
# What a variable of that name holds, everywhere in the package.
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "layer": "ILayer",
    "tensor": "ITensor",
    "parser_error": "ParserError",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "inspector": "EngineInspector",
    "timing_cache": "ITimingCache",
    "runtime_config": "IRuntimeConfig",
    "runtime_cache": "IRuntimeCache",
    "self._cache": "IRuntimeCache",
    "context": "IExecutionContext",
    "there": "ITimingCache",
    "refitter": "Refitter",
    "parser_refitter": "OnnxParserRefitter",
    "severities": "ILogger",
    "self._runtime": "Runtime",
    "self._engine": "ICudaEngine",
    "self._context": "IExecutionContext",
}
FILES = (
    "builder.py",
    "config.py",
    "context.py",
    "library.py",
    "network.py",
    "progress.py",
    "refit.py",
    "runtime.py",
    "runtime_cache.py",
    "timing_cache.py",
)
# Methods of Python's own objects that share a variable's name.
IGNORED = {
    ("timing_cache", "load_into"),  # Of our own module of that name.
    ("timing_cache", "save_from"),
    ("self._cache", "save"),
}

Name = tuple[str, str]
"""Class, enumeration or ``trt`` (the module), and the member."""


def path_of(node: ast.expr) -> str:
    """``self._engine`` of the expression with that text; empty for anything but names and attributes."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = path_of(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return ""


def used_names() -> set[Name]:
    """Every name of the libraries that the package uses."""
    found = set()
    for name in FILES:
        for node in ast.walk(ast.parse((PACKAGE / name).read_text())):
            if not isinstance(node, ast.Attribute):
                continue
            owner = path_of(node.value)
            if owner == "trt":
                found.add(("trt", node.attr))
            elif owner.startswith("trt."):
                found.add((owner.rpartition(".")[2], node.attr))
            elif owner in CLASSES and (owner, node.attr) not in IGNORED:
                found.add((CLASSES[owner], node.attr))
    # Names that stand as text in the table of flavours and are looked up while running.
    for name in flavours.NAMES:
        flavour = flavours.flavour(name)
        found |= {("HardwareCompatibilityLevel", level) for level in flavour.hardware_levels.values()}
        found |= {("ComputeCapability", target.upper()) for target in flavour.targets}
        found |= {("TacticSource", source) for source in flavour.tactic_sources}
    found |= {("TacticSource", source) for source in flavours.flavour("tensorrt", "10").tactic_sources}
    found |= {("BuilderFlag", flag) for flag in config.FLAGS.values()}
    found |= {("ProfilingVerbosity", name.upper()) for name in get_args(choices.ProfilingVerbosity)}
    found |= {("CudaGraphStrategy", name) for name in ("WHOLE_GRAPH_CAPTURE", "DISABLED")}
    found |= {
        ("DynamicShapesKernelSpecializationStrategy", name.upper()) for name in get_args(runtime.KernelSpecialization)
    }
    return found


def full_names(folder: Path) -> dict[str, set[Name]]:
    """All names of each release, from the shared data."""
    names = {}
    for release, file in RELEASES.items():
        api = json.loads((folder / file).read_text())
        names[release] = {("trt", name) for name in (*api["dir"], "__version__")} | {
            (owner, name) for kind in ("enums", "members") for owner, members in api[kind].items() for name in members
        }
    return names


def trimmed(names: dict[str, set[Name]]) -> dict[str, dict[str, list[str]]]:
    """What the tests need: of each release the names that the package uses, and what TensorRT 11 removed there."""
    used = used_names()
    parts = {release: found & used for release, found in names.items()}
    owners = {owner for owner, _ in used} - {"trt"}
    parts["removed-in-11"] = {name for name in names["tensorrt-10"] - names["tensorrt-11"] if name[0] in owners}
    return {part: _by_owner(found) for part, found in parts.items()}


def read_trimmed() -> dict[str, set[Name]]:
    """The committed list, by release and ``removed-in-11``."""
    parts = json.loads(TRIMMED.read_text())["names"]
    return {
        part: {(owner, name) for owner, members in owners.items() for name in members} for part, owners in parts.items()
    }


def _by_owner(names: Iterable[Name]) -> dict[str, list[str]]:
    owners: dict[str, list[str]] = {}
    for owner, name in sorted(names):
        owners.setdefault(owner, []).append(name)
    return owners


if __name__ == "__main__":
    document = {
        "made": "by tests/support/trt_api.py from the public API of each release; see there",
        "releases": {release: file.removesuffix(".json") for release, file in RELEASES.items()},
        "names": trimmed(full_names(Path(sys.argv[1]))),
    }
    TRIMMED.write_text(json.dumps(document, indent=1) + "\n")
