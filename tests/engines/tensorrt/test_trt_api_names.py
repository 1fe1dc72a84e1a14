"""Every name of TensorRT that the package uses exists in both majors and in RTX, or only where the table says so.

The code is read, not run: variables that hold objects of the library have fixed names there, and attributes of them are
looked up in the public API of each release (``tests/support/trt_api.py``).
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from trt_api import CLASSES, FILES, PACKAGE, RELEASES, Name, full_names, path_of, read_trimmed, trimmed, used_names

ONLY_IN = {
    ("IBuilderConfig", "num_compute_capabilities"): {"tensorrt-rtx"},
    ("IBuilderConfig", "set_compute_capability"): {"tensorrt-rtx"},
    ("trt", "ComputeCapability"): {"tensorrt-rtx"},
    ("trt", "CudaGraphStrategy"): {"tensorrt-rtx"},
    ("trt", "DynamicShapesKernelSpecializationStrategy"): {"tensorrt-rtx"},
    **{
        (owner, name): {"tensorrt-rtx"}
        for owner, names in {
            "CudaGraphStrategy": ("WHOLE_GRAPH_CAPTURE", "DISABLED"),
            "DynamicShapesKernelSpecializationStrategy": ("LAZY", "EAGER", "NONE"),
            "IRuntimeConfig": (
                "cuda_graph_strategy",
                "dynamic_shapes_kernel_specialization_strategy",
                "create_runtime_cache",
                "set_runtime_cache",
            ),
            "IRuntimeCache": ("serialize", "deserialize"),
        }.items()
        for name in names
    },
    **{("TacticSource", name): {"tensorrt-10"} for name in ("CUBLAS", "CUBLAS_LT", "CUDNN")},
    ("IBuilderConfig", "build_route"): {"tensorrt-11", "tensorrt-rtx"},
}


@pytest.fixture(scope="module")
def releases() -> dict[str, set[Name]]:
    return read_trimmed()


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
    seen = 0
    for name in FILES:
        for node in ast.walk(ast.parse((PACKAGE / name).read_text())):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                called = path_of(node.value.func)
                owner, _, attribute = called.rpartition(".")
                if (owner in CLASSES or owner == "trt") and attribute.startswith(makers):
                    targets = {path_of(target) for target in node.targets}
                    assert targets <= set(CLASSES) | {"serialized", "self._allocators"}, (
                        f"{name}:{node.lineno} {targets}"
                    )
                    seen += 1
    assert seen > 10


@pytest.mark.parametrize("release", RELEASES)
def test_every_name_exists_where_it_is_used(releases, release):
    missing = {
        pair
        for pair in used_names()
        if release in ONLY_IN.get(pair, RELEASES)
        and not (pair[0] == "ComputeCapability" and release != "tensorrt-rtx")
        and pair not in releases[release]
    }
    assert missing == set(), "or the list is old: tests/support/trt_api.py says how to renew it"


def test_what_is_called_special_is_special(releases):
    for pair, where in ONLY_IN.items():
        assert {release for release in RELEASES if pair in releases[release]} == where, pair
    assert ONLY_IN.keys() <= used_names()


def test_nothing_that_tensorrt_11_removed_is_used(releases):
    gone = releases["removed-in-11"]
    assert ("BuilderFlag", "FP16") in gone
    of_ten_alone = {pair for pair, where in ONLY_IN.items() if where == {"tensorrt-10"}}
    assert gone & used_names() <= of_ten_alone


@pytest.mark.data
def test_the_committed_list_is_what_the_whole_lists_say(shared_dir: Path, releases):
    folder = shared_dir / "tensorrt_api"
    if not folder.is_dir():
        pytest.skip(f"no lists of TensorRT's API at {folder}")
    assert releases == {
        part: {(owner, name) for owner, members in owners.items() for name in members}
        for part, owners in trimmed(full_names(folder)).items()
    }
