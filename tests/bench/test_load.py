"""What else the machine did is read from its counters and told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from s2mlp_deploy.bench.load import Activity, activity, disturbances, throttled_gpus

QUIET = Activity(0.0, 0.0, 0.0, 0, 0)


def test_counters_are_read(tmp_path: Path):
    second = os.sysconf("SC_CLK_TCK")
    (tmp_path / "proc").mkdir()
    # user nice system idle iowait irq softirq steal guest
    ticks = (5, 1, 2, 1000, 500, 1, 1, 3, 5)
    (tmp_path / "proc/stat").write_text("cpu  " + " ".join(str(n * second) for n in ticks) + "\ncpu0 1\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu.stat").write_text("usage_usec 5\nnr_throttled 7\nthrottled_usec 9\n")
    for core, count in ((0, 2), (1, 3)):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{core}/thermal_throttle"
        folder.mkdir(parents=True)
        (folder / "core_throttle_count").write_text(f"{count}\n")
    found = activity(tmp_path)
    assert (found.busy, found.steal, found.throttled, found.thermal) == (10, 3, 7, 5)


def test_a_system_that_tells_nothing_disturbs_nothing(tmp_path: Path):
    nothing = activity(tmp_path)
    assert (nothing.busy, nothing.steal, nothing.throttled, nothing.thermal) == (None, None, None, None)
    assert disturbances(nothing, activity(tmp_path), 0.0) == ()


@pytest.mark.parametrize(
    ("after", "says"),
    [
        (Activity(10.0, 25.0, 0.0, 0, 0), "other programs kept 1.5 processors busy"),
        (Activity(10.0, 10.0, 5.0, 0, 0), "the hypervisor took 0.50 processors"),
        (Activity(10.0, 10.0, 0.0, 4, 0), "stopped 4 times"),
        (Activity(10.0, 10.0, 0.0, 0, 1), "heat"),
    ],
)
def test_what_disturbs_is_told(after: Activity, says: str):
    (told,) = disturbances(QUIET, after, own_seconds=10.0)
    assert says in told


def test_what_the_measurement_itself_takes_is_no_other_load():
    assert disturbances(QUIET, Activity(10.0, 10.5, 0.1, 0, 0), own_seconds=10.0) == ()


def test_gpus_that_are_held_down_are_named():
    # Idle (1) and clocks that an application set (2) hold nothing down.
    (told,) = throttled_gpus("0x0000000000000001\n0x0000000000000048\nnot supported\n0x2\n")
    assert "GPU 1" in told
