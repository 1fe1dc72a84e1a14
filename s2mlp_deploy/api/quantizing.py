"""Adding files of other precisions to an artifact."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from s2mlp_deploy.api.evidence import save_scores
from s2mlp_deploy.api.module_records import by_module
from s2mlp_deploy.api.refusals import check_quantize
from s2mlp_deploy.api.speed import check_speed
from s2mlp_deploy.artifact import (
    ArtifactWriter,
    Manifest,
    data_file,
    model_file,
    read_manifest,
    tuned_file,
    verify_precision,
)
from s2mlp_deploy.errors import OutputError
from s2mlp_deploy.evidence.accuracy import AccuracyReport
from s2mlp_deploy.evidence.speed import SpeedCheck
from s2mlp_deploy.export.write import GraphFile, stage
from s2mlp_deploy.graph.loading import load_graph
from s2mlp_deploy.precision.convert import convert, with_calibration_of_quantized, with_precisions
from s2mlp_deploy.precision.options import PrecisionOptions
from s2mlp_deploy.progress import ProgressCallback, no_progress
from s2mlp_deploy.report.accuracy import print_accuracy
from s2mlp_deploy.report.notebook import ShownAsPrinted
from s2mlp_deploy.report.speed import print_speed


@dataclass(frozen=True)
class Quantized(ShownAsPrinted):
    """What was written.

    Attributes:
        directory: The artifact.
        manifest: Of the artifact, with the new files.
        accuracy: How near the files are to float32, and what they score where outputs are lists of scores or a metric
            was given; ``accuracy.failures`` says which floors they do not reach.
        speed: How fast they are beside float32; None where that was not asked for.
    """

    directory: Path
    manifest: Manifest
    accuracy: AccuracyReport
    speed: SpeedCheck | None = None

    def print_to(self, console: Console) -> None:
        """See :class:`~s2mlp_deploy.report.notebook.ShownAsPrinted`."""
        print_accuracy(console, self.accuracy)
        if self.speed is not None:
            print_speed(console, self.speed, str(self.directory))


def quantize(
    directory: str | Path, options: PrecisionOptions, *, progress: ProgressCallback = no_progress
) -> Quantized:
    """Adds files of other precisions to an artifact; those of the same precision are replaced.

    Args:
        directory: An artifact with ``model.fp32.onnx``.
        options: Which, and from what data.
        progress: Told what is being done.

    Returns:
        The manifest as written, and the figures, which are saved under ``evidence/`` too.

    Raises:
        ArtifactError: There is no artifact, or it has no float32 file.
        InputError: An option has a value that cannot be used.
        DataError: The data cannot be used.
        PreprocessingError: The data is images, and no preprocessing is configured.
        QuantizationError: The graph cannot be quantized, or the calibration cache is of another one.
        CheckFailedError: The accuracy budget cannot be kept.
        OutputError: The artifact cannot be written, or another command replaced its float32 file meanwhile.
    """
    root = Path(directory)
    check_quantize(root, options)  # Before another command is waited for.
    with ArtifactWriter(root, force=True, files=[model_file(precision) for precision in options.files]) as writer:
        manifest = read_manifest(root)
        origin = manifest.file("fp32")
        path = verify_precision(root, manifest, "fp32")
        converted = convert(load_graph(path).model, path, manifest, options, home=root, progress=progress)
        progress("writing files", 0, None)

        def renew(there: Manifest) -> Manifest:
            if there.file("fp32").sha256 != origin.sha256:
                raise OutputError(
                    "the artifact was replaced meanwhile, and the new files would be of the older model",
                    where=str(root),
                    fix="run quantize again",
                )
            # What was tuned was made from the files that are replaced, or of their ranges.
            gone = {
                name
                for precision in options.files
                for name in (tuned_file(precision), data_file(tuned_file(precision)))
            }
            there = replace(there, files=tuple(record for record in there.files if record.path not in gone))
            return with_calibration_of_quantized(with_precisions(there, converted), there.calibration)

        files = [GraphFile(graph.file, graph.precision, graph.model) for graph in converted.graphs]
        facts = stage(writer, with_precisions(manifest, converted), files)
        manifest = writer.add(renew, facts)
        accuracy = save_scores(root, manifest, converted.ranges, converted.accuracy, by_module(files, manifest))
    speed = None
    if options.speed_wanted:
        speed = check_speed(
            root, manifest, options.files, converted.shapes, min_speedup=options.min_speedup, progress=progress
        )
    return Quantized(root, manifest, accuracy, speed)
