"""Which instruction sets a processor has, and what follows for int8."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from s2mlp_deploy.processor import Processor, processor, read_processor

CPUINFO = """processor\t: 0
model name\t: Some Processor 9000
flags\t\t: fpu sse4_1 sse4_2 fma avx avx2 f16c avx512f avx512_vnni rdrand

processor\t: 1
flags\t\t: fpu
"""


def test_the_first_processors_relevant_flags_are_read():
    found = read_processor("x86_64", CPUINFO)
    assert found == Processor(
        "x86_64", "Some Processor 9000", ("avx", "avx2", "avx512_vnni", "avx512f", "f16c", "fma", "sse4_1", "sse4_2")
    )


def test_arm_lists_features():
    found = read_processor("aarch64", "processor : 0\nFeatures : fp asimd asimddp i8mm crc32\n", fallback="arm")
    assert found == Processor("aarch64", "arm", ("asimd", "asimddp", "i8mm"))


@pytest.mark.parametrize(
    ("architecture", "instructions", "saturates"),
    [
        ("x86_64", ("avx2",), True),
        ("x86_64", ("avx512f", "avx512bw"), True),
        ("AMD64", (), True),
        ("x86_64", ("avx2", "avx_vnni"), False),
        ("x86_64", ("avx512_vnni",), False),
        ("x86_64", ("amx_int8",), False),
        ("aarch64", (), False),
        ("arm64", ("asimd",), False),
    ],
)
def test_int8_saturates_on_x86_without_vnni_only(architecture, instructions, saturates):
    assert Processor(architecture, "", instructions).int8_saturates is saturates


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="this system lists no instruction sets")
def test_this_machine_is_read():
    found = processor()
    assert found.architecture == platform.machine()
    listed = Path("/proc/cpuinfo").read_text().split()
    assert found.instructions
    assert set(found.instructions) <= set(listed)
