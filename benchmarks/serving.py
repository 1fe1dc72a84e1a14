"""The service under load on loopback, against the raw session on the same cores; lost requests; memory.

python benchmarks/serving.py throughput ARTIFACT IMAGES --instances 2 --threads 1
python benchmarks/serving.py faults ARTIFACT IMAGES
python benchmarks/serving.py memory ARTIFACT IMAGES

Throughput: closed loop (every client asks again when it has its answer), then open loop (Poisson arrivals at 70 % of
the raw session's throughput, latency from the intended send). The clients are threads of this process; its processor
time is told, since it comes off the same cores.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from s2mlp_deploy import api
from s2mlp_deploy.serving.images import NamedImage

Ask = Callable[[http.client.HTTPConnection, int], int]


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The service; its process and its port."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "s2mlp_deploy",
            "serve",
            *arguments,
            "--port",
            "0",
            "--precision",
            "fp32",
            "--allow-unproven",
        ],
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    lines = iter(process.stderr.readline, b"")
    port = next(json.loads(line)["port"] for line in lines if b'"port"' in line)
    threading.Thread(target=lambda: [None for _ in lines], daemon=True).start()
    try:
        while status(port, "/v2/health/ready") != 200:
            time.sleep(0.1)
        yield process, port
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def status(port: int, path: str) -> int:
    """Of a GET."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().status


def classifier(name: str, images: list[bytes]) -> Ask:
    """Posts image after image."""

    def ask(connection: http.client.HTTPConnection, number: int) -> int:
        connection.request(
            "POST", f"/v2/models/{name}/classify", images[number % len(images)], {"Content-Type": "image/jpeg"}
        )
        answer = connection.getresponse()
        answer.read()
        return answer.status

    return ask


def inference(name: str, tensor: str, samples: list[np.ndarray]) -> Ask:
    """Posts tensors as bytes, and gets bytes."""
    bodies = []
    for sample in samples:
        about = {
            "name": tensor,
            "shape": [1, *sample.shape],
            "datatype": "FP32",
            "parameters": {"binary_data_size": sample.nbytes},
        }
        head = json.dumps({"inputs": [about], "parameters": {"binary_data_output": True}}).encode()
        bodies.append((head + sample.tobytes(), str(len(head))))

    def ask(connection: http.client.HTTPConnection, number: int) -> int:
        body, length = bodies[number % len(bodies)]
        headers = {"Inference-Header-Content-Length": length, "Content-Type": "application/octet-stream"}
        connection.request("POST", f"/v2/models/{name}/infer", body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status

    return ask


def raw(artifact: Path, samples: list[np.ndarray], threads: int, instances: int, seconds: float) -> float:
    """Images per second of sessions without a service, one image a run, as many threads as sessions."""
    predictors = [
        api.Predictor(artifact, precision="fp32", threads=threads, allow_unproven=True, warn=False)
        for _ in range(instances)
    ]
    (info,) = predictors[0].inputs
    counts = [0] * instances
    end = 0.0

    def work(index: int) -> None:
        while time.perf_counter() < end:
            predictors[index].run({info.name: samples[counts[index] % len(samples)][None]})
            counts[index] += 1

    for predictor in predictors:
        predictor.run({info.name: samples[0][None]})
    start = time.perf_counter()
    end = start + seconds
    workers = [threading.Thread(target=work, args=(index,)) for index in range(instances)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts) / (time.perf_counter() - start)


def closed(port: int, ask: Ask, concurrency: int, seconds: float) -> tuple[float, list[float], float]:
    """Answers per second, their latencies, and this process's processor seconds a second."""
    latencies: list[float] = []
    stop = time.perf_counter() + seconds

    def client(index: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with contextlib.closing(connection):
            number = index
            while (start := time.perf_counter()) < stop:
                assert ask(connection, number) == 200
                latencies.append(time.perf_counter() - start)
                number += 1

    begun, spent = time.perf_counter(), time.process_time()
    threads = [threading.Thread(target=client, args=(index,)) for index in range(concurrency)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - begun
    return len(latencies) / wall, latencies, (time.process_time() - spent) / wall


def opened(port: int, ask: Ask, rate: float, seconds: float) -> tuple[list[float], Counter[int]]:
    """Latencies from the intended sends of a Poisson process, and the statuses."""
    generator, local = random.Random(0), threading.local()
    statuses: Counter[int] = Counter()
    latencies: list[float] = []

    def one(number: int, due: float) -> None:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        statuses[ask(local.connection, number)] += 1
        latencies.append(time.perf_counter() - due)

    with ThreadPoolExecutor(64) as pool:
        due, number = time.perf_counter(), 0
        end = due + seconds
        while (due := due + generator.expovariate(rate)) < end:
            time.sleep(max(0.0, due - time.perf_counter()))
            pool.submit(one, number, due)
            number += 1
    return latencies, statuses


def percentiles(latencies: list[float]) -> str:
    """The median and the 99th, in milliseconds."""
    p50, p99 = np.percentile(latencies, [50, 99]) * 1000
    return f"{p50:.1f} | {p99:.1f}"


def throughput(args: argparse.Namespace, name: str, images: list[bytes], samples: list[np.ndarray]) -> None:
    """Prints the table of throughput."""
    (info,) = api.read_manifest(args.artifact).inputs
    best = max(
        raw(args.artifact, samples, *how, args.seconds) for how in {(1, 2), (2, 1), (args.threads, args.instances)}
    )
    print(f"raw session, the better of 1 x 2 and 2 x 1 threads, one image a run: {best:.2f} images/s\n")
    print("| route | batch | answers/s | of raw | p50 ms | p99 ms | client, cores |\n|---|---|---|---|---|---|---|")
    for batch in args.batches:
        options = ("--instances", str(args.instances), "--threads", str(args.threads), "--max-batch", str(batch))
        with serving(str(args.artifact), *options) as (_, port):
            for route, ask in (("classify", classifier(name, images)), ("infer", inference(name, info.name, samples))):
                closed(port, ask, args.concurrency, 2)
                rate, latencies, client = closed(port, ask, args.concurrency, args.seconds)
                told = f"{rate:.2f} | {rate / best:.3f} | {percentiles(latencies)} | {client:.3f}"
                print(f"| {route}, closed, {args.concurrency} clients | {batch} | {told} |", flush=True)
                late, statuses = opened(port, ask, 0.7 * best, args.seconds)
                told = f"{0.7 * best:.2f} | 0.700 | {percentiles(late)} |"
                print(f"| {route}, open, Poisson, {dict(statuses)} | {batch} | {told} |", flush=True)


def faults(args: argparse.Namespace, name: str, images: list[bytes], _: list[np.ndarray]) -> None:
    """Counts what is lost while a worker is killed and while the service drains."""
    for what in ("worker killed", "drain"):
        with serving(str(args.artifact), "--threads", "1") as (process, port):
            ask, outcomes, stop = classifier(name, images), Counter[str](), threading.Event()

            def client(ask: Ask = ask, outcomes: Counter[str] = outcomes, stop: threading.Event = stop) -> None:
                number = 0
                while not stop.is_set():
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                    try:
                        with contextlib.closing(connection):
                            outcomes[str(ask(connection, number))] += 1
                    except ConnectionRefusedError:
                        return
                    except (OSError, http.client.HTTPException) as error:
                        outcomes[type(error).__name__] += 1
                    number += 1

            threads = [threading.Thread(target=client) for _ in range(16)]
            for thread in threads:
                thread.start()
            time.sleep(3)
            if what == "drain":
                process.terminate()
                print("exit status", process.wait(60))
            else:
                children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                os.kill(int(children[0]), signal.SIGKILL)
                time.sleep(5)
            stop.set()
            for thread in threads:
                thread.join()
            print(f"{what}: {dict(outcomes)}", flush=True)


def memory(args: argparse.Namespace, name: str, images: list[bytes], _: list[np.ndarray]) -> None:
    """The resident memory of service and workers after 1,000 and 10,000 requests."""
    with serving(str(args.artifact), "--threads", "1") as (process, port):
        ask, done, at = classifier(name, images), 0, {}
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for count in (1_000, 10_000):
            while done < count:
                assert ask(connection, done) == 200
                done += 1
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            at[count] = [resident(pid) for pid in (process.pid, *map(int, children))]
        after, before = at[10_000], at[1_000]
        print(f"service and worker, MiB: {before} after 1,000, {after} after 10,000: {sum(after) / sum(before):.4f}")


def resident(pid: int) -> float:
    """MiB of a process in memory."""
    return round(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("throughput", "faults", "memory"))
    parser.add_argument("artifact", type=Path)
    parser.add_argument("images", type=Path, help="A folder with JPEG files.")
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--instances", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 1])
    args = parser.parse_args()
    files = sorted(args.images.glob("*.[jJ][pP]*[gG]"))[:64]
    predictor = api.Predictor(args.artifact, precision="fp32", allow_unproven=True, warn=False)
    samples = [predictor.load(NamedImage(str(file), file)) for file in files[:16]]
    predictor.close()
    images = [file.read_bytes() for file in files]
    {"throughput": throughput, "faults": faults, "memory": memory}[args.what](
        args, predictor.manifest.name, images, samples
    )


if __name__ == "__main__":
    main()
