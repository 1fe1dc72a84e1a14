"""What somebody's own project writes against the Python API; only type checkers read it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy import api


def classes_of(directory: Path, images: Sequence[Path]) -> list[str]:
    """The best class of each image."""
    with api.Predictor(directory, threads=2) as predictor:
        assert_type(predictor.manifest, api.Manifest)
        assert_type(predictor.plan, api.RunPlan)
        assert_type(predictor.preprocessing, api.Preprocessing | None)
        found = predictor.predict(images, top=1)
        assert_type(found, list[api.Prediction])
        for item in found:
            if item.error is not None:
                assert_type(item.error, api.PredictionFailure)
        outputs = predictor({"input": np.zeros((1, 3, 8, 8), np.float32)})
        assert_type(outputs, dict[str, NDArray[Any]])
        return [item.classes[0] for item in found]


def make(source: str, directory: Path, data: Path) -> float:
    """Exports, measures and judges; returns the largest difference of any output."""
    options = api.PrecisionOptions(precisions=("fp16", "int8"), data=data)
    made = api.export(source, directory, precision=options, layout="channels-last", shift_form="auto")
    assert_type(made, api.ExportResult)
    assert_type(made.manifest, api.Manifest)
    assert_type(made.manifest.shifts, tuple[api.ShiftRecord, ...])
    reports = api.parity(source, [directory / file.path for file in made.manifest.files], data=data)
    assert_type(reports, tuple[api.ParityReport, ...])
    assert_type(reports[0].passed, bool)
    assert_type(api.bench([directory], options=api.BenchOptions(threads=1)), api.BenchReport)
    assert_type(api.tune(directory, api.TuneOptions(minutes=1)), api.TuneReport)
    assert_type(api.build(directory, engine="tensorrt-rtx", targets=("sm89",)), api.BuildRecord)
    assert_type(api.report(directory), api.WrittenReport)
    assert_type(api.parity_per_layer(source, [directory]), tuple[api.LayersReport, ...])
    return max(output.metrics.max_abs or 0.0 for report in reports for output in report.outputs)


def explain(error: api.S2MLPDeployError) -> str:
    """What is wrong and how to mend it."""
    assert_type(error.fix, str | None)
    assert_type(error.exit_code, int)
    return f"{error.problem}: {error.fix}"


def told(step: str, done: int, of: int | None) -> None:
    """A callback of progress."""
    print(step, done, of)


def loaded(reference: str) -> api.Source:
    """A source."""
    callback: api.ProgressCallback = told
    api.export(reference, Path("artifact"), progress=callback)
    return api.load(reference, overrides={"classes": 3})
