"""The user's own models: what is taken, what is refused with the fix, and that artifacts of them compute the same."""

from __future__ import annotations

import functools
import logging
import sys
import textwrap
import types
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from s2mlp_deploy import api
from s2mlp_deploy.errors import CheckpointError, ExportError, S2MLPDeployError, SourceError


@pytest.fixture(autouse=True)
def clean_imports(monkeypatch):
    """What factories import, and where from, does not outlive a test."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if "pytest" in file and "site-packages" not in file:
            del sys.modules[name]


@pytest.fixture
def write(tmp_path):
    """Writes Python files and returns the reference ``net.py:make`` of the first."""

    def run(text: str, name: str = "net.py") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("import torch\nfrom torch import nn\n" + textwrap.dedent(text))
        return f"{path}:make"

    return run


def refused(reference: str, kind: type[S2MLPDeployError] = SourceError, **options) -> S2MLPDeployError:
    with pytest.raises(kind) as caught:
        api.load(reference, **options)
    assert caught.value.exit_code == 2
    assert caught.value.fix
    return caught.value


def exported(module, inputs, place: Path, **options):
    """Exports, checks parity, returns the manifest."""
    source = api.from_module(module, inputs)
    manifest = api.export(source, place, **options)
    (report,) = api.parity(source, [place / "model.fp32.onnx"], samples=4)
    assert report.passed, report.failures
    return manifest


def not_exported(module, inputs, place: Path, kind: type[S2MLPDeployError] = ExportError, **options):
    with pytest.raises(kind) as caught:
        api.export(api.from_module(module, inputs), place, **options)
    assert caught.value.exit_code == 2
    assert caught.value.fix
    assert not place.exists()
    return caught.value


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


# The factory


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
        ("net.py", "names no function"),
        ("net.py:", "names no function"),
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
    assert (source.name, source.module.out_features) == ("make", 5)
    source = api.load(reference.replace(":make", ":Nets.small"), overrides={"width": "6"})
    assert (source.name, source.module.out_features) == ("small", 6)
    with pytest.raises(SourceError, match="no example inputs"):
        api.load(reference.replace(":make", ":Own"))
    assert functools.partial is not None


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


# Where it lies


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


# What cannot be captured


class Deciding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.mean() > 0:
            return x + 1
        return x


class Counting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[: int(x.sum())]


@pytest.mark.parametrize(("module", "code"), [(Deciding(), "if x.mean() > 0:"), (Counting(), "int(x.sum())")])
def test_control_flow_on_values_names_the_line_and_what_to_change(out, module, code):
    error = not_exported(module, torch.ones(2, 3), out)
    assert f"cannot capture {type(module).__name__}" in error.problem
    assert f"{Path(__file__).name}:" in error.where
    assert code in error.where
    assert "torch.where" in error.fix


class Selecting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0]


def test_a_shape_that_depends_on_values_names_the_line_and_what_to_return_instead(out):
    error = not_exported(Selecting(), torch.ones(2, 3), out)
    assert "depends on the values" in error.problem
    assert "return x[x > 0]" in error.where
    assert "mask" in error.fix


def test_an_output_that_is_no_tensor_is_refused_and_none_is_left_out(out):
    class Returning(nn.Module):
        def __init__(self, extra: object) -> None:
            super().__init__()
            self.extra = extra

        def forward(self, x: Tensor) -> dict[str, object]:
            return {"a": x + 1, "extra": self.extra, "z": x * 2}

    assert "returns 5" in not_exported(Returning(5), torch.ones(2, 3), out).problem
    manifest = exported(Returning(None), torch.ones(2, 3), out)
    assert [info.name for info in manifest.outputs] == ["a", "z"]


def test_what_is_drawn_at_random_is_noted(out):
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn_like(x)

    manifest = api.export(api.from_module(Noisy(), torch.ones(2, 3)), out)
    (note,) = manifest.notes
    assert "randn_like" in note
    assert f"({Path(__file__).name}:" in note


def test_torchscript_is_refused_and_wrappers_are_taken_off(out):
    with pytest.raises(SourceError, match="TorchScript") as caught:
        api.from_module(torch.jit.script(nn.Linear(2, 2)), torch.zeros(2, 2))
    assert "scripted" in caught.value.fix
    inner = nn.Linear(2, 2)
    for wrapped in (torch.compile(inner), nn.DataParallel(inner), torch.compile(nn.DataParallel(inner))):
        assert api.from_module(wrapped, torch.zeros(2, 2)).module is inner


class Fitting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        y = self.layer(x)
        return y if scale is None else y * scale


@pytest.mark.parametrize(
    ("inputs", "says", "described"),
    [
        (torch.zeros(2, 5), "mat1 and mat2", "float32 [2, 5]"),
        # torch.export lets this one pass; the module's own run does not.
        (torch.zeros(2, 4, dtype=torch.int64), "Long and Float", "example inputs that fit"),
        ((torch.zeros(2, 4), torch.zeros(2, 2), torch.zeros(1)), "positional arguments", "float32 [1]"),
    ],
)
def test_example_inputs_that_do_not_fit_are_told_from_a_module_that_cannot_be_captured(out, inputs, says, described):
    error = not_exported(Fitting(), inputs, out)
    assert "does not run on its example inputs" in error.problem
    assert says in error.problem
    assert described in error.fix
    if says == "mat1 and mat2":
        assert "y = self.layer(x)" in error.where


class WritesInput(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        image[:, 0] = 0
        return image * 2


class WritesBuffer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return x * self.seen


def test_a_forward_that_writes_into_its_input_is_refused_and_the_example_is_whole(out):
    example = torch.ones(2, 3)
    error = not_exported(WritesInput(), example, out)
    assert "'image'" in error.problem
    assert "clone" in error.fix
    assert torch.equal(example, torch.ones(2, 3))


def test_a_forward_that_writes_into_a_buffer_is_refused_with_the_buffer_and_the_buffer_is_whole(out):
    module = WritesBuffer()
    error = not_exported(module, torch.ones(2, 3), out)
    assert "'seen'" in error.problem
    assert "no state between runs" in error.problem
    assert "if self.training" in error.fix
    assert module.seen == 0


class AlwaysDropping(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5)


def test_dropout_that_is_on_in_evaluation_mode_is_refused_with_its_line(out):
    error = not_exported(AlwaysDropping(), torch.ones(2, 3), out)
    assert "dropout is on" in error.problem
    assert "nn.functional.dropout(x, 0.5)" in error.where
    assert "self.training" in error.fix


# Weights


def test_weights_on_the_meta_device_are_refused_without_a_checkpoint_and_loaded_with_one(tmp_path, out):
    def on_meta() -> nn.Module:
        with torch.device("meta"):
            return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))

    error = not_exported(on_meta(), torch.zeros(2, 4), out, CheckpointError)
    assert "meta device" in error.problem
    assert "0.weight" in error.where
    whole = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).eval()
    save_file({name: value.half() for name, value in whole.state_dict().items()}, tmp_path / "w.safetensors")
    source = api.from_module(on_meta(), torch.zeros(2, 4), checkpoint=tmp_path / "w.safetensors")
    assert source.module[0].weight.dtype == torch.float32
    api.export(source, out)
    x = torch.randn(2, 4)
    torch.testing.assert_close(source.module.eval()(x), whole(x), atol=1e-2, rtol=1e-2)


def test_a_buffer_that_is_not_saved_counts_as_a_weight(out):
    class Tabled(nn.Module):
        def __init__(self, value: float, device: str) -> None:
            super().__init__()
            self.register_buffer("table", torch.full((3,), value, device=device), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.table

    assert "table" in not_exported(Tabled(0.0, "meta"), torch.zeros(2, 3), out, CheckpointError).where
    assert "table" in not_exported(Tabled(float("nan"), "cpu"), torch.zeros(2, 3), out, CheckpointError).where


def test_lazy_layers_that_have_seen_nothing_are_refused(out):
    error = not_exported(nn.LazyLinear(3), torch.zeros(2, 4), out, CheckpointError)
    assert "lazy" in error.problem
    assert "call the module once" in error.fix


LINEAR = """
def make(prefix=False):
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)), torch.zeros(2, 2)
"""


def plain(value: float) -> dict[str, Tensor]:
    shapes = {"0.weight": (3, 2), "0.bias": (3,), "1.weight": (2, 3), "1.bias": (2,)}
    return {name: torch.full(shape, value) for name, shape in shapes.items()}


def under(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in weights.items()}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (plain(3), None),
        (under("module.", plain(3)), None),
        (under("_orig_mod.", plain(3)), None),
        (under("model.", plain(3)), None),
        (under("module._orig_mod.model.", plain(3)), None),
        ({"state_dict": plain(3), "epoch": 7, "optimizer": {"lr": 0.1}}, None),
        ({"model": under("module.", plain(3)), "step": torch.tensor(4)}, None),
        ({"state_dict": {"model": plain(3)}}, None),
        ({"state_dict": plain(1), "state_dict_ema": plain(3)}, "state_dict_ema is used"),
        ({"model": plain(1), "model_ema": plain(3)}, "model_ema is used"),
        ({"model": plain(1), "ema": {"decay": torch.tensor(0.9), "module": plain(3)}}, "ema is used"),
        ({"n_averaged": torch.tensor(4)} | under("module.", plain(3)), None),
    ],
    ids=lambda value: "-".join(value)[:40] if isinstance(value, dict) else "",
)
def test_a_checkpoint_is_found_inside_what_training_scripts_save(write, tmp_path, caplog, content, told):
    torch.save(content, tmp_path / "last.pt")
    with caplog.at_level(logging.WARNING):
        source = api.load(write(LINEAR), checkpoint=tmp_path / "last.pt")
    assert all(bool((value == 3).all()) for value in source.module.state_dict().values())
    assert (told in caplog.text) if told else ("is used" not in caplog.text)
    assert (source.name, source.info.checkpoint) == ("last", "last.pt")
    assert source.info.checkpoint_sha256


def test_a_checkpoint_that_does_not_fit_lists_what_is_wrong(write, tmp_path):
    weights = plain(3) | {"0.weight": torch.zeros(4, 2), "2.weight": torch.zeros(1)}
    del weights["1.bias"]
    torch.save(weights, tmp_path / "w.pt")
    error = refused(write(LINEAR), CheckpointError, checkpoint=tmp_path / "w.pt")
    for told in ("1.bias (2,)", "2.weight (1,)", "0.weight (4, 2), expected (3, 2)"):
        assert told in error.problem


def test_a_prefix_that_the_model_has_itself_stays(tmp_path):
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x)

    torch.save(under("module.", Wrapped().state_dict()), tmp_path / "w.pt")
    api.from_module(Wrapped(), torch.zeros(2, 2), checkpoint=tmp_path / "w.pt")


# Modes


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.norm(self.layer(x)))


def test_a_training_module_is_said_exported_in_evaluation_mode_and_left_as_it_was(out, caplog):
    module = Dropping().train()
    module.norm.eval()
    modes = {name: child.training for name, child in module.named_modules()}
    with caplog.at_level(logging.WARNING):
        source = api.from_module(module, torch.zeros(2, 8))
    assert "Dropping is in training mode; it is exported in evaluation mode" in caplog.text
    api.export(source, out)
    assert {name: child.training for name, child in module.named_modules()} == modes
    session = onnxruntime.InferenceSession(out / "model.fp32.onnx")
    x = torch.randn(3, 8)
    with torch.no_grad():
        expected = module.eval()(x)
    first, second = (session.run(None, {"x": x.numpy()})[0] for _ in range(2))
    assert np.array_equal(first, second)
    np.testing.assert_allclose(first, expected.numpy(), atol=1e-5)


# Inputs and outputs


class Several(nn.Module):
    def forward(self, left: Tensor, right: dict[str, Tensor], more: tuple[Tensor, ...]) -> dict[str, object]:
        total = left + right["a"] * right["b"]
        return {"total": total, "parts": [more[0] - left, (more[1] * 2,)], "same": total * 1}


def test_structures_of_inputs_and_outputs_keep_their_names_and_values(out):
    def some() -> Tensor:
        return torch.randn(2, 3)

    manifest = exported(Several(), (some(), {"a": some(), "b": some()}, (some(), some())), out)
    assert [info.name for info in manifest.inputs] == ["left", "right_a", "right_b", "more_0", "more_1"]
    assert [info.name for info in manifest.outputs] == ["total", "parts_0", "parts_1_0", "same"]
    assert all(info.shape[0] == "batch" for info in manifest.inputs)


def test_any_number_of_positional_arguments(out):
    class Adding(nn.Module):
        def forward(self, first: Tensor, *others: Tensor) -> Tensor:
            return first + sum(others)

    manifest = exported(Adding(), (torch.ones(2, 3), torch.ones(2, 3), torch.ones(2, 3)), out)
    assert len(manifest.inputs) == 3
    assert all(info.shape == ("batch", 3) for info in manifest.inputs)


def test_whole_numbers_go_in(out):
    class Looking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(7, 4)

        def forward(self, ids: Tensor, scale: Tensor) -> Tensor:
            return self.table(ids).mean(1) * scale

    manifest = exported(Looking(), (torch.arange(6).reshape(2, 3), torch.ones(2, 1)), out)
    assert [info.dtype for info in manifest.inputs] == ["int64", "float32"]


# Programs


def program(module: nn.Module, path: Path, inputs=None, **options) -> str:
    saved = torch.export.export(module, inputs or (torch.randn(2, 8),), **options)
    torch.export.save(saved, path)
    return str(path)


def test_a_saved_program_goes_the_same_way_as_its_module(tmp_path, out):
    module = Dropping().eval()
    reference = program(module, tmp_path / "net.pt2", dynamic_shapes=({0: torch.export.Dim("n", min=1)},))
    manifest = api.export(reference, out)
    assert manifest.inputs[0].shape[0] != 2
    assert manifest.source.checkpoint == "net.pt2"
    (report,) = api.parity(reference, [out / "model.fp32.onnx"], samples=3)
    assert report.passed
    (report,) = api.parity(api.from_module(module, torch.zeros(2, 8)), [out / "model.fp32.onnx"], samples=3)
    assert report.passed


def test_a_program_saved_in_training_mode_is_refused(tmp_path, out):
    reference = program(nn.Dropout(0.5).train(), tmp_path / "net.pt2")
    with pytest.raises(ExportError, match="dropout is on"):
        api.export(reference, out)
    assert not out.exists()


def test_programs_that_cannot_be_used_say_why(tmp_path):
    assert "no such file" in refused(str(tmp_path / "nothing.pt2")).problem
    (tmp_path / "text.pt2").write_text("hello")
    assert "not a program" in refused(str(tmp_path / "text.pt2")).problem
    reference = program(nn.Linear(8, 2), tmp_path / "net.pt2")
    assert "inside" in refused(reference, overrides={"width": "3"}).problem
    assert "inside" in refused(reference, checkpoint=tmp_path / "w.pt").problem
    saved = torch.export.export(Fitting(), (torch.zeros(2, 4),), {"scale": torch.ones(2)})
    torch.export.save(saved, tmp_path / "keyword.pt2")
    assert "keyword arguments: scale" in refused(str(tmp_path / "keyword.pt2")).problem


# Free sizes


class Convolving(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        return self.layer(image)


def run_onnx(place: Path, x: Tensor) -> np.ndarray:
    return onnxruntime.InferenceSession(place / "model.fp32.onnx").run(None, {"image": x.numpy()})[0]


def test_the_batch_is_free_although_the_example_has_one_image(out):
    module = Convolving().eval()
    manifest = exported(module, torch.randn(1, 3, 6, 6), out)
    assert manifest.inputs[0].shape == ("batch", 3, 6, 6)
    for size in (1, 3):
        x = torch.randn(size, 3, 6, 6)
        np.testing.assert_allclose(run_onnx(out, x), module(x).detach().numpy(), atol=1e-5)


def test_a_fixed_batch_is_noted_in_the_manifest_with_the_reason(out):
    class Single(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image.reshape(1, 3, 36) * 2

    manifest = exported(Single(), torch.randn(1, 3, 6, 6), out)
    assert manifest.inputs[0].shape == (1, 3, 6, 6)
    assert len(manifest.notes) == 1
    assert "the batch is fixed" in manifest.notes[0]
    assert "Single" in manifest.notes[0]


def test_a_smallest_size_is_no_reason_to_refuse_a_free_height_but_is_noted(out):
    class Shrinking(nn.Module):
        """A shift on a map of a quarter of the size needs two cells to move between."""

        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Conv2d(3, 4, 3, 4, 1)

        def forward(self, image: Tensor) -> Tensor:
            x = self.down(image)
            y = torch.zeros_like(x)
            y[:, :, 1:] = x[:, :, :-1]
            return y

    module = Shrinking().eval()
    manifest = exported(module, torch.randn(1, 3, 16, 16), out, dynamic=("batch", "height", "width"))
    assert manifest.inputs[0].shape == ("batch", 3, "height", "width")
    assert "the height of image is at least 9" in manifest.notes
    x = torch.randn(2, 3, 12, 21)
    np.testing.assert_allclose(run_onnx(out, x), module(x).detach().numpy(), atol=1e-5)


def test_a_module_that_fixes_its_height_is_refused_where_a_free_one_was_asked_for(out):
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3 * 36, 2)

        def forward(self, image: Tensor) -> Tensor:
            return self.layer(image.flatten(1))

    error = not_exported(Flat(), torch.randn(2, 3, 6, 6), out, dynamic=("batch", "height"))
    assert "height" in error.problem
    assert error.fix


# Hazards


class Racing(nn.Module):
    """A classifier with the shift of public code. The layer makes a copy, so the input itself stays whole."""

    def __init__(self, channels: int = 3, classes: int = 2) -> None:
        super().__init__()
        self.layer = nn.Linear(channels, 8)
        self.head = nn.Linear(8, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = self.layer(image.permute(0, 2, 3, 1))
        x[:, 1:, :, :4] = x[:, :-1, :, :4]  # down
        x[:, :, 1:, 4:] = x[:, :, :-1, 4:]  # right
        return self.head((x * x).mean((1, 2)))


def racing() -> nn.Module:
    torch.manual_seed(0)
    return Racing().eval()


def test_a_race_is_exported_with_its_functional_meaning_and_recorded(out, caplog):
    module = racing()
    source = api.from_module(module, torch.randn(2, 3, 6, 6))
    with caplog.at_level(logging.WARNING):
        manifest = api.export(source, out)
    assert "functional meaning is exported" in caplog.text
    assert [hazard.kind for hazard in manifest.hazards] == ["race", "race"]
    lines = Path(__file__).read_text().splitlines()
    for hazard in manifest.hazards:
        name, _, number = hazard.where.partition(":")
        assert name == Path(__file__).name
        assert hazard.code == lines[int(number) - 1].strip()
        assert hazard.writes == 1
        assert hazard.cells > 0
        assert hazard.effect["1"] > 0
    assert sum(len(shift.spec["groups"]) for shift in manifest.shifts) >= 2
    x = torch.randn(3, 3, 6, 6)
    y = module.layer(x.permute(0, 2, 3, 1))
    meant = y.clone()
    meant[:, 1:, :, :4] = y[:, :-1, :, :4]
    meant[:, :, 1:, 4:] = y[:, :, :-1, 4:]
    expected = module.head((meant * meant).mean((1, 2))).detach().numpy()
    np.testing.assert_allclose(run_onnx(out, x), expected, atol=1e-5)
    (report,) = api.parity(source, [out / "model.fp32.onnx"], samples=4)
    assert report.passed
    assert "functional meaning" in report.reference
    assert report.eager[0].metrics.max_abs > 1e-4


def test_a_race_can_be_refused(out):
    error = not_exported(racing(), torch.randn(2, 3, 6, 6), out, on_hazard="error")
    assert "eager PyTorch does not define" in error.problem
    assert "x[:, 1:, :, :4] = x[:, :-1, :, :4]" in error.where
    assert "clone" in error.fix


def test_labelled_pictures_give_the_accuracy_of_both_meanings(out, tmp_path):
    description = tmp_path / "image.json"
    description.write_text(
        '{"size": [8, 8], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "class_names": ["a", "b"]}'
    )
    generator = np.random.default_rng(0)
    for index in range(12):
        folder = tmp_path / "data" / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    source = api.from_module(racing(), torch.randn(2, 3, 8, 8), preprocess=description)
    api.export(source, out)
    (report,) = api.parity(source, [out / "model.fp32.onnx"], data=tmp_path / "data")
    assert report.images == 12
    ranks, eager = report.outputs[0].ranks, report.eager[0].ranks
    assert ranks.reference_accuracy == ranks.candidate_accuracy
    assert eager.reference_accuracy == ranks.reference_accuracy
    assert eager.candidate_accuracy is not None


def test_a_cloned_right_hand_side_is_told_and_never_refused(out, caplog):
    class Cloned(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x * 1
            x[:, 1:] = x[:, :-1].clone()
            return x

    source = api.from_module(Cloned(), torch.randn(2, 4, 4))
    with caplog.at_level(logging.WARNING):
        manifest = api.export(source, out, on_hazard="error")
    assert [(hazard.kind, hazard.effect) for hazard in manifest.hazards] == [("compiler", None)]
    assert "Inductor" in caplog.text
    (report,) = api.parity(source, [out / "model.fp32.onnx"], samples=2)
    assert report.passed
    assert report.eager == ()


def test_a_program_saved_with_a_race_in_it_has_its_functional_meaning(tmp_path, out):
    module = racing()
    example = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        reference = program(module, tmp_path / "net.pt2", (example,))
    api.export(reference, out)
    (report,) = api.parity(api.from_module(module, example), [out / "model.fp32.onnx"], samples=2)
    assert report.passed
