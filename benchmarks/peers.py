"""Our files against what other tools make of the same networks, on a CPU.

    python benchmarks/peers.py --python /path/of/peers/bin/python --update benchmarks/peers.md
    python benchmarks/peers.py --only s2mlp_deep:8 --rounds 20       # one network and batch; results are merged

Peers: the stock exporter on in-place code, torch eager and torch.compile on it, OpenVINO's own conversion of it,
NNCF's int8 of our float32 file, onnxslim's output, an MLP-Mixer of equal cost; and the products alone, which nothing
beats. One thread, process CPU time, every candidate in a process of its own, in turn. ``--python`` names a Python with
nncf, onnxslim and openvino; without it what they make is left out. Files and results lie under ``--root`` and
are made once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from peers_files import MIXERS, prepare

from s2mlp_deploy.evidence.machine import environment_here

BEGIN, END = "<!-- table -->", "<!-- end of table -->"
BASE = "ours without graph passes: ONNX Runtime, channels-last"
LAST, FIRST, GROUPED = "channels-last", "channels-first", "grouped-conv"


@dataclass(frozen=True)
class Peer:
    """A candidate: its name, how ``peers_worker.py`` runs it, and what."""

    name: str
    kind: str
    what: str


def candidates(model: str, root: Path) -> list[Peer]:
    def file(name: str) -> str:
        return str(root / name)

    found = [Peer(BASE, "onnxruntime", file("plain/model.fp32.onnx"))]
    for layout in (LAST, FIRST):
        found += [
            Peer(f"ours: ONNX Runtime, {layout}", "onnxruntime", file(f"{layout}/model.fp32.onnx")),
            Peer(f"no shift: ONNX Runtime, {layout}", "onnxruntime", file(f"no-shift-{layout}/model.fp32.onnx")),
            Peer(f"ours: ONNX Runtime, {layout}, int8", "onnxruntime", file(f"{layout}/model.int8.onnx")),
        ]
    return [
        *found,
        Peer("ours: ONNX Runtime, channels-last, int8 of 7 bits", "onnxruntime", file(f"{LAST}/model.int8-7bit.onnx")),
        Peer("ours: OpenVINO, channels-first", "openvino", file(f"{FIRST}/model.fp32.onnx")),
        Peer("ours: OpenVINO, channels-first, grouped-conv", "openvino", file(f"{GROUPED}/model.fp32.onnx")),
        Peer("no shift: OpenVINO, channels-first", "openvino", file(f"no-shift-{FIRST}/model.fp32.onnx")),
        Peer("ours: OpenVINO, grouped-conv, int8 of 7 bits", "openvino", file(f"{GROUPED}/model.int8-7bit.onnx")),
        Peer("ours: OpenVINO, grouped-conv, int8-trt (*)", "plain-openvino", file(f"{GROUPED}/model.int8-trt.onnx")),
        Peer("NNCF's int8 of our channels-last file (*)", "plain-openvino", file(f"nncf-{LAST}.xml")),
        Peer("NNCF's int8 of our channels-first file (*)", "plain-openvino", file(f"nncf-{FIRST}.xml")),
        Peer("onnxslim of our file: ONNX Runtime", "onnxruntime", file("ours.slim.onnx")),
        Peer("OpenVINO's own conversion of in-place code", "plain-openvino", file("converted.xml")),
        Peer("torch eager, in-place code", "eager", model),
        Peer("torch.compile, in-place code", "compile", model),
        Peer("stock exporter on in-place code: ONNX Runtime", "onnxruntime", file("stock.onnx")),
        Peer("the same through onnxslim", "onnxruntime", file("stock.slim.onnx")),
        Peer("MLP-Mixer of equal cost: ONNX Runtime", "onnxruntime", file("mixer/model.fp32.onnx")),
        Peer("MLP-Mixer of equal cost: OpenVINO", "openvino", file("mixer/model.fp32.onnx")),
        Peer("products alone: MatMul of ONNX Runtime", "products", file("products.json")),
        Peer("products alone: MatMulInteger of ONNX Runtime", "integer-products", file("products.json")),
    ]


class Process:
    """A candidate that is loaded; ``failed`` says why it is not."""

    def __init__(self, peer: Peer, batch: int) -> None:
        self.peer = peer
        self.times: list[float] = []
        worker = Path(__file__).with_name("peers_worker.py")
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        package = str(Path(__file__).resolve().parents[1])
        self._process = subprocess.Popen(
            [sys.executable, str(worker), peer.kind, peer.what, "--batch", str(batch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | threads | {"PYTHONPATH": package},
        )
        self.failed = self._answer().get("failed", "")

    def run(self) -> None:
        """One run, whose time is kept."""
        assert self._process.stdin is not None
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        answer = self._answer()
        self.failed = answer.get("failed", "")
        if not self.failed:
            self.times.append(answer["ms"])

    def close(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return dict(json.loads(line)) if line else {"failed": "its process ended"}


def measure(model: str, batch: int, root: Path, rounds: int, *, pause: bool) -> None:
    """Times all candidates in turn, in an order that is drawn anew in every round, and saves the result."""
    there = [peer for peer in candidates(model, root) if peer.what == model or Path(peer.what).is_file()]
    processes = [Process(peer, batch) for peer in there]
    print(f"{model}, batch {batch}: {sum(not process.failed for process in processes)} are loaded", flush=True)
    if pause:
        sys.stdin.readline()
    generator = random.Random(0)
    try:
        for number in range(rounds):
            for process in generator.sample(processes, len(processes)):
                if not process.failed:
                    process.run()
            print(f"{model}, batch {batch}: round {number + 1} of {rounds}", flush=True)
            missing = [peer.name for peer in candidates(model, root) if peer not in there]
            save(root / f"batch-{batch}.json", model, batch, processes, missing)
    finally:
        for process in processes:
            process.close()


def save(path: Path, model: str, batch: int, processes: list[Process], missing: list[str]) -> None:
    """Writes what was measured so far: a run that is stopped has its rounds."""
    environment = environment_here()
    result = {
        "model": model,
        "batch": batch,
        "machine": environment.machine.processor.name,
        "instructions": list(environment.machine.processor.instructions),
        "versions": versions(),
        "times": {process.peer.name: process.times for process in processes if process.times},
        "failed": {process.peer.name: process.failed for process in processes if process.failed}
        | dict.fromkeys(missing, "its file was not made"),
    }
    path.write_text(json.dumps(result, indent=1))


def versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("onnxruntime", "openvino", "torch")}


def table(result: dict[str, Any]) -> list[str]:
    times = {name: (min(values), statistics.median(values)) for name, values in result["times"].items()}
    base = times[BASE]
    rounds = max(map(len, result["times"].values()))
    lines = [f"### {result['model']}, batch {result['batch']}, {rounds} rounds", ""]
    lines += ["| | min ms | median ms | min over the first | median over the first |", "|---|---|---|---|---|"]
    order = sorted(times, key=lambda name: (name != BASE, times[name]))
    for name in order:
        least, middle = times[name]
        lines.append(f"| {name} | {least:.1f} | {middle:.1f} | {least / base[0]:.3f} | {middle / base[1]:.3f} |")
    lines += [f"| {name} | not measured: {why} | | | |" for name, why in result["failed"].items()]
    return [*lines, ""]


def write(roots: list[Path], update: Path | None) -> None:
    results = [json.loads(path.read_text()) for root in roots for path in sorted(root.glob("batch-*.json"))]
    if not results:
        return
    first = results[0]
    told = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    text = "\n".join([f"{first['machine']} ({' '.join(first['instructions'])}); {told}.", ""])
    text += "\n" + "\n".join(line for result in results for line in table(result))
    if update is None:
        print(text)
        return
    before, _, rest = update.read_text().partition(BEGIN)
    update.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("build/peers"))
    parser.add_argument("--python", help="a Python that has nncf, onnxslim and openvino")
    parser.add_argument("--only", nargs="+", help="model:batch, of what is measured; default: both models, 1 and 8")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--step", choices=("all", "prepare", "measure", "table"), default="all")
    parser.add_argument("--pause", action="store_true", help="wait for Enter once all is loaded: for quiet to begin")
    parser.add_argument("--update", type=Path, help="the page whose tables are replaced")
    args = parser.parse_args()
    wanted = [item.partition(":") for item in args.only or [f"{model}:{batch}" for model in MIXERS for batch in (1, 8)]]
    for model, _, batch in wanted:
        if args.step in ("all", "prepare"):
            prepare(model, args.root / model, args.python)
        if args.step in ("all", "measure"):
            measure(model, int(batch or 1), args.root / model, args.rounds, pause=args.pause)
    if args.step in ("all", "table"):
        write([args.root / model for model in MIXERS], args.update)


if __name__ == "__main__":
    main()
