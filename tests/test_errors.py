"""Every error says what, where and how to mend it, and survives a process boundary."""

from __future__ import annotations

import concurrent.futures
import contextlib
import copy
import importlib
import multiprocessing
import pickle
import pkgutil

import pytest

import s2mlp_deploy
from s2mlp_deploy import errors
from s2mlp_deploy.errors import InputError, MissingDependencyError, S2MLPDeployError


def test_errors_say_what_where_and_fix():
    error = S2MLPDeployError("it broke", where="here", fix="mend it")
    assert str(error) == "it broke\n  where: here\n  fix:   mend it"
    assert str(S2MLPDeployError("it broke")) == "it broke"


def every_error() -> list[type[S2MLPDeployError]]:
    for module in pkgutil.walk_packages(s2mlp_deploy.__path__, "s2mlp_deploy."):
        if module.name.rpartition(".")[2] != "__main__":
            with contextlib.suppress(ImportError):  # of an extra that is not installed
                importlib.import_module(module.name)
    found, todo = [], [S2MLPDeployError]
    while todo:
        kind = todo.pop()
        found.append(kind)
        todo += kind.__subclasses__()
    return found


def instance(kind: type[S2MLPDeployError]) -> S2MLPDeployError:
    if issubclass(kind, MissingDependencyError):
        return kind("torch", extra="export", purpose="working with PyTorch models")
    if kind.__name__ == "RequestError":
        return kind("busy", "it broke", fix="mend it")
    return kind("it broke", where="here", fix="mend it")


def test_every_error_can_be_pickled():
    kinds = every_error()
    assert len(kinds) > 10
    for kind in kinds:
        error = instance(kind)
        error.add_note("of the third image")
        back = pickle.loads(pickle.dumps(error))
        assert type(back) is kind
        assert str(back) == str(error)
        assert vars(back) == vars(error)
        assert back.exit_code == error.exit_code
        assert copy.copy(error).args == error.args


def fail_with(name: str) -> None:
    raise instance(getattr(errors, name))


@pytest.mark.parametrize("name", ["CheckFailedError", "MissingDependencyError"])
def test_an_error_of_a_worker_arrives_as_itself(name):
    context = multiprocessing.get_context("fork")
    with (
        concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool,
        pytest.raises(getattr(errors, name)) as caught,
    ):
        pool.submit(fail_with, name).result(timeout=60)
    assert str(caught.value) == str(instance(getattr(errors, name)))


def test_a_problem_that_repeats_megabytes_is_cut():
    error = pickle.loads(pickle.dumps(InputError("x" * 2_000_000, where="y" * 10**6, fix="z" * 10**6)))
    assert len(str(error)) < 16_000
    assert "2,000,000 characters" in error.problem
