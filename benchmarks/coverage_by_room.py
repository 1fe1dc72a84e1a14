"""Coverage by room, from what ``make coverage`` measured: ``python benchmarks/coverage_by_room.py coverage.json``.

Ends with status 1 where the package as a whole has less than :data:`LINES` or :data:`BRANCHES`. ``--files 40`` lists
the files with the most lines and branches that no test runs.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

LINES, BRANCHES = 92.0, 85.0
"""Per cent of all lines and of all branches."""

_COUNTS = ("num_statements", "covered_lines", "num_branches", "covered_branches")


def main() -> int:
    """Prints the table, and says whether the limits hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("--files", type=int, default=0, help="how many files to list")
    parser.add_argument("--room", default="", help="only what lies in it")
    asked = parser.parse_args()
    rooms: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    files: dict[str, list[int]] = {}
    for name, found in json.loads(asked.report.read_text())["files"].items():
        path = name.partition("s2mlp_deploy/")[2]
        room, slash, _ = path.partition("/")
        if asked.room and room != asked.room:
            continue
        files[path] = [found["summary"][key] for key in _COUNTS]
        for room_name in (room if slash else "(leaves)", "all"):
            for index, count in enumerate(files[path]):
                rooms[room_name][index] += count
    print("| room | lines | covered | branches | covered |\n|---|---|---|---|---|")
    for room, (lines, run, branches, taken) in sorted(rooms.items(), key=lambda item: (item[0] == "all", item[0])):
        print(f"| {room} | {lines:,} | {_share(run, lines):.1f} % | {branches:,} | {_share(taken, branches):.1f} % |")
    missed = sorted(files, key=lambda path: files[path][1] + files[path][3] - files[path][0] - files[path][2])
    for path in missed[: asked.files]:
        lines, run, branches, taken = files[path]
        print(f"{path}: {lines - run} of {lines} lines, {branches - taken} of {branches} branches")
    lines, run, branches, taken = rooms["all"]
    return 0 if asked.room or (_share(run, lines) >= LINES and _share(taken, branches) >= BRANCHES) else 1


def _share(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 100.0


if __name__ == "__main__":
    raise SystemExit(main())
