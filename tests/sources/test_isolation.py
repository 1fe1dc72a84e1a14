"""What a factory's code does to the process is put back, also with several threads."""

from __future__ import annotations

import concurrent.futures
import logging
import sys

import pytest

pytest.importorskip("torch")
import torch

from s2mlp_deploy import api
from s2mlp_deploy.errors import SourceError
from s2mlp_deploy.sources.isolation import isolated

NOISY = """
import logging, logging.config, sys, torch
import neighbour
logging.basicConfig(level=logging.DEBUG, force=True)
logging.config.dictConfig({"version": 1, "disable_existing_loggers": True})
logging.disable(logging.CRITICAL)
torch.set_num_threads(torch.get_num_threads() + 1)
torch.set_default_dtype(torch.float64)
sys.path.append("/somewhere/else")

def make(fail=False):
    if fail:
        raise ValueError("on purpose")
    return torch.nn.Linear(2, 2, dtype=torch.float32), torch.ones(2, 2, dtype=torch.float32)
"""


def state():
    root = logging.getLogger()
    return (
        list(sys.path),
        list(root.handlers),
        root.level,
        root.manager.disable,
        logging.getLogger("s2mlp_deploy.sources.module").disabled,
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.initial_seed(),
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
