"""What the processor of this machine can do, as far as kernels are chosen by it. Read from the operating system."""

from __future__ import annotations

import functools
import platform
import re
from dataclasses import dataclass
from pathlib import Path

# Instruction sets that ONNX Runtime and OpenVINO choose kernels by; the other flags change nothing.
_RELEVANT = re.compile(r"avx|amx|fma$|f16c|sse4|asimd|neon|sve|sme\d?$|i8mm|bf16|fphp")
_X86 = frozenset(("x86_64", "amd64", "i386", "i686"))
# Multiply 8-bit integers and add to 32 bits in one step. Without them, x86 adds pairs of products in 16 bits.
_VNNI = frozenset(("avx512_vnni", "avx_vnni", "amx_int8"))


@dataclass(frozen=True)
class Processor:
    """A kind of processor.

    Attributes:
        architecture: ``x86_64``, ``aarch64``.
        name: As the operating system calls it; may be empty.
        instructions: Instruction sets that kernels are chosen by, sorted; empty where the system does not list them.
    """

    architecture: str
    name: str
    instructions: tuple[str, ...]

    @property
    def int8_saturates(self) -> bool:
        """Whether sums of two uint8 × int8 products may be cut off at 16 bits.

        x86 without VNNI adds two products in 16 bits (``vpmaddubsw``), and 255 · 127 · 2 is more than 32,767:
        https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html. Where the system lists no
        instruction sets, an x86 processor counts as one of those: exact and slower is the safer error.
        """
        return self.architecture.lower() in _X86 and not _VNNI.intersection(self.instructions)


@functools.cache
def processor() -> Processor:
    """The processor of this machine."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    return read_processor(platform.machine(), text, fallback=platform.processor())


def read_processor(architecture: str, cpuinfo: str, *, fallback: str = "") -> Processor:
    """Reads the text of ``/proc/cpuinfo``.

    Args:
        architecture: Of the machine.
        cpuinfo: The text; empty where there is none.
        fallback: Name of the processor where the text has none.
    """
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    name = re.search(r"^model name\s*:\s*(.*\S)", cpuinfo, re.MULTILINE)
    found = {flag for flag in flags[1].split() if _RELEVANT.match(flag)} if flags else set()
    return Processor(architecture, name[1] if name else fallback, tuple(sorted(found)))
