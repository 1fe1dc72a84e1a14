"""Which files are measured on which engines, with which inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from s2mlp_deploy.artifact import (
    DEFAULT_FILES,
    METADATA_KEY,
    Manifest,
    SizeLimit,
    TensorInfo,
    check_onnx,
    check_sizes,
    data_file,
    fitting_batch,
    read_limits,
    read_manifest,
    verify_file,
)
from s2mlp_deploy.artifact.onnx_interface import read_interface
from s2mlp_deploy.choices import GRAPH_ENGINE
from s2mlp_deploy.engines.profiles import MAX_SIZE, check_shapes, text_of
from s2mlp_deploy.engines.record import read_engine, read_sidecar
from s2mlp_deploy.engines.registry import OF_GRAPHS, check_engine, kind_of
from s2mlp_deploy.errors import ArtifactError, InputError
from s2mlp_deploy.evidence.build import Profile
from s2mlp_deploy.evidence.tune import EngineSettings
from s2mlp_deploy.files import from_json, sha256_of, to_json
from s2mlp_deploy.text import command_line

ENGINE_SUFFIXES = (".engine", ".plan")

MAX_CANDIDATES = 32
"""All of them are in memory at once: they are measured in turn."""

_FOR_TENSORRT = "-trt"
"""What the precision of files ends with whose Q and DQ are placed for TensorRT: elsewhere they can be the slowest."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Job:
    """A file on an engine, with a batch.

    Attributes:
        path: The file.
        sha256: Of it.
        engine: A name of :data:`~s2mlp_deploy.engines.registry.OF_FILES`.
        batch: Samples in a run; None for the file's own, or 1.
        settings: How the engine is opened; None for as many threads as the benchmark has, none of which spin.
    """

    path: Path
    sha256: str
    engine: str
    batch: int | None
    settings: EngineSettings | None = None

    @property
    def name(self) -> str:
        """File, engine and batch, in words."""
        return f"{self.path} on {self.engine}" + (f", batch {self.batch}" if self.batch else "")


def jobs_of(files: Sequence[str | Path], engines: Sequence[str], batches: Sequence[int]) -> tuple[Job, ...]:
    """What is to be measured, by batch, file and engine, in the order of the command.

    Args:
        files: ONNX files, engine files and artifacts.
        engines: Names; none for what fits the files: ONNX Runtime for graphs, for engine files what built them.
        batches: Samples in a run; none for the files' own.

    Raises:
        TargetError: There is no such engine.
        ArtifactError: A file is no ONNX file or engine, or an artifact is damaged.
        InputError: Nothing is named, a batch is below 1 or larger than any size, or a file runs on none of the engines.
    """
    if not files:
        raise InputError("no files to measure", fix="name at least one ONNX file, engine file or artifact")
    for engine in engines:
        check_engine(engine)
    if wrong := [batch for batch in batches if not 1 <= batch <= MAX_SIZE]:
        raise InputError(f"a batch of {wrong[0]} is none", where="--batch", fix=f"give numbers from 1 to {MAX_SIZE}")
    found = []
    for path in map(Path, files):
        pairs = list(_pairs(path, list(dict.fromkeys(engines))))
        if not pairs:
            built = path.suffix in ENGINE_SUFFIXES
            raise InputError(
                f"nothing of it runs on {', '.join(engines)}",
                where=str(path),
                fix="leave --engine out, or "
                + ("name the ONNX file that it was built from" if built else _how_to_build(path, engines)),
            )
        found += [(file, sha256_of(file), engine) for file, engine in pairs]
    jobs = tuple(Job(*item, batch) for batch in dict.fromkeys(batches or (None,)) for item in found)
    if len(jobs) > MAX_CANDIDATES:
        raise InputError(
            f"{len(jobs)} candidates at once: each is a process with a network in it",
            fix=f"measure at most {MAX_CANDIDATES} together: fewer files, engines or batches",
        )
    return jobs


def _how_to_build(path: Path, engines: Sequence[str]) -> str:
    """The command that builds what would run on the first of some engines, which run no graphs."""
    kind = kind_of(engines[0])
    words = ["build", str(path), "--engine", kind]
    if kind == "tensorrt":  # Which builds on its GPU alone.
        told = command_line(*words, "--dry-run")
        return f"build with --engine tensorrt on the GPU that is to run it; what would fail there: {told}"
    words += ["--target", "sm89"] if kind == "tensorrt-rtx" else []
    return f"build an engine first: {command_line(*words)}"


def _pairs(path: Path, engines: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """The files that a path stands for, each with the engines that run it."""
    if path.is_dir():
        for file, own in _files_of(path, engines):
            yield from _pairs(file, own)
    elif path.suffix in ENGINE_SUFFIXES:
        flavour = read_engine(path).flavour
        if not engines or flavour in engines:
            yield path, flavour
    else:
        check_onnx(path)
        for engine in engines or (GRAPH_ENGINE,):
            if kind_of(engine) in OF_GRAPHS:
                yield path, engine


def _files_of(directory: Path, engines: Sequence[str]) -> Iterator[tuple[Path, Sequence[str]]]:
    """Files of an artifact, each with the engines that it is measured on: its graphs, and engine files on demand.

    Those for TensorRT only where there are no others, or on an engine that is fast with them.

    Raises:
        ArtifactError: It has none, or one was changed.
    """
    manifest = read_manifest(directory)
    graphs = list(_graphs(manifest))
    if not graphs:
        raise ArtifactError("the artifact has no files", where=str(directory), fix="export again with --force")
    records = {record.path: record for record in manifest.files}
    elsewhere = [name for name in graphs if not records[name].precision.endswith(_FOR_TENSORRT)]
    runs = [engine for engine in engines or (GRAPH_ENGINE,) if kind_of(engine) in OF_GRAPHS]
    for name in graphs:
        own = runs
        if elsewhere and name not in elsewhere:
            own = [engine for engine in runs if records[name].precision in DEFAULT_FILES[kind_of(engine)]]
        if own:
            yield verify_file(directory, records[name]), own
    built = [engine for engine in engines if kind_of(engine) == engine]
    for path in sorted(file for suffix in ENGINE_SUFFIXES for file in directory.glob(f"*{suffix}") if built):
        if (flavour := read_sidecar(path).flavour) in built:
            yield path, (flavour,)


def _graphs(manifest: Manifest) -> Iterator[str]:
    beside = {data_file(record.path) for record in manifest.files}
    yield from (record.path for record in manifest.files if record.path not in beside)


@dataclass(frozen=True)
class Graph:
    """What a file says of itself, which is known before it is loaded.

    Attributes:
        name: Of the candidate, for messages.
        inputs: Of the graph.
        limits: What free sizes may be.
        description: The rest, as JSON.
        profiles: Shapes that an engine file takes; none where it takes any.
    """

    name: str
    inputs: tuple[TensorInfo, ...]
    limits: tuple[SizeLimit, ...]
    description: str
    profiles: tuple[Profile, ...] = ()

    @property
    def _described(self) -> Mapping[str, object]:
        try:
            described = from_json(self.description or "{}")
        except ValueError:
            return {}
        return described if isinstance(described, dict) else {}

    @property
    def precision(self) -> str:
        """As the file says; empty where it says nothing."""
        precision = self._described.get("precision")
        return precision if isinstance(precision, str) else ""

    @property
    def source(self) -> str:
        """What it was exported from; empty where it does not say."""
        source = self._described.get("source")
        reference = source.get("reference") if isinstance(source, dict) else None
        return reference if isinstance(reference, str) else ""


def graph_of(job: Job) -> Graph:
    """Reads a graph's header, or an engine's sidecar.

    Raises:
        ArtifactError: It cannot be read.
        InputError: Its limits of sizes are damaged.
    """
    if job.path.suffix in ENGINE_SUFFIXES:
        record = read_sidecar(job.path)
        described = to_json({"precision": record.precision}).decode() if record.precision else ""
        return Graph(job.name, record.inputs, record.limits, described, record.profiles)
    check_onnx(job.path)
    told = read_interface(job.path)
    return Graph(job.name, told.inputs, read_limits(told.metadata), told.metadata.get(METADATA_KEY, ""))


def shapes_of(
    graphs: Sequence[Graph], batches: Sequence[int | None], given: Mapping[str, Shape]
) -> tuple[dict[str, Shape], ...]:
    """The shapes of the inputs of every candidate.

    Args:
        graphs: Of the candidates.
        batches: What each is to run with; None for its own.
        given: Shapes by input, where the user said some.

    Returns:
        For each candidate, by input.

    Raises:
        InputError: The files come from different sources or take inputs of different shapes, a batch or shape does not
            fit, or a free size has none.
    """
    sources = {graph.source: graph for graph in reversed(graphs) if graph.source}
    if len(sources) > 1:
        told = "; ".join(f"{graph.name} is of {source}" for source, graph in sources.items())
        raise InputError(
            "the files were exported from different models, whose times say nothing of each other",
            where=told,
            fix="measure each model in a run of its own",
        )
    known = {info.name for graph in graphs for info in graph.inputs}
    if strange := sorted(given.keys() - known):
        raise InputError(
            f"there is no input {', '.join(map(repr, strange))}",
            where="--shape",
            fix=f"the inputs are {', '.join(sorted(known))}",
        )
    default = _default_batch(graphs, given) if None in batches else 1
    shapes = []
    for graph, batch in zip(graphs, batches, strict=True):
        shapes.append({info.name: _shape(graph, info, batch or default, given) for info in graph.inputs})
        check_sizes(graph.limits, shapes[-1])
        check_shapes(graph.profiles, shapes[-1])
    first: dict[int | None, tuple[Graph, dict[str, Shape]]] = {}
    for graph, batch, own in zip(graphs, batches, shapes, strict=True):
        other, theirs = first.setdefault(batch, (graph, own))
        if list(own.values()) != list(theirs.values()):
            raise InputError(
                "the files take inputs of different shapes, whose times say nothing of each other",
                where=f"{other.name}: {_in_words(theirs)}; {graph.name}: {_in_words(own)}",
                fix="measure them in runs of their own",
            )
    return tuple(shapes)


def _default_batch(graphs: Sequence[Graph], given: Mapping[str, Shape]) -> int:
    """The batch where none is asked for: the one that is fixed, or that a given shape has, or the smallest."""
    fixed = {info.shape[0]: graph for graph in graphs for info in graph.inputs[:1] if _is_fixed(info)}
    sizes = [int(size) for size in fixed]
    if len(sizes) > 1:
        raise InputError(
            f"the files have different fixed batches: {', '.join(map(str, sorted(sizes)))}",
            where="; ".join(graph.name for graph in fixed.values()),
            fix="measure them in runs of their own",
        )
    if sizes:
        return sizes[0]
    asked = [given[info.name][0] for graph in graphs for info in graph.inputs[:1] if info.name in given]
    return asked[0] if asked else fitting_batch([limit for graph in graphs for limit in graph.limits], 1)[0]


def _is_fixed(info: TensorInfo) -> bool:
    return bool(info.shape) and isinstance(info.shape[0], int)


def _shape(graph: Graph, info: TensorInfo, batch: int, given: Mapping[str, Shape]) -> Shape:
    wanted = given.get(info.name)
    example = "x".join(str(size) if isinstance(size, int) else "N" for size in info.shape)
    if wanted is None:
        if any(not isinstance(size, int) for size in info.shape[1:]):
            raise InputError(
                f"the input {info.name} has free sizes besides its batch: {example}",
                where=graph.name,
                fix=f"--shape {info.name}:{example} with numbers for N",
            )
        wanted = tuple(int(size) for size in (batch, *info.shape[1:])) if info.shape else ()
    fits = len(wanted) == len(info.shape) and all(
        not isinstance(size, int) or axis == 0 or size == asked
        for axis, (size, asked) in enumerate(zip(info.shape, wanted, strict=False))
    )
    if not fits:
        raise InputError(
            f"the shape {text_of(wanted)} does not fit the input {info.name}",
            where=graph.name,
            fix=f"it is {example}, and N is free",
        )
    if _is_fixed(info) and info.shape[0] != batch:
        raise InputError(
            f"the batch of {info.name} is fixed at {info.shape[0]}, and {batch} was asked for",
            where=graph.name,
            fix=f"--batch {info.shape[0]}, or export with a free batch",
        )
    return (batch, *wanted[1:]) if wanted else ()


def _in_words(shapes: Mapping[str, Shape]) -> str:
    return ", ".join(f"{name} {text_of(shape)}" for name, shape in shapes.items())
