"""Every name of TensorRT that the package uses exists in both majors and in RTX, or only where the table says so.

The code is read, not run: variables that hold objects of the library have fixed names there, and attributes of them are
looked up in the public API of each release.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from s2mlp_deploy.engines.tensorrt import flavours

PACKAGE = Path(flavours.__file__).parent
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
    "self._runtime": "Runtime",
    "self._engine": "ICudaEngine",
    "self._context": "IExecutionContext",
}
FILES = {"builder.py", "library.py", "network.py", "progress.py", "runtime.py"}
# Methods of Python's own objects that share a variable's name.
IGNORED = {
    ("tensor", "get"),  # Of a dictionary: the inspector's JSON.
    ("layer", "get"),
    ("profile", "items"),
}
ONLY_IN = {
    ("IBuilderConfig", "num_compute_capabilities"): {"tensorrt-rtx"},
    ("IBuilderConfig", "set_compute_capability"): {"tensorrt-rtx"},
    ("trt", "ComputeCapability"): {"tensorrt-rtx"},
    ("trt", "CudaGraphStrategy"): {"tensorrt-rtx"},
    ("CudaGraphStrategy", "WHOLE_GRAPH_CAPTURE"): {"tensorrt-rtx"},
    ("IRuntimeConfig", "cuda_graph_strategy"): {"tensorrt-rtx"},
}


def path_of(node: ast.expr) -> str:
    """``self._engine`` of the expression with that text; empty for anything but names and attributes."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = path_of(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return ""


def used_names() -> set[tuple[str, str]]:
    """Pairs of class (or ``trt``, or an enumeration) and member."""
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
    return found


@pytest.fixture(scope="module")
def releases(shared_dir: Path) -> dict[str, dict]:
    folder = shared_dir / "tensorrt_api"
    if not folder.is_dir():
        pytest.skip(f"no lists of TensorRT's API at {folder}")
    return {name: json.loads((folder / file).read_text()) for name, file in RELEASES.items()}


def exists(api: dict, owner: str, name: str) -> bool:
    if owner == "trt":
        return name in api["dir"] or name == "__version__"
    return name in api["enums"].get(owner, ()) or name in api["members"].get(owner, ())


def test_the_walk_sees_what_the_code_uses():
    used = used_names()
    assert {
        ("IBuilderConfig", "set_memory_pool_limit"),
        ("MemoryPoolType", "WORKSPACE"),
        ("trt", "OnnxParser"),
        ("IExecutionContext", "execute_async_v3"),
        ("ILayer", "get_output"),
        ("HardwareCompatibilityLevel", "AMPERE_PLUS"),
        ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"),
    } <= used
    assert len(used) > 50


def test_no_object_of_the_library_hides_behind_another_name():
    """Whatever a call on a known object returns is kept in a variable the walk knows."""
    makers = ("create_", "deserialize_", "Builder", "OnnxParser", "Runtime", "get_layer", "get_input", "get_output")
    for name in FILES:
        for node in ast.walk(ast.parse((PACKAGE / name).read_text())):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                called = path_of(node.value.func)
                owner, _, attribute = called.rpartition(".")
                if (owner in CLASSES or owner == "trt") and attribute.startswith(makers):
                    targets = {path_of(target) for target in node.targets}
                    assert targets <= set(CLASSES) | {"serialized"}, f"{name}:{node.lineno} {targets}"


@pytest.mark.data
@pytest.mark.parametrize("release", RELEASES)
def test_every_name_exists_where_it_is_used(releases, release):
    missing = {
        pair
        for pair in used_names()
        if release in ONLY_IN.get(pair, RELEASES)
        and not (pair[0] == "ComputeCapability" and release != "tensorrt-rtx")
        and not exists(releases[release], *pair)
    }
    assert missing == set()


@pytest.mark.data
def test_what_is_called_special_is_special(releases):
    for pair, where in ONLY_IN.items():
        assert {name for name, api in releases.items() if exists(api, *pair)} == where, pair
    assert ONLY_IN.keys() <= used_names()


@pytest.mark.data
def test_nothing_that_tensorrt_11_removed_is_used(releases):
    old, new = (releases[name] for name in ("tensorrt-10", "tensorrt-11"))
    gone = {
        (owner, name)
        for kind in ("enums", "members")
        for owner, names in old[kind].items()
        for name in names
        if not exists(new, owner, name)
    }
    assert ("BuilderFlag", "FP16") in gone
    assert not gone & used_names()
