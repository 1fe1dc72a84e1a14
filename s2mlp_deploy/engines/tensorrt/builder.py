"""Building engine files from ONNX files: the same code for TensorRT 10, TensorRT 11 and TensorRT-RTX."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from s2mlp_deploy.engines import cuda
from s2mlp_deploy.engines.profiles import Shapes
from s2mlp_deploy.engines.record import read_engine, this_platform, write_beside
from s2mlp_deploy.engines.tensorrt import library, timing_cache
from s2mlp_deploy.engines.tensorrt.config import configure, flags_of
from s2mlp_deploy.engines.tensorrt.inspector import inspected
from s2mlp_deploy.engines.tensorrt.network import contents_of, layers_of
from s2mlp_deploy.engines.tensorrt.options import BuildOptions
from s2mlp_deploy.engines.tensorrt.plan import Plan, make_plan
from s2mlp_deploy.engines.tensorrt.precision_check import check_engine, check_precision
from s2mlp_deploy.engines.tensorrt.progress import Interrupt, Report, monitor_of
from s2mlp_deploy.errors import ArtifactError, BuildError, S2MLPDeployError
from s2mlp_deploy.evidence.build import BuildRecord, Contents
from s2mlp_deploy.evidence.machine import environment_here
from s2mlp_deploy.files import remove_abandoned
from s2mlp_deploy.gpu import gpus
from s2mlp_deploy.locks import locked

_LOG = logging.getLogger(__name__)

_PLAN_TAG = b"trt"
"""What follows the first byte of every plan: ftrt, ptrt or vtrt, by the library."""

_WAIT = 3600.0
"""Seconds to wait for another build of the same engine, which is then found."""


def build(
    onnx_file: Path,
    *,
    engine: str,
    targets: Sequence[str],
    output: Path | None = None,
    min_shapes: Sequence[Shapes] = (),
    opt_shapes: Sequence[Shapes] = (),
    max_shapes: Sequence[Shapes] = (),
    precision: str | None = None,
    options: BuildOptions | None = None,
    force: bool = False,
    report: Report = lambda *_: None,
) -> BuildRecord:
    """Builds an engine file with its sidecar, or finds the one that an equal build made before.

    Args:
        onnx_file: The graph.
        engine: ``tensorrt`` or ``tensorrt-rtx``.
        targets: Compute capabilities, for example ``["sm86", "sm89"]``.
        output: Where to write; default :func:`~s2mlp_deploy.engines.tensorrt.plan.engine_path`.
        min_shapes: Smallest shapes by input, for each profile.
        opt_shapes: Shapes to tune for by input, for each profile.
        max_shapes: Largest shapes by input, for each profile.
        precision: What GEMMs and convolutions must compute in; default: what the file's metadata says.
        options: Of the builder.
        force: Build even if an equal engine is there.
        report: ProgressCallback how far it is.

    Raises:
        TargetError: A target or option does not exist here.
        MissingDependencyError: The library is not installed.
        ArtifactError: The file is not ONNX.
        InputError: Shapes are missing or do not fit; the file cannot have the precision.
        BuildError: The parser or the builder refuses the graph.
        CheckFailedError: A GEMM or convolution computes in another precision than the required one.
        OutputError: The engine cannot be written, or the graph was replaced meanwhile.
        KeyboardInterrupt: The build was stopped; nothing was written.
    """
    plan = make_plan(
        onnx_file, engine, targets, output, (min_shapes, opt_shapes, max_shapes), precision, options or BuildOptions()
    )
    report("waiting for another build of this engine", 0, None)
    with locked(plan.output.with_name(f".{plan.output.name}.lock"), wait=_WAIT):
        remove_abandoned(plan.output.parent)
        found = None if force else _cached(plan)
        if found is not None:
            report("comparing the engine that is there", 0, None)
            if found.contents == _parsed(plan).contents:
                return found
        for advice in plan.advice:
            _LOG.warning("%s is likely slower than fp16 here: %s", plan.precision or "int8", advice)
        return _build(plan, report)


def _cached(plan: Plan) -> BuildRecord | None:
    """The record of an equal engine that is there and whole.

    Anybody can write a file and a sidecar that states its hash, so what the sidecar says is compared with the plan; its
    layers are compared with the parsed graph's by the caller. What the plan itself holds, only its GPU can tell.
    """
    try:
        record = read_engine(plan.output)
        with plan.output.open("rb") as stream:
            head = stream.read(4)
    except (ArtifactError, OSError):
        return None
    same = (
        head[1:] == _PLAN_TAG
        and record.key == plan.key
        and record.onnx_sha256 == plan.file.sha256
        and record.bytes == plan.output.stat().st_size
        and record.precision == plan.precision
        and record.targets == plan.targets
        and record.profiles == plan.profiles
        and record.gpu == plan.gpu
        and record.version == plan.version
        and (record.inputs, record.outputs) == (plan.file.inputs, plan.file.outputs)
    )
    return replace(record, cached=True) if same else None


@dataclass(frozen=True)
class _Parsed:
    """A parsed graph, and what must live as long as it does."""

    trt: Any
    logger: Any
    builder: Any
    network: Any
    contents: Contents


def _parsed(plan: Plan) -> _Parsed:
    trt = library.load(plan.flavour)
    logger = library.logger_of(trt)
    logger.begin(verbose=plan.options.verbose)
    with library.starting(plan.flavour.title, logger):
        builder = trt.Builder(logger)
    # TensorRT 10 has to be asked for it; later ones know nothing else.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    # parse_from_file also finds external data beside the model.
    if not parser.parse_from_file(str(plan.file.path)):
        raise _parse_error(parser, plan)
    return _Parsed(trt, logger, builder, network, contents_of(network))


def _build(plan: Plan, report: Report) -> BuildRecord:
    start = time.monotonic()
    report("parsing the graph", 0, None)
    parsed = _parsed(plan)
    trt, logger, builder, network, contents = parsed.trt, parsed.logger, parsed.builder, parsed.network, parsed.contents
    check_precision(plan.file, plan.precision, contents)
    config = configure(trt, builder, plan)
    serialized = _serialize(trt, builder, network, config, logger, plan, report)
    measured = None
    if plan.options.timing_cache is not None:
        # Whatever becomes of the engine: what was measured is true.
        measured = timing_cache.save_from(config, plan.options.timing_cache)
    layers = _inspect(trt, logger, plan, serialized)
    engine_contents = None if layers is None else inspected(layers)
    if engine_contents is not None:
        check_engine(plan.file, plan.precision, engine_contents)
    report("writing the engine", 0, None)
    written = memoryview(serialized)
    record = BuildRecord(
        onnx=plan.file.path.name,
        onnx_sha256=plan.file.sha256,
        engine=plan.output.name,
        engine_sha256=hashlib.sha256(written).hexdigest(),
        bytes=written.nbytes,
        flavour=plan.flavour.name,
        version=plan.version,
        targets=plan.targets,
        profiles=plan.profiles,
        layers=contents.layers,
        layer_dtypes=contents.dtypes,
        seconds=round(time.monotonic() - start, 3),
        platform=this_platform(),
        precision=plan.precision,
        flags=plan.options.flags(),
        inputs=plan.file.inputs,
        outputs=plan.file.outputs,
        contents=contents,
        engine_contents=engine_contents,
        exceptions=tuple(item.layer for item in plan.file.exceptions),
        advice=plan.advice,
        timing_cache_sha256=measured,
        builder_flags=flags_of(trt, config),
        gpu=plan.gpu,
        arguments=plan.arguments,
        preprocessing_in_graph=plan.file.metadata.get("preprocessing_in_graph") is True,
        limits=plan.file.limits,
        key=plan.key,
        environment=environment_here(),
    )
    # Of an engine that was not inspected nothing is known: its layers are those that went in, and the file says so.
    told = layers_of(network) if layers is None else layers
    write_beside(plan.file.path, plan.output, written, record, layers=told)
    logger.tell_rest()
    return record


def _serialize(trt: Any, builder: Any, network: Any, config: Any, logger: Any, plan: Plan, report: Report) -> Any:
    with Interrupt().held() as interrupt:
        config.progress_monitor = monitor_of(trt, report, interrupt)
        serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise BuildError(
            f"{plan.flavour.title} built no engine: {logger.reason()}",
            where=str(plan.file.path),
            fix="--verbose shows everything the library says; `build --dry-run` what is known beforehand",
        )
    return serialized


def _inspect(trt: Any, logger: Any, plan: Plan, serialized: Any) -> str | None:
    """What the EngineInspector says, where the engine loads here. Has never run on a GPU."""
    if not gpus():
        return None
    try:
        here = cuda.use_device(plan.options.device)
        with library.starting(plan.flavour.title, logger):
            runtime = trt.Runtime(logger)
    except S2MLPDeployError as error:
        _LOG.warning("the engine was not inspected: %s", error.problem)
        return None
    if here.capability not in plan.targets:
        return None
    if plan.options.strip_plan:
        _LOG.warning("the engine was not inspected: it has no weights before it is refitted")
        return None
    # It holds a runtime of its own, which is code: ours, for it was built a moment ago.
    runtime.engine_host_code_allowed = plan.options.version_compatible
    engine = runtime.deserialize_cuda_engine(serialized)
    if engine is None:
        _LOG.warning("the engine was not inspected, because it does not load: %s", logger.reason())
        return None
    inspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _parse_error(parser: Any, plan: Plan) -> BuildError:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    names = [parser_error.node_name() or parser_error.node_operator() or "model" for parser_error in errors]
    reasons = [parser_error.desc().partition("\n")[0] for parser_error in errors]
    texts = [f"{name}: {reason}" for name, reason in zip(names, reasons, strict=True)]
    lines = [line for name in names if (line := plan.file.line_of(name))]
    return BuildError(
        f"{plan.flavour.title} cannot parse {len(errors)} node(s): {'; '.join(texts[:5])}"
        + (f" (written in {', '.join(dict.fromkeys(lines))})" if lines else ""),
        where=str(plan.file.path),
        fix="replace these operators in the model, or export with another --opset",
    )
