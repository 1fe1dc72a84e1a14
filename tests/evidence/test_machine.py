"""The machine of a measurement: cores, limits of control groups, and what is kept of them in a document."""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from s2mlp_deploy.evidence.machine import Environment, Machine, environment_here, this_machine
from s2mlp_deploy.files import from_json, to_json
from s2mlp_deploy.processor import Processor


@pytest.fixture
def root(tmp_path: Path):
    """Writes files below a root and reads the machine from there."""

    def read(**files: str) -> Machine:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        return this_machine(tmp_path)

    return read


def cgroup(name: str) -> str:
    return f"sys/fs/cgroup/{name}"


def test_cores_are_counted_by_the_threads_that_share_them(root):
    cpus = {f"sys/devices/system/cpu/cpu{i}/topology/core_cpus_list": f"{i % 2},{i % 2 + 2}" for i in range(4)}
    assert root(**cpus).physical_cores == 2


def test_older_kernels_name_the_list_otherwise(root):
    assert root(**{"sys/devices/system/cpu/cpu0/topology/thread_siblings_list": "0-1"}).physical_cores == 1


def test_a_system_that_tells_nothing_is_described_all_the_same(root):
    found = root()
    assert (found.physical_cores, found.cpu_quota, found.memory_limit, found.governor) == (None, None, None, "")
    assert found.processor.architecture == platform.machine()


@pytest.mark.parametrize(
    ("files", "quota", "limit"),
    [
        pytest.param(
            {
                "proc/self/cgroup": "0::/a/b",
                cgroup("a/b/cpu.max"): "max 100000",
                cgroup("a/cpu.max"): "150000 100000",
                cgroup("cpu.max"): "400000 100000",
                cgroup("a/b/memory.max"): "max",
                cgroup("a/memory.max"): "2147483648",
            },
            1.5,
            2 << 30,
            id="version 2: the smallest on the way up",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "4:memory:/c\n3:cpu,cpuacct:/c\n0::/",
                cgroup("cpu/c/cpu.cfs_quota_us"): "50000",
                cgroup("cpu/c/cpu.cfs_period_us"): "100000",
                cgroup("memory/c/memory.limit_in_bytes"): "1073741824",
                cgroup("memory/memory.limit_in_bytes"): "9223372036854771712",
            },
            0.5,
            1 << 30,
            id="version 1",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "3:cpu:/host/path\n4:memory:/host/path",
                cgroup("cpu/cpu.cfs_quota_us"): "200000",
                cgroup("cpu/cpu.cfs_period_us"): "100000",
                cgroup("memory/memory.limit_in_bytes"): "4294967296",
            },
            2.0,
            4 << 30,
            id="a container that sees its host's paths",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "3:cpu:/\n4:memory:/",
                cgroup("cpu/cpu.cfs_quota_us"): "-1",
                cgroup("cpu/cpu.cfs_period_us"): "100000",
                cgroup("memory/memory.limit_in_bytes"): "9223372036854771712",
            },
            None,
            None,
            id="no limits",
        ),
        pytest.param(
            {"proc/self/cgroup": "0::/\nnonsense", cgroup("cpu.max"): "x y z", cgroup("memory.max"): ""},
            None,
            None,
            id="damaged",
        ),
    ],
)
def test_limits_of_control_groups(root, files, quota, limit):
    found = root(**files)
    assert (found.cpu_quota, found.memory_limit) == (quota, limit)


@pytest.mark.parametrize(
    ("logical", "allowed", "quota", "usable"),
    [(8, 4, None, 4), (8, 8, 1.5, 1.5), (2, None, 16.0, 2), (None, None, None, None)],
)
def test_usable_is_the_smallest_of_what_is_there_allowed_and_granted(logical, allowed, quota, usable):
    machine = Machine(Processor("x86_64", "", ()), logical_cores=logical, allowed_cores=allowed, cpu_quota=quota)
    assert machine.usable_cores == usable


def test_usable_memory_is_the_smaller_of_both():
    assert Machine(Processor("", "", ()), memory=8, memory_limit=2).usable_memory == 2
    assert Machine(Processor("", "", ()), memory=8).usable_memory == 8


def test_the_environment_of_this_process():
    here = environment_here()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", here.time)
    assert here.versions["s2mlp_deploy"]
    # Only what the process has loaded has computed anything.
    assert set(here.versions) - {"s2mlp_deploy"} <= set(sys.modules)
    machine = here.machine
    assert machine == this_machine()
    assert machine.python == platform.python_version()
    assert machine.logical_cores == os.cpu_count()
    assert machine.memory
    assert machine.memory > 1 << 28


def test_a_document_holds_no_name_of_host_or_user():
    text = to_json(environment_here()).decode()
    for private in (platform.node(), os.environ.get("USER", ""), str(Path.home())):
        assert len(private) < 4 or private not in text


def test_it_is_read_back_as_it_was_written(monkeypatch):
    class Version(str):  # As torch's.
        __slots__ = ()

    monkeypatch.setitem(sys.modules, "openvino", SimpleNamespace(__version__=Version("2026.4")))
    here = environment_here()
    assert here.versions["openvino"] == "2026.4"
    assert msgspec.convert(from_json(to_json(here)), Environment) == here
