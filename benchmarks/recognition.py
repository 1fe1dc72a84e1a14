"""Time of recognition for S2-MLP-deep written in place, by depth.

python benchmarks/recognition.py
"""

from __future__ import annotations

import argparse
import time

from inplace import inplace_shifts

from s2mlp_deploy import api
from s2mlp_deploy.capture.program import capture
from s2mlp_deploy.export.rewrite import rewrite_shifts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="s2mlp_deep")
    parser.add_argument("--depths", type=int, nargs="+", default=[9, 18, 36])
    args = parser.parse_args()
    print("| blocks | shifts found | capture, s | recognition, s (wall) | recognition, s (CPU) |")
    print("|---|---|---|---|---|")
    for depth in args.depths:
        source = api.load(args.model, overrides={"depths": [depth]})
        start = time.monotonic()
        with inplace_shifts():
            captured = capture(source.module, source.example_inputs)
        middle, cpu = time.monotonic(), time.process_time()
        found = rewrite_shifts(captured.program)
        seconds, cpu = time.monotonic() - middle, time.process_time() - cpu
        print(f"| {depth} | {len(found.shifts)} | {middle - start:.1f} | {seconds:.2f} | {cpu:.2f} |")


if __name__ == "__main__":
    main()
