"""The parts of ``gpu.py``, each called in a process of its own; what it measures goes to a file at once.

    python benchmarks/gpu_parts.py [--dry-run] PART KIT RECORDS

They take no package for granted: numpy and torch are all that a bare machine must have, and a part without its package
says which.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # A bare machine has no package installed.

from gpu_bench import (
    NONE,
    ROUNDS,
    Bench,
    Record,
    apart,
    end_with_parent,
    fact,
    first_line,
    images,
    in_full,
    missing,
    warm_up,
)

from s2mlp_deploy.gpu import cuda_version, gpus

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "onnx", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx", "cuda-bindings", "triton")


def device(bench: Bench) -> Iterator[Record]:
    for gpu in gpus():
        memory = "the machine's memory" if gpu.memory is None else f"{gpu.memory} MiB"
        yield fact(f"{gpu.name}, {gpu.capability}, {memory}, driver {gpu.driver}, CUDA {cuda_version()}")
    yield fact(f"Python {sys.version.split()[0]}, {os.cpu_count()} processors")
    for name in PACKAGES:
        try:
            yield fact(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            yield missing(f"{name} is not installed")
    yield fact(f"the kit: {', '.join(f'{name} {version}' for name, version in bench.contents['made_with'].items())}")


def ceilings(bench: Bench) -> Iterator[Record]:
    """A large matrix product in each precision, and a copy (read and written)."""
    import torch

    exact_float32(torch)
    side, size = (64, 1 << 16) if bench.dry else (8192, 1 << 29)

    def rate(of: str, work: float, run: Callable[[], Any]) -> Record:
        return {"kind": "ceiling", "of": of, "per_second": work / (bench.milliseconds(run) / 1e3)}

    source = torch.zeros(size, device=bench.device, dtype=torch.uint8)
    target = torch.empty_like(source)
    yield rate("copy", 2.0 * size, lambda: target.copy_(source))
    for name, dtype in (("fp16", torch.half), ("fp32", torch.float)):
        a, b = (torch.randn(side, side, device=bench.device).to(dtype) for _ in range(2))
        yield rate(name, 2.0 * side**3, lambda a=a, b=b: a @ b)
    # Of all values, as the others: a GPU that is bound by its power multiplies equal numbers faster.
    ints = torch.randint(-128, 128, (side, side), device=bench.device, dtype=torch.int8)
    try:
        yield rate("int8", 2.0 * side**3, lambda: torch._int_mm(ints, ints.t()))
    except (RuntimeError, AttributeError) as error:
        yield missing(f"no int8 ceiling: {first_line(error)}")


def exact_float32(torch: Any) -> None:
    """float32 is float32: convolutions would round to TF32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def execution(bench: Bench) -> Iterator[Record]:
    """The GPU test of ``engines/execution.py``, without the configuration and plugins of the other tests."""
    test = ROOT / "tests" / "engines" / "test_execution_on_gpu.py"
    options = ["-q", "-rs", "--tb=line", "--disable-warnings", "-c", os.devnull, "--noconftest", "--rootdir", str(ROOT)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-m", "gpu", "-p", "no:cacheprovider", str(test)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        preexec_fn=end_with_parent,  # It is killed with this part, also where nobody kills their group.
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    lines = done.stdout.strip().splitlines() or ["it said nothing"]
    if done.returncode == 0 and " passed" in lines[-1]:
        yield fact(f"the state machine with a real kernel: {lines[-1]}")
    elif lacking := re.search(r"No module named \S+", done.stdout):
        yield missing(f"the state machine was not tried: {lacking[0]}")
    elif done.returncode in (0, 5):  # All was left out: cuda-bindings or NVRTC is missing.
        yield missing(f"the state machine was not tried: {' / '.join(lines[-2:])}")
    else:
        # In a dry run there is no GPU to pass on.
        text = f"the state machine: {' / '.join(lines[-6:])}"
        yield {"kind": "missing" if bench.dry else "failure", "text": text}


def networks(bench: Bench) -> Iterator[tuple[Record, Any]]:
    """Each network with and without shifts, on the device in float32, with seeded weights; torch knows no forms."""
    from s2mlp_deploy.models.registry import create_model

    seen = set()
    for file in bench.contents["files"]:
        key = (file["model"], file["form"] == NONE)
        if key in seen:
            continue
        seen.add(key)
        described = {**file, "form": NONE if file["form"] == NONE else "s2mlp::shift", "precision": "fp16"}
        yield described, create_model(file["model"], **file["overrides"]).to(bench.device)


def in_torch(bench: Bench, engine: str, prepare: Callable[[Any], Any]) -> Iterator[Record]:
    import torch

    exact_float32(torch)
    for file, network in networks(bench):
        run = prepare(copy.deepcopy(network).half())
        for batch in bench.batches:
            given = torch.from_numpy(images(tuple(file["shape"]), batch)).to(bench.device)
            with torch.no_grad():
                expected, half = network(given).cpu().numpy(), given.half()
                took = bench.milliseconds(lambda run=run, half=half: run(half))
                yield bench.result(file, batch, engine, took, apart(run(half).float().cpu().numpy(), expected))


def torch_eager(bench: Bench) -> Iterator[Record]:
    yield from in_torch(bench, "torch eager", lambda network: network)


def torch_compiled(bench: Bench) -> Iterator[Record]:
    import torch

    backend = "eager" if bench.dry else "inductor"  # The dry run needs no compiler.

    def prepare(network: Any) -> Any:
        # All networks of a class count together: behind the eighth shape torch would run eager, in silence.
        torch.compiler.reset()
        return torch.compile(network, backend=backend, dynamic=False)

    yield from in_torch(bench, "torch.compile", prepare)


def onnxruntime(bench: Bench) -> Iterator[Record]:
    """ONNX Runtime's CUDA provider on torch's stream, inputs and outputs bound on the device."""
    import onnxruntime as ort

    files = ((file, expected) for file, expected in bench.files() if file["precision"] != "int8-trt")
    if bench.dry:
        for file, expected in files:
            session = ort.InferenceSession(str(bench.kit / file["path"]), providers=["CPUExecutionProvider"])
            name = session.get_inputs()[0].name
            for batch in bench.batches:
                feeds = {name: images(tuple(file["shape"]), batch)}
                took = bench.milliseconds(lambda s=session, f=feeds: s.run(None, f))
                found = session.run(None, feeds)[0]
                yield bench.result(file, batch, "ONNX Runtime CPU", took, apart(found, expected))
        return
    import torch

    if hasattr(ort, "preload_dlls"):  # First: where CUDA's provider is a library of its own, this brings it.
        ort.preload_dlls()
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        yield missing(f"onnxruntime {ort.__version__} has no CUDA provider; install onnxruntime-gpu in its place")
        return
    stream = torch.cuda.Stream()
    given = {"user_compute_stream": str(stream.cuda_stream), "use_tf32": "0"}
    with torch.cuda.stream(stream):
        for file, expected in files:
            try:
                path = str(bench.kit / file["path"])
                session = ort.InferenceSession(path, providers=[("CUDAExecutionProvider", given)])
                if session.get_providers()[0] != "CUDAExecutionProvider":
                    yield missing("ONNX Runtime fell back to the CPU: a CUDA library of it is missing")
                    return
                for batch in bench.batches:
                    took, found = bound(bench, ort, session, images(tuple(file["shape"]), batch))
                    yield bench.result(file, batch, "ONNX Runtime CUDA", took, apart(found, expected))
            except Exception as error:  # One file that is refused ends no other's measurement.
                yield missing(f"{file['path']}: {first_line(error)}")


def bound(bench: Bench, ort: Any, session: Any, feed: np.ndarray) -> tuple[float, np.ndarray]:
    binding = session.io_binding()
    taken = session.get_inputs()[0]
    feed = feed.astype(np.float16) if taken.type == "tensor(float16)" else feed
    binding.bind_ortvalue_input(taken.name, ort.OrtValue.ortvalue_from_numpy(feed, "cuda", 0))
    binding.bind_output(session.get_outputs()[0].name, "cuda", 0)
    took = bench.milliseconds(lambda: session.run_with_iobinding(binding))
    return took, binding.copy_outputs_to_cpu()[0]


def accuracy(bench: Bench) -> Iterator[Record]:
    """Top-1 in true float16 beside what rounding in float32 predicts for the same images."""
    if "accuracy" not in bench.contents:
        yield missing("the kit has no checkpoint: make it with --shared")
        return
    import torch

    from s2mlp_deploy.models.registry import create_model

    with np.load(bench.kit / "accuracy.npz") as held:
        data = {name: held[name][: 8 if bench.dry else None] for name in ("pixels", "labels", "fp32", "simulated")}
        mean, std = held["mean"], held["std"]
    with np.load(bench.kit / "accuracy_weights.npz") as held:
        weights = {name: torch.from_numpy(held[name]) for name in held.files}
    network = create_model(bench.contents["accuracy"]["model"])
    network.load_state_dict(weights)
    network = network.to(bench.device).half()
    given = (data["pixels"].astype(np.float32) / 255 - mean[:, None, None]) / std[:, None, None]
    given = given.astype(np.float32)
    yield scores("float32, ONNX Runtime CPU", data["fp32"], data)
    yield scores("float16, simulated", data["simulated"], data)
    with torch.no_grad():
        parts = torch.from_numpy(given).to(bench.device).half().split(500)
        found = torch.cat([network(part).float() for part in parts]).cpu().numpy()
    yield from beside_simulation(f"float16, torch on {bench.device}", found, data)
    try:
        found = file_scores(bench, given)
    except Exception as error:
        yield missing(f"the float16 file was not run: {first_line(error)}")
        return
    yield from beside_simulation(f"float16, the file in ONNX Runtime on {bench.device}", found, data)


def file_scores(bench: Bench, given: np.ndarray) -> np.ndarray:
    """What the float16 file itself gives, which is what the simulation was made of."""
    import onnxruntime as ort

    provider = "CPUExecutionProvider" if bench.dry else "CUDAExecutionProvider"
    if not bench.dry and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    if provider not in ort.get_available_providers():
        raise RuntimeError(f"onnxruntime {ort.__version__} has no {provider}")
    session = ort.InferenceSession(str(bench.kit / "accuracy.fp16.onnx"), providers=[provider])
    if session.get_providers()[0] != provider:
        raise RuntimeError("ONNX Runtime fell back to the CPU")
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: given[at : at + 500]})[0] for at in range(0, len(given), 500)]
    return np.concatenate(parts).astype(np.float32)


def beside_simulation(name: str, found: np.ndarray, data: dict[str, np.ndarray]) -> Iterator[Record]:
    yield scores(name, found, data)
    same = float((found.argmax(1) == data["simulated"].argmax(1)).mean() * 100)
    yield fact(f"{name}: the simulation names the same first class for {same:.2f} % of {len(found)} images")
    if not np.isfinite(found).all():
        yield {"kind": "failure", "text": f"{name}: NaN or infinite scores"}


def scores(name: str, found: np.ndarray, data: dict[str, np.ndarray]) -> Record:
    exact = data["fp32"].astype(np.float64)
    noise = float(((found - exact) ** 2).sum())
    sqnr = f"{10 * np.log10(float((exact**2).sum()) / noise):.1f} dB" if noise else "exact"
    top1 = float((found.argmax(1) == data["labels"]).mean() * 100)
    agreement = float((found.argmax(1) == exact.argmax(1)).mean() * 100)
    text = f"CIFAR-10, {name}: top-1 {top1:.2f} %, agreement with float32 {agreement:.2f} %, SQNR {sqnr}"
    return {**fact(text), "top1": top1, "agreement": agreement}


def tensorrt(bench: Bench) -> Iterator[Record]:
    """What there is of TensorRT: engines that are built here, and those of the kit, which are for other GPUs too."""
    here = next(iter(gpus()), None)
    for name in ("tensorrt", "tensorrt_rtx"):
        try:
            yield fact(f"{name} {__import__(name).__version__}")
        except Exception as error:
            yield missing(f"{name}: {first_line(error)}")
    for engine in bench.contents["engines"]:
        yield from foreign(bench, engine)
    if here is None:
        yield missing("no GPU to build engines for")
        return
    # Not by the API, which brings what draws reports.
    from s2mlp_deploy.engines.tensorrt.builder import build
    from s2mlp_deploy.errors import MissingDependencyError, TargetError

    with tempfile.TemporaryDirectory() as folder:  # The kit may be of read-only files.
        for flavour in ("tensorrt", "tensorrt-rtx"):
            for file, expected in bench.files():
                if file["precision"] == "int8":  # The placement of ONNX Runtime's CPU provider.
                    continue
                most = {file["input"]: (max(bench.batches), *file["shape"])}
                try:
                    record = build(
                        bench.kit / file["path"],
                        engine=flavour,
                        targets=[here.capability],
                        output=Path(folder) / "built.engine",
                        min_shapes=[{file["input"]: (1, *file["shape"])}],
                        opt_shapes=[most],
                        max_shapes=[most],
                        force=True,
                    )
                    for batch in bench.batches:
                        took, found = launched(Path(folder) / record.engine, images(tuple(file["shape"]), batch))
                        yield bench.result(file, batch, f"{flavour} {record.version}", took, apart(found, expected))
                except (MissingDependencyError, TargetError) as error:  # So it is with every file.
                    yield missing(f"{flavour}: {first_line(error)}")
                    break
                except Exception as error:
                    yield missing(f"{flavour}, {file['path']}: {first_line(error)}")


def launched(engine: Path, feed: np.ndarray) -> tuple[float, np.ndarray]:
    """The median between events on the engine's own stream."""
    from s2mlp_deploy.engines import cuda
    from s2mlp_deploy.engines.tensorrt.runtime import TensorRTEngine

    with TensorRTEngine(engine, kernels="eager") as runner:
        runner.upload({info.name: feed.astype(info.dtype) for info in runner.inputs})
        warm_up(runner.launch, runner.stream.wait)
        times = []
        for _ in range(ROUNDS):
            with cuda.Event() as start, cuda.Event() as end:
                start.record(runner.stream)
                runner.launch()
                end.record(runner.stream)
                end.wait()
                times.append(end.milliseconds_since(start))
        return statistics.median(times), next(iter(runner.download().values()))


def foreign(bench: Bench, engine: Record) -> Iterator[Record]:
    """What this package and the library itself say of an engine of the kit on the device at hand."""
    path = bench.kit / engine["path"]
    name = f"{engine['flavour']} engine for {', '.join(engine['targets'])}"
    try:
        from s2mlp_deploy.engines.tensorrt.runtime import TensorRTEngine

        TensorRTEngine(path).close()
        yield fact(f"{name}: this package runs it here")
    except Exception as error:
        if isinstance(error, ImportError) or type(error).__name__ == "MissingDependencyError":
            yield missing(f"{name}: this package was not asked: {first_line(error)}")
        else:
            yield fact(f"{name}: this package refuses it: {in_full(error)}")
    try:
        from s2mlp_deploy.engines.tensorrt import library
        from s2mlp_deploy.engines.tensorrt.flavours import flavour

        trt = library.load(flavour(engine["flavour"]))
        logger = library.logger_of(trt)
        logger.begin()
        loaded = trt.Runtime(logger).deserialize_cuda_engine(path.read_bytes())
        yield fact(f"{name}: the library {'loads it' if loaded is not None else f'refuses it: {logger.reason()}'}")
    except Exception as error:
        yield missing(f"{name}: the library was not asked: {first_line(error)}")


RUNS: dict[str, Callable[[Bench], Iterator[Record]]] = {
    "device": device,
    "ceilings": ceilings,
    "execution": execution,
    "accuracy": accuracy,
    "torch": torch_eager,
    "onnxruntime": onnxruntime,
    "tensorrt": tensorrt,
    "compiled": torch_compiled,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("part", choices=RUNS)
    parser.add_argument("kit", type=Path)
    parser.add_argument("records", type=Path)
    args = parser.parse_args()
    end_with_parent()
    with args.records.open("w") as stream:
        for record in RUNS[args.part](Bench(args.kit, dry=args.dry_run)):
            print(json.dumps(record), file=stream, flush=True)


if __name__ == "__main__":
    main()
