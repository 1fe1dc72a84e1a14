"""The door of the API: every name is there, nothing heavy is imported for it, and what is missing is told at once."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from s2mlp_deploy import api, choices
from s2mlp_deploy.api.door import HOME_OF
from s2mlp_deploy.errors import MissingDependencyError


def imported_for_type_checkers() -> dict[str, str]:
    tree = ast.parse(Path(api.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.name: str(node.module) for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }


def test_type_checkers_see_what_the_door_gives():
    assert imported_for_type_checkers() == HOME_OF
    assert set(api.__all__) == {*HOME_OF, "MissingDependencyError"}
    assert set(api.__all__) <= set(dir(api))


def test_every_name_is_there():
    pytest.importorskip("torch")
    for name in api.__all__:
        assert getattr(api, name) is not None


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="require_export"):
        api.require_export  # noqa: B018


def test_public_names_are_defined_where_the_door_says_or_below():
    pytest.importorskip("torch")
    for name, module in HOME_OF.items():
        defined = getattr(getattr(api, name), "__module__", None)
        if module.startswith("s2mlp_deploy.api.") and defined is not None:
            assert defined == module, name


@pytest.mark.parametrize(
    "name", ["doctor", "models", "predict", "bench", "Manifest", "BuildOptions", "Prediction", "ShiftSpec"]
)
def test_what_needs_no_torch_imports_none(name):
    code = (
        "import sys; from s2mlp_deploy import api; "
        f"api.{name}; big = {{'torch', 'onnx', 'onnx_ir', 'onnxruntime'}} & sys.modules.keys(); assert not big, big"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("export", "torch", "export"),
        ("load", "safetensors", "export"),
        ("parity", "onnxscript", "export"),
        ("inspect_source", "onnx", "export"),
        ("inspect_file", "onnx_ir", "onnx"),
        ("quantize", "onnx", "onnx"),
        ("Preflight", "onnx", "onnx"),
    ],
)
def test_a_package_that_is_missing_is_told_with_its_extra(monkeypatch, name, package, extra):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None if module == package else find(module))
    monkeypatch.delitem(vars(api), name, raising=False)
    with pytest.raises(MissingDependencyError) as caught:
        getattr(api, name)
    assert (caught.value.package, caught.value.extra) == (package, extra)
    assert f"api.{name}" in caught.value.problem
    assert caught.value.fix == f"pip install 's2mlp-deploy[{extra}]'"


def test_an_onnx_file_can_be_inspected_without_torch():
    code = "import sys; sys.modules['torch'] = None; from s2mlp_deploy import api; api.inspect_file"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_choices_are_those_of_the_tables():
    pytest.importorskip("torch")
    from s2mlp_deploy.calibration.ranges import METHODS
    from s2mlp_deploy.engines.registry import ENGINES
    from s2mlp_deploy.engines.tensorrt.flavours import NAMES, flavour
    from s2mlp_deploy.engines.tensorrt.precision_check import PRECISIONS
    from s2mlp_deploy.export.forms import AUTO, FORMS
    from s2mlp_deploy.graph.axes import DYNAMIC_AXES
    from s2mlp_deploy.models.config import Layout

    assert set(get_args(choices.ShiftFormName)) == {AUTO, *FORMS}
    assert set(get_args(choices.DynamicAxis)) == set(DYNAMIC_AXES)
    assert set(get_args(choices.CalibrationMethod)) == set(METHODS)
    assert get_args(choices.RequiredPrecision) == PRECISIONS
    assert choices.CALIBRATION_METHOD in METHODS
    # ONNX Runtime writes graphs that it has optimized.
    building = {name for name, entry in ENGINES.items() if entry.opens_built}
    assert set(get_args(choices.EngineName)) == {*building, choices.GRAPH_ENGINE}
    assert set(NAMES) < building
    assert set(get_args(choices.Layout)) == {"auto", "as-is", *get_args(Layout)}
    levels = {level for name in NAMES for level in flavour(name).hardware_levels}
    assert set(get_args(choices.HardwareCompatibility)) == {"none", *levels}
