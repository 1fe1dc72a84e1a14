"""Factories: what they may return, where they may lie, and what is told where they fail."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from own_models import refused
from torch import nn

from s2mlp_deploy import api
from s2mlp_deploy.errors import SourceError


def test_a_factory_that_raises_is_told_with_what_it_was_called_and_keeps_its_traceback(write):
    reference = write(
        """
        def weights(name):
            raise FileNotFoundError(f"no {name}\\n in this folder")

        def make(width=4):
            return weights("best.pt")
        """
    )
    error = refused(reference, overrides={"width": "8"})
    assert error.problem == "the factory raised FileNotFoundError: no best.pt in this folder"
    assert error.where == reference
    assert "make(width=8)" in error.fix
    assert isinstance(error.__cause__, FileNotFoundError)


def test_a_setting_that_the_factory_does_not_take_is_named(write):
    error = refused(write("def make(width=4): ..."), overrides={"widht": "8"})
    assert "unexpected keyword argument 'widht'" in error.problem


@pytest.mark.parametrize("where", ["import", "call"])
def test_a_script_that_exits_is_no_success(write, where):
    line = "import argparse; argparse.ArgumentParser().parse_args(['--nonsense'])"
    reference = write(f"{line}\ndef make(): ..." if where == "import" else f"def make():\n    {line}")
    assert "raised SystemExit: 2" in refused(reference).problem


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        ("None", "returned NoneType"),
        ("nn.Linear(2, 2).state_dict()", "returned OrderedDict"),
        ("nn.Linear", "returned <class 'torch.nn"),
        ("'net'", "returned str"),
        ("(nn.Linear(2, 2), torch.zeros(2, 2), 3)", "returned a tuple of (Linear, Tensor, int)"),
        ("[nn.Linear(2, 2), torch.zeros(2, 2)]", "returned a list of (Linear, Tensor)"),
        ("(torch.zeros(2, 2), nn.Linear(2, 2))", "returned a tuple of (Tensor, Linear)"),
    ],
)
def test_what_is_no_module_is_named_with_the_contract(write, returned, says):
    error = refused(write(f"def make():\n    return {returned}"))
    assert says in error.problem
    assert "returns an nn.Module, or a tuple of an nn.Module and its example inputs" in error.fix


@pytest.mark.parametrize(
    "inputs", ["3", "'text'", "()", "(1, 2)", "{'x': 1}", "__import__('numpy').zeros((2, 2))", "torch.zeros(0, 2)"]
)
def test_example_inputs_that_are_no_tensors_are_named(write, inputs):
    error = refused(write(f"def make():\n    return nn.Linear(2, 2), {inputs}"))
    assert "example inputs" in error.problem
    assert "positional arguments" in error.fix


def test_a_module_alone_needs_a_description_of_its_image(write, tmp_path):
    reference = write("def make():\n    return nn.Conv2d(3, 4, 1)")
    assert "--preprocess" in refused(reference).fix
    description = tmp_path / "image.json"
    description.write_text('{"size": [6, 10], "mean": [0, 0, 0], "std": [1, 1, 1]}')
    source = api.load(reference, preprocess=description)
    assert source.example_inputs[0].shape == (2, 3, 6, 10)
    assert source.preprocessing is not None


@pytest.mark.parametrize(
    ("text", "says", "fix"),
    [
        ("def make(:", "SyntaxError", "python -c"),
        ("import nothing_of_the_kind", "ModuleNotFoundError: No module named 'nothing_of_the_kind'", "install nothing"),
        ("1 / 0", "ZeroDivisionError", "without errors"),
        ("raise SystemExit", "raised SystemExit", "__main__"),
    ],
)
def test_a_file_that_cannot_be_imported_says_why(write, text, says, fix):
    error = refused(write(text))
    assert says in error.problem
    assert fix in error.fix


def test_a_file_that_failed_can_be_mended_and_named_again(write):
    refused(write("1 / 0"))
    assert "net" not in sys.modules
    source = api.load(write("def make():\n    return nn.Linear(2, 3), torch.zeros(2, 2)"))
    assert isinstance(source.module, nn.Linear)


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("nothing.py:make", "no such file"),
        ("nothing_of_the_kind:make", "no module named"),
        ("nothing_of_the_kind.net:make", "no module named"),
        (":make", "names no function"),
        ("net.py", "no such file"),
        ("json:", "names no function"),
        ("json:nothing", "no function 'nothing'"),
    ],
)
def test_what_is_not_there_is_named(reference, says):
    assert says in refused(reference).problem


def test_the_functions_that_are_there_are_listed(write):
    reference = write("def build(): ...\ndef build_large(): ...\nnumber = 3")
    error = refused(reference)
    assert "it has build, build_large" in error.fix
    assert "no function 'number'" in refused(reference.replace(":make", ":number")).problem


def test_partials_methods_and_classes_are_factories_too(write):
    reference = write(
        """
        import functools

        class Nets:
            @staticmethod
            def small(width=4):
                return nn.Linear(2, width), torch.zeros(2, 2)

        class Own(nn.Module):
            def forward(self, x):
                return x + 1

        make = functools.partial(Nets.small, width=5)
        """
    )
    source = api.load(reference)
    assert (source.name, source.module.out_features) == ("net", 5)
    for nothing in (reference.removesuffix("make"), reference.removesuffix(":make")):
        assert "names no function" in refused(nothing).problem
    source = api.load(reference.replace(":make", ":Nets.small"), overrides={"width": "6"})
    assert (source.name, source.module.out_features) == ("small", 6)
    with pytest.raises(SourceError, match="no example inputs"):
        api.load(reference.replace(":make", ":Own"))


def test_settings_are_json_or_text(write):
    reference = write(
        """
        def make(**settings):
            module = nn.Identity()
            module.settings = settings
            return module, torch.zeros(2)
        """
    )
    given = {"a": "3", "b": "0.5", "c": "[1, 2]", "d": "true", "e": "gelu", "f": "1x1"}
    source = api.load(reference, overrides=given)
    assert source.module.settings == {"a": 3, "b": 0.5, "c": [1, 2], "d": True, "e": "gelu", "f": "1x1"}
    assert source.info.config == source.module.settings


def test_random_weights_follow_the_seed_and_leave_the_users_generator_alone(write):
    reference = write("def make():\n    return nn.Linear(2, 2), torch.zeros(2, 2)")
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again, other = (api.load(reference, seed=seed).module.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_module_of_a_package_in_the_current_folder_is_found(write, tmp_path, monkeypatch):
    write("", "detectors/__init__.py")
    write("from .parts import part\ndef make():\n    return part(), torch.zeros(2, 2)", "detectors/small.py")
    write("def part():\n    return nn.Linear(2, 2)", "detectors/parts.py")
    monkeypatch.chdir(tmp_path)
    source = api.load("detectors.small:make")
    assert isinstance(source.module, nn.Linear)
    assert source.info.reference == "detectors.small:make"
    assert "no module named 'detectors.large'" in refused("detectors.large:make").problem


def test_a_file_imports_what_lies_beside_it(write):
    write("def part():\n    return nn.Linear(2, 2)", "deep/parts_beside.py")
    reference = write(
        "from parts_beside import part\ndef make():\n    return part(), torch.zeros(2, 2)", "deep/netto.py"
    )
    assert isinstance(api.load(reference).module, nn.Linear)


def test_two_files_of_one_name_are_two_modules(write):
    """Classes are found by their module's name, so the second must not be taken for the first."""
    text = """
        from dataclasses import dataclass

        @dataclass
        class Sizes:
            width: "int" = {width}

        class Net(nn.Linear): ...

        def make():
            return Net(2, Sizes().width), torch.zeros(2, 2)
        """
    first = write(text.format(width=3), "a/net.py")
    second = write(text.format(width=4), "b/net.py")
    made = [api.load(reference).module for reference in (first, second, first)]
    assert [module.out_features for module in made] == [3, 4, 3]
    assert all(getattr(sys.modules[type(module).__module__], "Net", None) is not None for module in made)
    assert sys.modules[type(made[1]).__module__].__file__ != sys.modules[type(made[0]).__module__].__file__


def test_a_file_named_like_a_module_of_python_replaces_nothing(write):
    reference = write("def make():\n    return nn.Linear(2, 2), torch.zeros(2, 2)", "types.py")
    assert isinstance(api.load(reference).module, nn.Linear)
    assert sys.modules["types"] is types
