"""Seconds and peak memory of an export.

    python benchmarks/export.py s2mlpv2_medium_7

Runs the command line in a process of its own and reads the operating system's account of it; the peak of importing the
same packages is measured in another and subtracted.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IMPORTS = (
    "import torch, onnx, onnxscript, onnx_ir, torch.onnx, "
    "s2mlp_deploy.export.analysis, s2mlp_deploy.export.write, s2mlp_deploy.report.html"
)


def measure(command: list[str]) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak megabytes of a command.

    The account is of the largest child that was waited for, so the smaller command must run first.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, after.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    args = parser.parse_args()
    _, _, imports = measure([sys.executable, "-c", IMPORTS])
    print(f"imports alone: {imports:.0f} MB\n")
    print("| model | file, MB | wall s | CPU s | peak MB | peak without imports, over the file's size |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for model in args.models:
            out = Path(folder) / model
            command = [sys.executable, "-m", "s2mlp_deploy.cli.main", "export", model, "-o", str(out)]
            wall, cpu, peak = measure(command)
            size = (out / "model.fp32.onnx").stat().st_size / 2**20
            print(f"| {model} | {size:.0f} | {wall:.1f} | {cpu:.1f} | {peak:.0f} | {(peak - imports) / size:.2f} |")


if __name__ == "__main__":
    main()
