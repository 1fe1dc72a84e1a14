"""What a factory's code does to the process is put back, also with several threads."""

from __future__ import annotations

import concurrent.futures
import logging
import os
import sys
import threading
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("torch")
import torch

from s2mlp_deploy import api
from s2mlp_deploy.errors import SourceError
from s2mlp_deploy.sources.isolation import isolated
from s2mlp_deploy.torch_internals import threads

NOISY = """
import logging, logging.config, os, sys, torch
import neighbour
logging.basicConfig(level=logging.DEBUG, force=True)
logging.config.dictConfig({"version": 1, "disable_existing_loggers": True})
logging.disable(logging.CRITICAL)
torch.set_num_threads(torch.get_num_threads() + 1)
torch.set_default_dtype(torch.float64)
torch.set_default_device("meta")
torch.set_grad_enabled(False)
torch.use_deterministic_algorithms(True, warn_only=True)
os.umask(0o123)
os.chdir("/")
sys.path.append("/somewhere/else")

def make(fail=False):
    if fail:
        raise ValueError("on purpose")
    with torch.device("cpu"):
        return torch.nn.Linear(2, 2, dtype=torch.float32), torch.ones(2, 2, dtype=torch.float32)
"""


def state():
    root = logging.getLogger()
    mask = os.umask(0o077)
    os.umask(mask)
    return (
        list(sys.path),
        list(root.handlers),
        root.level,
        root.manager.disable,
        logging.getLogger("s2mlp_deploy.sources.module").disabled,
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.initial_seed(),
        Path.cwd(),
        mask,
    )


@pytest.mark.parametrize("fail", [False, True])
def test_a_factory_leaves_the_process_as_it_was(tmp_path, monkeypatch, fail):
    (tmp_path / "noisy_factory.py").write_text(NOISY)
    (tmp_path / "neighbour.py").write_text("")
    for name in ("noisy_factory", "neighbour"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    before = state()
    if fail:
        with pytest.raises(SourceError, match="on purpose"):
            api.load(f"{tmp_path}/noisy_factory.py:make", overrides={"fail": True})
    else:
        api.load(f"{tmp_path}/noisy_factory.py:make")
    assert state() == before


def test_threads_that_load_at_once_leave_the_process_as_it_was(tmp_path):
    for index in range(4):
        (tmp_path / f"of_thread_{index}.py").write_text(
            f"import sys, time, torch\nassert sys.path[0] == {str(tmp_path)!r}\n"
            "def make():\n    time.sleep(0.05)\n    return torch.nn.Linear(2, 2), torch.ones(2, 2)\n"
        )
    before = state()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        sources = list(pool.map(lambda index: api.load(f"{tmp_path}/of_thread_{index}.py:make", seed=7), range(4)))
    assert state() == before
    # Each drew from its own seed, undisturbed by the others.
    assert all(torch.equal(sources[0].module.weight, source.module.weight) for source in sources)


def test_the_folder_comes_first_only_within(tmp_path):
    with isolated(tmp_path, seed=0):
        assert sys.path[0] == str(tmp_path)
    assert str(tmp_path) not in sys.path


TWINS = """
import torch
from {helper} import scale
import {package}.inner

class Eager(torch.nn.Module):
    def forward(self, x):
        return scale(x) + {package}.inner.OFFSET

class Lazy(torch.nn.Module):
    def forward(self, x):
        from {lazy} import scale
        return scale(x)

def eager():
    return Eager().eval(), torch.rand(2, 3)

def lazy():
    return Lazy().eval(), torch.rand(2, 3)
"""


@pytest.fixture
def twins(tmp_path):
    """Two folders whose files have the same names and do different things: multiply by 2, or by 3."""
    names = {"helper": "twin_helper", "package": "twin_package", "lazy": "twin_lazy"}
    for factor in (2, 3):
        folder = tmp_path / f"by_{factor}"
        (folder / "twin_package").mkdir(parents=True)
        (folder / "twin_package" / "__init__.py").write_text("")
        (folder / "twin_package" / "inner.py").write_text(f"OFFSET = {factor * 10}\n")
        for name in ("twin_helper", "twin_lazy"):
            (folder / f"{name}.py").write_text(f"def scale(x):\n    return x * {factor}\n")
        (folder / "twin_factory.py").write_text(TWINS.format(**names))
    yield {factor: str(tmp_path / f"by_{factor}" / "twin_factory.py") for factor in (2, 3)}
    for name in [name for name in sys.modules if name.startswith("twin_")]:
        del sys.modules[name]


def of_ones(exported):
    session = onnxruntime.InferenceSession(str(exported.file()), providers=["CPUExecutionProvider"])
    return float(session.run(None, {"x": np.ones((1, 3), np.float32)})[0][0, 0])


def test_forward_imports_from_the_factorys_folder(twins, tmp_path):
    before = list(sys.path)
    exported = api.export(f"{twins[2]}:lazy", tmp_path / "out")
    assert of_ones(exported) == 2
    sys.modules.pop("twin_lazy")
    (report,) = api.parity(f"{twins[2]}:lazy", [exported.file()])
    assert report.passed
    assert sys.path == before


def test_two_sources_have_helpers_of_the_same_name(twins, tmp_path):
    results = [
        of_ones(api.export(f"{twins[factor]}:eager", tmp_path / f"{turn}")) for turn, factor in enumerate((2, 3, 2))
    ]
    assert results == [22, 33, 22]


def test_each_loaded_source_imports_its_own_helper_when_it_is_captured(twins, tmp_path):
    sources = {factor: api.load(f"{twins[factor]}:lazy") for factor in (2, 3)}
    for turn, factor in enumerate((2, 3, 2)):
        assert of_ones(api.export(sources[factor], tmp_path / f"{turn}")) == factor


def test_packages_of_an_environment_below_the_folder_stay_everybodys(twins, tmp_path, monkeypatch):
    site = tmp_path / "by_2" / ".venv" / "site-packages"
    site.mkdir(parents=True)
    (site / "twin_installed.py").write_text("")
    monkeypatch.syspath_prepend(site)
    factory = Path(twins[2])
    factory.write_text("import twin_installed\n" + factory.read_text())
    api.load(f"{twins[2]}:lazy")
    installed = sys.modules["twin_installed"]
    api.load(f"{twins[3]}:lazy")
    assert sys.modules["twin_installed"] is installed


def test_the_number_of_threads_that_another_thread_set_for_a_while_is_not_kept(tmp_path):
    (tmp_path / "of_a_thread.py").write_text(
        "import torch\ndef make():\n    return torch.nn.Linear(2, 2), torch.ones(2, 2)\n"
    )
    before = torch.get_num_threads()
    loading = threading.Thread(target=api.load, args=(f"{tmp_path}/of_a_thread.py:make",))
    with threads(before + 3):
        loading.start()
        loading.join(0.3)
        assert loading.is_alive()  # It waits: what it would put back is not the process's number.
    loading.join()
    assert torch.get_num_threads() == before


def test_a_helper_that_imports_the_factorys_file_gets_its_own(tmp_path):
    for factor in (2, 3):
        folder = tmp_path / f"{factor}"
        folder.mkdir()
        (folder / "twin_main.py").write_text(
            f"import torch\nWIDTH = {factor}\n"
            "def make():\n    import twin_width\n    return torch.nn.Linear(2, twin_width.WIDTH), torch.ones(2, 2)\n"
        )
        (folder / "twin_width.py").write_text("from twin_main import WIDTH\n")
    widths = [api.load(f"{tmp_path}/{factor}/twin_main.py:make").module.out_features for factor in (2, 3, 2)]
    assert widths == [2, 3, 2]
