"""The main job, end to end, on a trained network and labelled images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from s2mlp_deploy import api
from s2mlp_deploy.artifact import Manifest
from s2mlp_deploy.calibration.images import collect
from s2mlp_deploy.demo.digits import load_digits, weights_path, write_pngs
from s2mlp_deploy.errors import MissingDependencyError

if TYPE_CHECKING:
    from s2mlp_deploy.engines.tensorrt.record import BuildRecord
    from s2mlp_deploy.parity.compare import ParityReport


@dataclass(frozen=True)
class DemoResult:
    """What the demo made.

    Attributes:
        output: Where everything is.
        images: The folder that parity was measured on.
        artifacts: Directory of the artifact of each form; the first is the default form's.
        manifests: What was exported, by form.
        parity: The comparison with torch, by form.
        engine: The engine built from the first artifact; None where the builder is not there.
        engine_missing: Why there is none.
        report: The page that shows all of it.
    """

    output: Path
    images: Path
    artifacts: dict[str, Path]
    manifests: dict[str, Manifest]
    parity: dict[str, ParityReport]
    engine: BuildRecord | None
    engine_missing: str
    report: Path

    @property
    def passed(self) -> bool:
        """Whether parity holds in every form."""
        return all(report.passed for report in self.parity.values())


def run_demo(
    output: Path,
    *,
    images: Path | None = None,
    targets: Sequence[str] = ("sm89",),
    progress: api.Progress = api.quiet,
) -> DemoResult:
    """Exports the digit network in every form, proves parity, builds an engine, writes a report.

    Args:
        output: Where to write; an earlier demo there is replaced.
        images: A folder of images to compare on; default the 1,000 held-out digits.
        targets: Compute capabilities of the engine.
        progress: Told what is being done.

    Raises:
        S2MLPDeployError: What the API's functions raise.
    """
    api.require_export()
    from s2mlp_deploy.engines.tensorrt.flavours import check_targets, flavour
    from s2mlp_deploy.export.forms import DEFAULT_FORM, FORMS
    from s2mlp_deploy.report.html import write_overview

    check_targets(flavour("tensorrt-rtx"), tuple(targets))
    if images is not None:
        # A folder without pictures is refused now, not after the exports.
        collect(images)
    if images is None:
        progress("writing the held-out digits", 0, None)
        images = output / "images"
        write_pngs(load_digits()[1], images)
    captured = api.capture(api.load("s2mlpv2_nano", checkpoint=weights_path()), progress=progress)
    forms = [DEFAULT_FORM, *(name for name in FORMS if name != DEFAULT_FORM)]
    artifacts = {name: output / ("artifact" if name == DEFAULT_FORM else f"forms/{name}") for name in forms}
    manifests = {
        name: api.export(captured, path, shift_form=name, force=True, progress=progress)
        for name, path in artifacts.items()
    }
    files = [path / manifests[name].files[0].path for name, path in artifacts.items()]
    reports = api.parity(captured, files, data=images, batch=50, progress=progress)
    engine, missing = _build(files[0], targets, progress)
    page = write_overview(output / "report.html", artifacts, title="s2mlp-deploy demo: handwritten digits")
    return DemoResult(
        output, images, artifacts, manifests, dict(zip(forms, reports, strict=True)), engine, missing, page
    )


def _build(file: Path, targets: Sequence[str], progress: api.Progress) -> tuple[BuildRecord | None, str]:
    """Builds the engine where the builder is installed; there is no wheel of it for every platform."""
    progress("building an engine", 0, None)
    try:
        return api.build(file, targets=targets), ""
    except MissingDependencyError as error:
        return None, f"{error.problem}; {error.fix}"


def table(result: DemoResult) -> tuple[Sequence[str], list[Sequence[str]]]:
    """The demo's comparison of forms: column names and rows of text."""
    from s2mlp_deploy.report.format import integer, percent

    columns = (
        "form",
        "nodes",
        "max abs",
        "same top-1",
        "torch",
        "ONNX",
        "parity",
    )
    rows: list[Sequence[str]] = []
    for form, report in result.parity.items():
        file, output = result.manifests[form].files[0], report.outputs[0]
        ranks = output.ranks
        rows.append(
            (
                form,
                integer(file.nodes),
                f"{output.metrics.max_abs:.2g}",
                percent(ranks.top1_agreement) if ranks else "",
                percent(ranks.reference_accuracy) if ranks and ranks.reference_accuracy is not None else "no labels",
                percent(ranks.candidate_accuracy) if ranks and ranks.candidate_accuracy is not None else "no labels",
                "holds" if report.passed else "FAILS",
            )
        )
    return columns, rows


def written_files(result: DemoResult) -> Mapping[str, Path]:
    """What a user should look at, by what it is."""
    files = {"report": result.report, "artifact": next(iter(result.artifacts.values()))}
    if result.engine is not None:
        files["engine"] = files["artifact"] / result.engine.engine
    return files
