"""Time and memory of recognition, each case in a process of its own.

python benchmarks/recognition.py
python benchmarks/recognition.py --cases loop --limit 300
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from inplace import inplace_shifts
from torch import Tensor, nn

from s2mlp_deploy import api
from s2mlp_deploy.capture.program import Captured, capture
from s2mlp_deploy.export.rewrite import rewrite_shifts

SPATIAL = ("batch", "height", "width")


def deep() -> Captured:
    """S2-MLP-deep, every shift written in place: 36 blocks."""
    source = api.load("s2mlp_deep")
    with inplace_shifts():
        return capture(source.module, source.example_inputs)


def detector() -> Captured:
    """The detector of examples/bring_your_own for images of 640 x 640, all sizes free."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "bring_your_own"))
    from detector import make  # An example, not part of the package.

    module, image = make(width=64, size=640)
    return capture(module, (image,), dynamic=SPATIAL)


class Loop(nn.Module):
    """Every channel's rows from 1 to 29 move by one; the others stay, so that it is no shift."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 96, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] to [N, 96, H, W]."""
        x = self.conv(x)
        y = x.clone()
        for channel in range(x.shape[1]):
            y[:, channel, 1:30] = x[:, channel, :29]
        return y * 2


class Swaps(Loop):
    """In each channel two rows change places, in turn: every tensor on the way holds every element once."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] to [N, 96, H, W]."""
        y = self.conv(x)
        for channel in range(y.shape[1]):
            rows = y[:, channel].clone()
            y[:, channel, 30:31] = rows[:, 31:32]
            y[:, channel, 31:32] = rows[:, 30:31]
        return y * 2


def loop() -> Captured:
    """A loop over 96 channels of 56 x 56 that is no shift."""
    return capture(Loop(), (torch.rand(1, 3, 56, 56),))


def swaps() -> Captured:
    """The same loop, whose rows change places."""
    return capture(Swaps(), (torch.rand(1, 3, 56, 56),))


CASES: dict[str, Callable[[], Captured]] = {"deep": deep, "detector": detector, "loop": loop, "swaps": swaps}


def memory(field: str) -> float:
    """VmRSS or VmHWM of this process in MiB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def measure(name: str, limit: float, most: float, results: Connection) -> None:
    """Sends what recognition of a case found and took."""
    torch.set_num_threads(1)
    captured = CASES[name]()
    # A recogniser that needs more memory than this fails in its own process and leaves the machine alone.
    resource.setrlimit(resource.RLIMIT_AS, (int(most * 2**30),) * 2)
    # The processor's time, so that a busy machine does not cut a case short: the signal ends the process.
    signal.setitimer(signal.ITIMER_PROF, limit)
    Path("/proc/self/clear_refs").write_text("5")  # Lets the peak start again from here.
    before, start = memory("VmRSS"), time.process_time()
    found = rewrite_shifts(captured.program)
    seconds, peak = time.process_time() - start, memory("VmHWM") - before
    results.send(f"{len(found.shifts)} | {len(found.near_misses)} | {seconds:.2f} | {peak:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument(
        "--limit", type=float, default=600.0, help="seconds of recognition (CPU) after which a case is given up"
    )
    parser.add_argument("--memory", type=float, default=8.0, help="GiB of addresses that a case may use")
    args = parser.parse_args()
    print("| case | shifts | near misses | recognition, s (CPU) | peak memory, MiB |")
    print("|---|---|---|---|---|")
    context = multiprocessing.get_context("spawn")
    for name in args.cases:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=measure, args=(name, args.limit, args.memory, sender))
        process.start()
        sender.close()
        try:
            row = receiver.recv()
        except EOFError:
            row = None
        process.join()
        if row is None:
            row = f"- | - | {'over ' + str(args.limit) if process.exitcode == -signal.SIGPROF else 'killed'} | -"
        print(f"| {name} | {row} |", flush=True)


if __name__ == "__main__":
    main()
