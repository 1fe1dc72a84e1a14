"""PyTorch as an engine, eager and compiled."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from s2mlp_deploy.artifact import TensorInfo  # noqa: E402
from s2mlp_deploy.engines.torch import TorchEngine, status  # noqa: E402
from s2mlp_deploy.errors import InputError  # noqa: E402

INFO = TensorInfo("x", "float32", (2, 3))


def make(**arguments):
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.GELU()).eval()
    outputs = (TensorInfo("y", "float32", (2, 3)),)
    return module, TorchEngine(module, (torch.zeros(2, 3),), (INFO,), outputs, **arguments)


def test_it_computes_what_the_module_does_and_leaves_the_input_alone():
    module, engine = make()
    given = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(engine.run({"x": given})["y"], module(torch.ones(2, 3)).detach().numpy())
    assert engine.name == "torch"
    assert (given == 1).all()


@pytest.mark.parametrize("names", [(), ("a", "b")])
def test_another_number_of_tensors_than_outputs_is_an_input_error(names):
    outputs = tuple(TensorInfo(name, "float32", (2, 3)) for name in names)
    engine = TorchEngine(torch.nn.Identity(), (torch.zeros(2, 3),), (INFO,), outputs)
    with pytest.raises(InputError, match=f"returns 1 tensors, where {len(names)} are expected"):
        engine.run({"x": np.ones((2, 3), np.float32)})


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs a C++ compiler")
def test_compiled_it_computes_the_same():
    module, engine = make(compiled=True)
    assert engine.name == "torch (compiled)"
    result = engine.run({"x": np.ones((2, 3), np.float32)})["y"]
    np.testing.assert_allclose(result, module(torch.ones(2, 3)).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_status_names_both_modes():
    assert status().available
    assert status().detail == "eager and compiled"
