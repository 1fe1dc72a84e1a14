"""What tuning brings: models tuned on this machine, over the file that they are exported as, in float32 and int8.

    python benchmarks/tune.py s2mlpv2_small_7 s2mlp_deep --data DIR --work /tmp/tuned

Writes a table of each model's winners, as ``evidence/tune.json`` has them: measured once more at the end, in three
processes each, beside the float32 file as it was exported (ONNX Runtime, channels-last, slice-concat). What was
exported or tuned before in the same folder is not done again; ``--again`` tunes anew.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from s2mlp_deploy import api
from s2mlp_deploy.evidence.store import read_record
from s2mlp_deploy.evidence.tune import Trial, TuneReport


def artifact_of(model: str, work: Path, data: str | None, samples: int) -> Path:
    """The artifact of a model as it is exported without tuning; int8 where there is data."""
    directory = work / model
    if not (directory / "manifest.json").is_file():
        # Random weights tell classes apart by chance alone: what int8 may lose of that says nothing here.
        precision = (
            api.PrecisionOptions(data=data, samples=samples, eval_samples=samples, max_drop=50.0) if data else None
        )
        api.export(model, directory, shift_form="slice-concat", layout="as-is", precision=precision)
    return directory


def tuned(directory: Path, minutes: float, *, again: bool) -> TuneReport:
    """What tuning found, with one thread."""
    known = None if again else read_record(directory, TuneReport)
    return known or api.tune(directory, api.TuneOptions(minutes=minutes, threads=1))


def row(model: str, report: TuneReport, trial: Trial) -> str:
    """A line of the table."""
    ratio = trial.ratio
    over = f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})" if ratio is not None else "1"
    what = f"{trial.layout}, {trial.form}, {trial.engine}, {trial.settings.words}"
    return f"| {model} | {trial.precision} | {what} | {trial.ms or 0:.1f} | {over} | {report.seconds:.0f} |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", help="images that int8 is calibrated and scored on; without it float32 alone")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--again", action="store_true")
    given = parser.parse_args()
    print("| model | precision | winner | ms | of before | tuned in s |\n|---|---|---|---|---|---|")
    for model in given.models:
        report = tuned(artifact_of(model, given.work, given.data, given.samples), given.minutes, again=given.again)
        first = report.trials[0]
        before = f"before: {first.layout}, {first.form}, {first.engine}"
        print(f"| {model} | {first.precision} | {before} | {first.ms or 0:.1f} | 1 | |")
        for trial in report.winners:
            print(row(model, report, trial))


if __name__ == "__main__":
    main()
