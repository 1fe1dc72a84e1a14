"""Fuzzing: ``python tests/fuzz/run_fuzz.py --seconds 20 [READER or FAMILY]...`` (``make fuzz SECONDS=20``).

Each reader has a process of its own, one after the other, in which atheris (libFuzzer) follows which lines of the
package a file reaches. Files that show a fault are kept under ``build/fuzz/<reader>``, one for each fault. Ends with
status 1 where there are any.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OUT = ROOT / "build" / "fuzz"
_FAULT = "fault-"
_HANG = 30
"""Seconds after which a file is given up; what comes to an end is measured by ``fuzzing.SECONDS``."""
_MEGABYTES = 4096


def main() -> int:
    """Runs the readers that were named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readers", nargs="*", help="families or readers; default all")
    parser.add_argument("--seconds", type=int, default=20, help="for each reader")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    # What the tests share, and the package itself where it is not installed.
    sys.path[:0] = [str(HERE), str(HERE.parent / "support"), str(ROOT)]
    if asked.child:
        _fuzz(asked.readers[0], asked.seconds)
    from fuzzing import FAMILIES, family

    # libFuzzer reads 0 seconds as no limit.
    if asked.seconds < 1:
        parser.error(f"--seconds {asked.seconds}: each reader takes at least one")
    every = {name: [item.name for item in family(name)] for name in FAMILIES}
    known = every | {name: [name] for names in every.values() for name in names}
    if unknown := [name for name in asked.readers if name not in known]:
        parser.error(f"there is no reader {unknown[0]!r}; families are {', '.join(FAMILIES)}")
    names = [name for chosen in asked.readers or FAMILIES for name in known[chosen]]
    print(f"{'reader':<28}{'executions':>12}{'per second':>12}{'edges before':>14}{'after':>8}  faults", flush=True)
    faults = 0
    for name in names:
        faults += _run(name, asked.seconds)
    return 1 if faults else 0


def _run(name: str, seconds: int) -> int:
    """Fuzzes a reader in a process of its own, and says what came of it; returns how many faults there are."""
    place = OUT / name
    place.mkdir(parents=True, exist_ok=True)
    for old in [path for path in place.iterdir() if path.is_file()]:
        old.unlink()
    command = [sys.executable, __file__, "--child", "--seconds", str(seconds), name]
    log = place / "log.txt"
    with log.open("wb") as stream:
        status = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, check=False).returncode
    text = log.read_text(errors="replace")
    done = re.findall(r"number_of_executed_units: (\d+)", text) or re.findall(r"^#(\d+)", text, re.M) or ["0"]
    edges = re.findall(r" cov: (\d+)", text) or ["0"]
    found = [path for path in place.iterdir() if path.name != log.name and path.is_file()]
    count = int(done[-1])
    told = ", ".join(sorted(path.name for path in found)) or ("" if status == 0 else f"ended with status {status}")
    print(f"{name:<28}{count:>12,}{count / seconds:>12,.0f}{edges[0]:>14}{edges[-1]:>8}  {told or 'none'}", flush=True)
    return len(found) or status != 0


def _fuzz(name: str, seconds: int) -> None:
    """Fuzzes a reader in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=["s2mlp_deploy"]):
        from fuzzing import FaultError, check, reader
        from mutating import some_bytes

        item = reader(name)
    place = OUT / name
    seen: set[str] = set()
    # On a file system in memory where there is one: every execution writes a file.
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if os.access(memory, os.W_OK) else None))

    def one(data: bytes) -> None:
        try:
            check(item, data, folder)
        except FaultError as fault:
            if fault.mark not in seen:
                seen.add(fault.mark)
                path = place / f"{_FAULT}{hashlib.sha256(data).hexdigest()[:12]}"
                path.write_bytes(data)
                print(f"\nFAULT {fault.mark}\n{fault}\nthe file: {path}\n", flush=True)

    def mutate(data: bytes, largest: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if item.mutate is None or rng.random() < 0.3:
            changed: bytes = atheris.Mutate(data, largest)
            return changed
        try:
            return item.mutate(bytes(data), rng)[:largest]
        except Exception:  # On bytes that are no such file any more libraries raise whatever they stumble on.
            return some_bytes(bytes(data), rng)[:largest]

    found = place / "corpus"
    found.mkdir(exist_ok=True)
    seeds = ROOT / "tests" / "fuzz" / "corpus" / name
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={item.largest}",
        f"-timeout={_HANG}",
        f"-rss_limit_mb={_MEGABYTES}",
        f"-artifact_prefix={place}/",
        "-print_final_stats=1",
        str(found),
        *([str(seeds)] if seeds.is_dir() else []),
    ]
    atheris.Setup([sys.argv[0], *options], one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
