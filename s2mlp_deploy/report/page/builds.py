"""Engines that were built, as a table of a page."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from s2mlp_deploy.artifact import Manifest
from s2mlp_deploy.evidence.build import BuildRecord
from s2mlp_deploy.evidence.store import Evidence
from s2mlp_deploy.files import is_plain_name
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.environment import release_of
from s2mlp_deploy.report.figures import precision_in_words
from s2mlp_deploy.report.page.cells import Cell, Table


def engine_table(directory: Path, manifest: Manifest, evidence: Evidence, base: str, label: str = "") -> Table:
    """A row for each engine built; with a label, a first column that says of which artifact."""
    hashes = {record.sha256 for record in manifest.files}
    rows: list[tuple[Cell, ...]] = []
    for record in builds_of(manifest, evidence):
        stale = record.onnx_sha256 not in hashes
        dtypes = ", ".join(f"{fmt.integer(times)} {dtype}" for dtype, times in record.layer_dtypes.items())
        cells = (
            Cell(
                record.engine,
                note=f"sha256 {fmt.short_hash(record.engine_sha256)}, from {record.onnx}"
                + (", which has changed since: build again" if stale else ""),
                href=base + quote(record.engine) if _is_beside(directory, record.engine) else "",
                tone="bad" if stale else "",
            ),
            Cell(f"{record.flavour} {release_of(record.version)}".strip(), note=record.platform, title=record.version),
            Cell(", ".join(record.targets) or fmt.MISSING),
            _shapes(record),
            Cell(
                fmt.integer(record.layers),
                note="; ".join(filter(None, (precision_in_words(record) if record.precision else "", dtypes))),
            ),
            Cell(fmt.seconds(record.seconds)),
            Cell(fmt.size(record.bytes)),
        )
        rows.append((Cell(label), *cells) if label else cells)
    columns = ("Engine", "Builder", "Targets", "Profile shapes", "Layers", "Build time", "Size")
    shift = 1 if label else 0
    return Table(
        ("Artifact", *columns) if label else columns, tuple(rows), frozenset(index + shift for index in (4, 5, 6))
    )


def builds_of(manifest: Manifest, evidence: Evidence) -> list[BuildRecord]:
    """The engines that were built, in the order of the files that they were built from."""
    order = {record.path: place for place, record in enumerate(manifest.files)}
    built = [saved.record for saved in evidence.of(BuildRecord)]
    return sorted(built, key=lambda record: order.get(record.onnx, len(order)))


def _shapes(record: BuildRecord) -> Cell:
    """What sizes inputs may have. OpenVINO has no profiles: what is free in the graph stays free."""
    shapes = [
        f"{tensor}: " + " / ".join(fmt.shape(sizes) for sizes in (shape.min, shape.opt, shape.max))
        for profile in record.profiles
        for tensor, shape in profile.items()
    ]
    if shapes:
        return Cell("; ".join(shapes), note="min / opt / max")
    free = [item for item in record.inputs if any(isinstance(size, str) for size in item.shape)]
    if free:
        return Cell(
            "; ".join(f"{item.name}: {fmt.shape(item.shape, '×')}" for item in free), note="any size where named"
        )
    return Cell("fixed")


def _is_beside(directory: Path, name: str) -> bool:
    # Evidence is data: a name with a folder in it would make a link that leaves the artifact.
    return is_plain_name(name) and (directory / name).is_file()
