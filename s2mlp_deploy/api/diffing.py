"""Two ONNX files, or two artifacts file by file: what is different, and what was measured beside it. Needs no torch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from onnx_ir.passes.common import ShapeInferencePass

from s2mlp_deploy.api.opening import is_engine
from s2mlp_deploy.artifact import MANIFEST, METADATA_KEY, read_description, read_manifest
from s2mlp_deploy.difference.graphs import compare_graphs, with_measurements
from s2mlp_deploy.difference.interface import interface_changes, metadata_changes, producer, tensor_infos
from s2mlp_deploy.difference.reading import Graph, is_module, read
from s2mlp_deploy.errors import ArtifactError, InputError
from s2mlp_deploy.evidence.bench import BenchReport
from s2mlp_deploy.evidence.difference import DifferenceReport, FileDifference, GraphFacts
from s2mlp_deploy.evidence.layers import LayersReport
from s2mlp_deploy.evidence.profile import UNATTRIBUTED
from s2mlp_deploy.evidence.store import read_evidence
from s2mlp_deploy.files import inside, sha256_of
from s2mlp_deploy.graph.loading import lacks_types, load_graph
from s2mlp_deploy.progress import ProgressCallback, no_progress
from s2mlp_deploy.report.html import write_difference
from s2mlp_deploy.text import join_names

_INFERRED = 20_000
"""Nodes of the largest graph whose types are inferred where it does not tell them: that takes 4 s."""


def diff(
    before: str | Path,
    after: str | Path,
    *,
    precision: str | None = None,
    progress: ProgressCallback = no_progress,
) -> DifferenceReport:
    """Compares two ONNX files, or the files of the same name of two artifacts; runs nothing.

    Args:
        before: The older one: an ONNX file or an artifact.
        after: The newer one.
        precision: Which file of an artifact.
        progress: Is told what is compared.

    Raises:
        ArtifactError: One is no ONNX file and no artifact, is damaged, or lacks its weights.
        InputError: One is an engine or a list of an engine's layers; an artifact has several files and the other is
            one file; ``precision`` is given and nothing is an artifact; two artifacts have no file in common.
    """
    one, other = _graphs(Path(before), precision), _graphs(Path(after), precision)
    folders = [Path(path).is_dir() for path in (before, after)]
    if precision is not None and not any(folders):
        raise InputError(
            "--precision chooses a file of an artifact, and neither is one", where=str(before), fix="leave it out"
        )
    if all(folders) and precision is None:
        names = [name for name in one if name in other]
        if not names:
            raise InputError(
                "the artifacts have no file of the same name",
                where=f"{before}: {join_names(one)}; {after}: {join_names(other)}",
                fix="name the two files",
            )
        pairs = [(one[name], other[name]) for name in names]
    else:
        for path, graphs in ((before, one), (after, other)):
            if len(graphs) > 1:
                raise InputError(
                    f"the artifact has {len(graphs)} files, and it is compared with one",
                    where=str(path),
                    fix=f"--precision NAME, or name the file: {join_names(graphs, last='or')}",
                )
        pairs = [(next(iter(one.values())), next(iter(other.values())))]
    files = []
    for index, (older, newer) in enumerate(pairs):
        progress(f"comparing {newer.name}", index, len(pairs))
        files.append(_compare(older, newer))
    both = all(folders) and precision is None
    return DifferenceReport(
        str(before),
        str(after),
        tuple(files),
        tuple(name for name in one if name not in other) if both else (),
        tuple(name for name in other if name not in one) if both else (),
    )


def save_difference(report: DifferenceReport, path: str | Path) -> Path:
    """Writes what :func:`diff` found as one self-contained HTML page.

    Raises:
        OutputError: The page cannot be written, or another that is none of ours is there.
    """
    return write_difference(Path(path), report)


def _graphs(path: Path, precision: str | None) -> dict[str, Path]:
    """The ONNX files that a path stands for, by name."""
    if not path.exists():
        raise ArtifactError("no such file or artifact", where=str(path), fix="check the path")
    if is_engine(path) or path.suffix == ".json":
        what = "an engine file" if is_engine(path) else "a list of layers or a profile"
        raise InputError(
            f"{what} is compared only with another one",
            where=str(path),
            fix="compare the ONNX files that the engines were built from, or two engines by their layers",
        )
    if not path.is_dir():
        return {path.name: path}
    manifest = read_manifest(path)
    records = [manifest.file(precision)] if precision is not None else manifest.files
    graphs = {record.path: inside(path, record.path) for record in records if record.path.endswith(".onnx")}
    if not graphs:
        raise ArtifactError("the artifact has no ONNX file", where=str(path), fix="export it again")
    outside = [name for name, graph in graphs.items() if graph is None]
    if outside:
        raise ArtifactError(
            "a file of the artifact leads out of its directory",
            where=str(path / outside[0]),
            fix="put the file itself there, or export again with --force",
        )
    return {name: graph for name, graph in graphs.items() if graph is not None}


def _compare(before: Path, after: Path) -> FileDifference:
    paths = (before, after)
    loaded = [load_graph(path, valid=False, infer=False) for path in paths]
    hashes = [
        [sha256_of(path), *(sha256_of(path.parent / name) for name in graph.beside)]
        for path, graph in zip(paths, loaded, strict=True)
    ]
    models = [graph.model for graph in loaded]
    notes = []
    if hashes[0] != hashes[1] and any(map(lacks_types, models)):
        for model in models:
            if lacks_types(model) and sum(1 for _ in model.graph.all_nodes()) <= _INFERRED:
                ShapeInferencePass()(model)
        if any(map(lacks_types, models)):
            notes.append("not all types and shapes are known: those are compared where both files tell them")
    a, b = map(read, models)
    one, other = (
        _facts(path, graph, weights.beside, known[0])
        for path, graph, weights, known in zip(paths, (a, b), loaded, hashes, strict=True)
    )
    if hashes[0] == hashes[1]:
        same = before.samefile(after)
        return FileDifference(one, other, identical=True, notes=("both are the same file",) if same else ())
    found = compare_graphs(a, b)
    return FileDifference(
        one,
        other,
        interface=(*interface_changes(*models), *found.wiring),
        metadata=tuple(metadata_changes(*(model.metadata_props for model in models))),
        modules=with_measurements(found.modules, _measured(before, one.sha256), _measured(after, other.sha256)),
        nodes=found.nodes,
        weights=found.weights,
        same_nodes=found.same_nodes,
        same_weights=found.same_weights,
        renamed=found.renamed,
        notes=(*notes, *found.notes),
    )


def _facts(path: Path, graph: Graph, beside: tuple[str, ...], sha256: str) -> GraphFacts:
    weights: Counter[str] = Counter()
    for kinds in graph.bytes.values():
        weights.update(kinds)
    model = graph.model
    try:
        described = read_description(model.metadata_props.get(METADATA_KEY), path)
    except ArtifactError:  # Told as metadata that differs.
        described = {}
    return GraphFacts(
        file=str(path),
        sha256=sha256,
        bytes=sum(part.stat().st_size for part in (path, *(path.parent / name for name in beside))),
        precision=str(described.get("precision") or ""),
        opset=model.opset_imports[""],
        ir_version=model.ir_version,
        producer=producer(model),
        inputs=tensor_infos(model.graph.inputs),
        outputs=tensor_infos(model.graph.outputs),
        nodes=sum(map(len, graph.nodes.values())),
        modules=sum(map(is_module, graph.nodes)),
        weights=dict(weights.most_common()),
    )


def _measured(path: Path, sha256: str) -> tuple[dict[str, float], dict[str, float]]:
    """By module the time and the error that an artifact's evidence has of exactly this file."""
    times: dict[str, float] = {}
    errors: dict[str, float] = {}
    if not (path.parent / MANIFEST).is_file():
        return times, errors
    evidence = read_evidence(path.parent)
    for bench in evidence.newest(BenchReport):
        found = [r.profile for r in bench.results if r.profile is not None and r.candidate.sha256 == sha256]
        if found and not times:
            times = {"" if share.name == UNATTRIBUTED else share.name: share.ms for share in found[0].by_module()}
    for layers in evidence.newest(LayersReport):
        if layers.file_sha256 != sha256 or errors:
            continue
        for layer in layers.layers:
            if layer.kind != "output" and layer.metrics.max_rel is not None:
                for module in (layer.path.partition("/")[0], *layer.ends):
                    errors[module] = max(errors.get(module, 0.0), layer.metrics.max_rel)
    return times, errors
