"""One candidate of ``peers.py`` in a process of its own: loads, then runs once for every line that it reads.

Answers each with milliseconds of its process CPU time; the first line is ``ready``, or says why it cannot run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WARMUP = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("what", help="a file, or the name of a model of the zoo")
    parser.add_argument("--batch", type=int, default=1)
    args = parser.parse_args()
    # What libraries print must not stand among the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    try:
        run = KINDS[args.kind](args.what, args.batch)
        for _ in range(WARMUP):
            run()
    except Exception as error:  # Whatever a peer raises: it is left out, and why is told.
        words = (str(error).strip() or type(error).__name__).splitlines()[0]
        answers.write(json.dumps({"failed": f"{type(error).__name__}: {words}"[:300]}) + "\n")
        return
    answers.write(json.dumps({"ready": True}) + "\n")
    for _ in sys.stdin:
        before = time.process_time_ns()
        run()
        answers.write(json.dumps({"ms": (time.process_time_ns() - before) / 1e6}) + "\n")


def image(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def with_onnxruntime(file: str, batch: int) -> Callable[[], object]:
    """Ours, and files of others: the engine of this package, whose int8 is exact on every processor."""
    from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine

    engine = OnnxRuntimeEngine(Path(file), threads=1, spin=False)
    return _runner(engine, batch)


def with_openvino(file: str, batch: int) -> Callable[[], object]:
    from s2mlp_deploy.engines.openvino.runtime import OpenVinoEngine

    return _runner(OpenVinoEngine(Path(file), threads=1), batch)


def _runner(engine: Any, batch: int) -> Callable[[], object]:
    (info,) = engine.inputs
    feeds = {info.name: image((batch, *info.shape[1:]))}
    return lambda: engine.run(feeds)


def with_plain_openvino(file: str, batch: int) -> Callable[[], object]:
    """As its documentation says: float32, one run after the other, one thread; int8 sums may be cut off."""
    os.environ["OPENVINO_TELEMETRY"] = "0"
    from s2mlp_deploy.engines.openvino import library

    library.load()
    core = library.shared_core()
    model = core.read_model(file)
    (given,) = model.inputs
    sizes = [size.get_length() if size.is_static else 0 for size in given.partial_shape]
    feed = image((batch, *(size or 224 for size in sizes[1:])))
    model.reshape(list(feed.shape))
    config = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1}
    request = core.compile_model(model, "CPU", config).create_infer_request()
    return lambda: request.infer([feed])


def _in_place(model: str) -> Any:
    import torch

    torch.set_num_threads(1)
    from s2mlp_deploy import api

    source = api.load(model, overrides={"layout": "channels-last"})
    return source.module.eval()


def with_eager(model: str, batch: int) -> Callable[[], object]:
    import torch
    from inplace import inplace_shifts

    module, feed = _in_place(model), torch.from_numpy(image((batch, 3, 224, 224)))

    def run() -> object:
        with torch.no_grad():
            return module(feed)

    scope = inplace_shifts()
    scope.__enter__()  # For the life of this process.
    return run


def with_compile(model: str, batch: int) -> Callable[[], object]:
    import torch

    run = with_eager(model, batch)
    compiled = torch.compile(run)
    return lambda: compiled()


def products_alone(file: str, batch: int, integers: bool = False) -> Callable[[], object]:
    """The products of a network and nothing else, each shape so often as the network has it, in ONNX Runtime."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    runs: list[tuple[Any, int]] = []
    random = np.random.default_rng(0)
    for (rows, inner, columns), times in json.loads(Path(file).read_text()):
        rows *= batch
        left = np.uint8 if integers else np.float32
        weights = random.integers(-63, 64, (inner, columns)).astype(np.int8 if integers else np.float32)
        kinds = (TensorProto.UINT8, TensorProto.INT32) if integers else (TensorProto.FLOAT, TensorProto.FLOAT)
        graph = helper.make_graph(
            [helper.make_node("MatMulInteger" if integers else "MatMul", ["a", "w"], ["c"])],
            "product",
            [helper.make_tensor_value_info("a", kinds[0], [rows, inner])],
            [helper.make_tensor_value_info("c", kinds[1], [rows, columns])],
            [onnx.numpy_helper.from_array(weights, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        binding.bind_cpu_input("a", random.integers(0, 127, (rows, inner)).astype(left))
        result = onnxruntime.OrtValue.ortvalue_from_numpy(
            np.empty((rows, columns), np.int32 if integers else np.float32)
        )
        binding.bind_ortvalue_output("c", result)
        runs.append((lambda s=session, b=binding: s.run_with_iobinding(b), times))

    def run() -> None:
        for product, times in runs:
            for _ in range(times):
                product()

    return run


def integer_products_alone(file: str, batch: int) -> Callable[[], object]:
    return products_alone(file, batch, integers=True)


KINDS: dict[str, Callable[[str, int], Callable[[], object]]] = {
    "onnxruntime": with_onnxruntime,
    "openvino": with_openvino,
    "plain-openvino": with_plain_openvino,
    "eager": with_eager,
    "compile": with_compile,
    "products": products_alone,
    "integer-products": integer_products_alone,
}


if __name__ == "__main__":
    main()
