"""Images a second of `batch`: processes and actors of Ray against plain loops on the same cores.

    python benchmarks/batch.py ARTIFACT IMAGES [--images 300] [--chunk 6] [--pools loop,loops,process,ray]

``loop`` is one process that reads, decodes and runs in turn, with all cores in the engine. ``loops`` is such a loop for
each core, with one thread, its share of the images and nobody who hands out work: the most that these cores give.
``process`` and ``ray`` hand out chunks to as many workers of one thread. Every rate is of the steady state: from when
every worker has returned a chunk. Starting is told apart.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from s2mlp_deploy.data.images import some_images
from s2mlp_deploy.evidence.machine import this_machine
from s2mlp_deploy.evidence.tune import EngineSettings
from s2mlp_deploy.serving.batch.inputs import BatchInput, open_input
from s2mlp_deploy.serving.batch.pools import InThisProcess, Processes
from s2mlp_deploy.serving.batch.worker import ChunkResult, WorkerOptions
from s2mlp_deploy.serving.plan import plan_run


def results(kind: str, options: WorkerOptions, found: BatchInput, cores: int) -> Iterator[ChunkResult]:
    if kind == "loop":
        settings = EngineSettings(threads=cores)
        yield from InThisProcess(replace(options, plan=replace(options.plan, settings=settings))).map(found.chunks)
    elif kind == "process":
        yield from Processes(options, cores).map(found.chunks)
    else:
        from s2mlp_deploy.serving.batch.ray_pool import RayActors

        yield from RayActors(options, cores, None).map(found.chunks)


def measure(kind: str, options: WorkerOptions, found: BatchInput, cores: int) -> tuple[float, float]:
    """Images a second in the steady state, and seconds until it began."""
    start = time.perf_counter()
    warm, images = 0.0, 0
    for seen, result in enumerate(results(kind, options, found, cores)):
        now = time.perf_counter()
        if seen == cores:
            warm = now
        elif warm:
            images += result.images
    return images / (now - warm), warm - start


def one_loop(arguments: argparse.Namespace) -> None:
    """One of ``loops``: prints its rate."""
    options, found, _ = prepared(arguments)
    mine = replace(found, chunks=found.chunks[arguments.part :: arguments.of])
    rate, begun = measure("loop", options, mine, 1)
    print(rate, begun)


def loops(cores: int) -> tuple[float, float]:
    """As many loops as cores, side by side; their rates together."""
    command = [sys.executable, __file__, *sys.argv[1:], "--of", str(cores)]
    running = [
        subprocess.Popen([*command, "--part", str(part)], stdout=subprocess.PIPE, text=True) for part in range(cores)
    ]
    told = [[float(word) for word in process.communicate()[0].split()] for process in running]
    return sum(rate for rate, _ in told), max(begun for _, begun in told)


def prepared(arguments: argparse.Namespace) -> tuple[WorkerOptions, BatchInput, int]:
    cores = max(1, int(this_machine().usable_cores or 1))
    plan = plan_run(arguments.artifact, precision="fp32", threads=1, allow_unproven=True)
    options = WorkerOptions(replace(plan, directory=plan.directory.resolve()), batch=arguments.batch)
    names = [str(path.resolve()) for path in some_images(arguments.images, arguments.count)]
    return options, open_input(names, column=None, size=arguments.chunk), cores


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("artifact", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--images", dest="count", type=int, default=300)
    parser.add_argument("--chunk", type=int, default=6)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--pools", default="loop,loops,process,ray")
    parser.add_argument("--part", type=int)
    parser.add_argument("--of", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.part is not None:
        one_loop(arguments)
        return
    options, found, cores = prepared(arguments)
    print(f"{options.plan.file} on {options.plan.engine}, {found.count} images, {cores} cores\n")
    print("| who works | images a second | over `loops` | seconds until all worked |\n|---|---|---|---|")
    rates = {}
    for kind in arguments.pools.split(","):
        rates[kind], begun = loops(cores) if kind == "loops" else measure(kind, options, found, cores)
        over = f"{rates[kind] / rates['loops']:.3f}" if "loops" in rates else ""
        print(f"| `{kind}` | {rates[kind]:.2f} | {over} | {begun:.1f} |", flush=True)


if __name__ == "__main__":
    main()
