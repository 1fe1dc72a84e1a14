"""Speed on an NVIDIA GPU: every form in torch, torch.compile, ONNX Runtime CUDA and TensorRT, against the ceilings.

    python benchmarks/gpu.py s2mlpv2_nano s2mlpv2_small_7 --output benchmarks/gpu.md

One command on a machine with a GPU, torch with CUDA, onnxruntime-gpu, and whichever TensorRT there is. It exports each
model in every form and without its shifts, builds what TensorRT allows for this GPU, checks every engine against torch
in fp32, and times with CUDA events: medians, inputs and outputs on the device. The ceilings of a half-precision matrix
product and of a device copy are measured in the same run. Without a GPU it writes nothing and exits with 2.

Written on a machine without a GPU: it has never run on one.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from s2mlp_deploy import api
from s2mlp_deploy.errors import S2MLPDeployError
from s2mlp_deploy.export.forms import FORMS
from s2mlp_deploy.gpu import Gpu, cuda_version, gpus
from s2mlp_deploy.models.registry import get_model

NO_SHIFT = {"s2mlp": {"directions": "none"}, "s2mlpv2": {"shift1": "none", "shift2": "none"}}
NONE = "no shift"
ROUNDS, WARMUP = 30, 10
COLUMNS = (
    "model",
    "batch",
    "engine",
    "form",
    "median ms",
    "shift tax",
    "copy of the shifts",
    "of GEMM ceiling",
    "max rel",
)


@dataclass(frozen=True)
class Ceilings:
    """What this GPU reaches on the simplest work, in this run."""

    flops: float
    bytes: float


@dataclass(frozen=True)
class Result:
    """One measurement. ``shifted`` is how many bytes the shifts of the network move, read and write, in fp16."""

    model: str
    batch: int
    engine: str
    form: str
    milliseconds: float
    difference: float
    flops: float
    shifted: float


def table(results: list[Result], ceilings: Ceilings) -> list[str]:
    """The rows in Markdown: the tax is over the same engine without shifts."""
    plain = {(r.model, r.batch, r.engine): r.milliseconds for r in results if r.form == NONE}
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for r in results:
        base = plain.get((r.model, r.batch, r.engine))
        tax = "" if base is None or r.form == NONE else f"{r.milliseconds / base - 1:+.1%}"
        copies = "" if r.form == NONE else f"{r.shifted / ceilings.bytes * 1e3:.3f} ms"
        share = f"{r.flops / (r.milliseconds / 1e3) / ceilings.flops:.0%}"
        cells = (r.model, r.batch, r.engine, r.form, f"{r.milliseconds:.3f}", tax, copies, share, f"{r.difference:.1e}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def shifted_elements(module: Any, example: Any) -> int:
    """How many elements the shifts of a network write, for this input."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        total = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            if function.namespace == "s2mlp":
                Count.total += result.numel()
            return result

    import torch

    with torch.no_grad(), Count():
        module(example)
    return Count.total


def on_torch(run: Callable[[], Any]) -> float:
    """Median milliseconds between CUDA events on torch's stream."""
    import torch

    for _ in range(WARMUP):
        run()
    torch.cuda.synchronize()
    times = []
    for _ in range(ROUNDS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def measure_ceilings() -> Ceilings:
    """A large half-precision matrix product, and a copy of half a gigabyte (read and written)."""
    import torch

    size = 8192
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.half) for _ in range(2))
    flops = 2 * size**3 / (on_torch(lambda: a @ b) / 1e3)
    source = torch.empty(1 << 29, device="cuda", dtype=torch.uint8)
    target = torch.empty_like(source)
    return Ceilings(flops, 2 * source.numel() / (on_torch(lambda: target.copy_(source)) / 1e3))


def torch_runs(module: Any, images: Any) -> Iterator[tuple[str, float, Any]]:
    """Eager and compiled half precision: name, milliseconds, output."""
    import torch

    half, given = module.half().cuda().eval(), images.half().cuda()
    for name, run in (("torch eager fp16", half), ("torch.compile fp16", torch.compile(half))):
        with torch.no_grad():
            milliseconds = on_torch(lambda run=run: run(given))
            yield name, milliseconds, run(given).float().cpu().numpy()


def onnxruntime_run(file: Path, images: np.ndarray) -> tuple[str, float, np.ndarray]:
    """ONNX Runtime's CUDA provider on torch's stream, inputs and outputs bound on the device."""
    import onnxruntime
    import torch

    stream = torch.cuda.current_stream()
    provider = ("CUDAExecutionProvider", {"user_compute_stream": str(stream.cuda_stream)})
    session = onnxruntime.InferenceSession(str(file), providers=[provider])
    if session.get_providers()[0] != provider[0]:
        raise RuntimeError("ONNX Runtime fell back to the CPU")
    binding = session.io_binding()
    taken, output = session.get_inputs()[0], session.get_outputs()[0].name
    given = images.astype(np.float16) if taken.type == "tensor(float16)" else images
    binding.bind_ortvalue_input(taken.name, onnxruntime.OrtValue.ortvalue_from_numpy(given, "cuda", 0))
    binding.bind_output(output, "cuda", 0)
    milliseconds = on_torch(lambda: session.run_with_iobinding(binding))
    return "ONNX Runtime CUDA fp16", milliseconds, binding.copy_outputs_to_cpu()[0].astype(np.float32)


def tensorrt_runs(file: Path, images: np.ndarray, gpu: Gpu) -> Iterator[tuple[str, float, np.ndarray]]:
    """Every TensorRT that builds for this GPU; says which does not, and why."""
    from s2mlp_deploy.engines import cuda
    from s2mlp_deploy.engines.tensorrt.runtime import TensorRTEngine

    shape = {"input": images.shape}
    for engine in ("tensorrt", "tensorrt-rtx"):
        try:
            record = api.build(file, engine=engine, targets=[gpu.capability], min_shapes=shape)
            runner = TensorRTEngine(file.parent / record.engine)
        except S2MLPDeployError as error:
            print(f"{engine}: {error.problem}", file=sys.stderr)
            continue
        runner.upload({info.name: images.astype(info.dtype) for info in runner.inputs})
        for _ in range(WARMUP):
            runner.launch()
        runner.stream.wait()
        times = []
        for _ in range(ROUNDS):
            with cuda.Event() as start, cuda.Event() as end:
                start.record(runner.stream)
                runner.launch()
                end.record(runner.stream)
                end.wait()
                times.append(end.milliseconds_since(start))
        output = next(iter(runner.download().values())).astype(np.float32)
        yield f"{engine} {record.version} fp16", statistics.median(times), output


def half_file(artifact: Path) -> Path:
    """The fp16 file of an artifact; where the export wrote none, ONNX Runtime's own converter makes one."""
    own, made = artifact / "model.fp16.onnx", artifact / "converted.fp16.onnx"
    if own.is_file():
        return own
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(onnx.load(artifact / "model.fp32.onnx"), keep_io_types=True)
    del model.metadata_props[:]
    onnx.save(model, made)
    return made


def measure(model: str, form: str, batches: list[int], gpu: Gpu) -> Iterator[Result]:
    """Every engine on one form of one model."""
    import torch

    changes = NO_SHIFT[get_model(model).config.family] if form == NONE else {}
    source = api.load(model, overrides=changes)
    config = get_model(model).config
    elements = shifted_elements(source.module, source.example_inputs[0][:1])
    with tempfile.TemporaryDirectory() as folder:
        api.export(api.capture(source), folder, **({} if form == NONE else {"shift_form": form}))
        file = half_file(Path(folder))
        for batch in batches:
            images = torch.from_numpy(
                np.random.default_rng(0)
                .standard_normal((batch, *source.example_inputs[0].shape[1:]))
                .astype(np.float32)
            )
            module = api.load(model, overrides=changes).module
            with torch.no_grad():
                reference = module.float().cuda().eval()(images.cuda()).cpu().numpy()
            runs = [onnxruntime_run(file, images.numpy()), *tensorrt_runs(file, images.numpy(), gpu)]
            if form in (NONE, next(iter(FORMS))):
                # torch knows no forms: it is timed once.
                runs += torch_runs(module, images)
            for engine, milliseconds, output in runs:
                shown = form if form == NONE or not engine.startswith("torch") else "s2mlp::shift"
                difference = float(np.abs(output - reference).max() / np.abs(reference).max())
                flops, shifted = 2.0 * config.macs() * batch, 2.0 * 2 * elements * batch
                yield Result(model, batch, engine, shown, milliseconds, difference, flops, shifted)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["s2mlpv2_nano", "s2mlpv2_small_7"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--allowed", type=float, default=2e-2, help="largest difference over the reference's peak")
    parser.add_argument("--output", type=Path, help="a Markdown file to write the table to")
    args = parser.parse_args()
    if not gpus():
        print("error: this benchmark needs an NVIDIA GPU, and there is none here; no table is written", file=sys.stderr)
        return 2
    import torch

    if not torch.cuda.is_available():
        print("error: this torch has no CUDA; install a build that has it", file=sys.stderr)
        return 2
    gpu = gpus()[0]
    ceilings = measure_ceilings()
    results = [
        result for model in args.models for form in (NONE, *FORMS) for result in measure(model, form, args.batches, gpu)
    ]
    head = [
        f"# Speed on {gpu.name}",
        "",
        f"{gpu.capability}, driver {gpu.driver}, CUDA {cuda_version()}, torch {torch.__version__}. Ceilings of this "
        f"run: {ceilings.flops / 1e12:.0f} TFLOP/s in fp16, {ceilings.bytes / 1e9:.0f} GB/s copied.",
        "",
        f"    {shlex.join(['python', *sys.argv])}",
        "",
    ]
    lines = [*head, *table(results, ceilings)]
    print("\n".join(lines))
    if args.output is not None:
        args.output.write_text("\n".join(lines) + "\n")
    wrong = [result for result in results if not result.difference <= args.allowed]
    for result in wrong:
        print(f"parity fails: {result.model} {result.engine} {result.form}: {result.difference:.2g}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
