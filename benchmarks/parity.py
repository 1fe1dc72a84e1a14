"""Parity of every zoo model in every form and layout on photographs.

    python benchmarks/parity.py --data ../shared/data/imagenet_sample --samples 16

Weights are random (no pretrained weights of the papers were published), so the outputs mean nothing, but they must be
the same. Prints one row per model and layout: the largest difference over all forms.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from s2mlp_deploy import api
from s2mlp_deploy.export.forms import FORMS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--models", nargs="+", default=[entry.name for entry in api.models()])
    parser.add_argument("--layouts", nargs="+", default=["channels-last", "channels-first"])
    args = parser.parse_args()
    print("| model | layout | forms | max abs | max rel | smallest cosine | same top-1 | parity |")
    print("|---|---|---|---|---|---|---|---|")
    for model in args.models:
        for layout in args.layouts:
            captured = api.capture(api.load(model, overrides={"layout": layout}))
            with tempfile.TemporaryDirectory() as folder:
                files = []
                for form in FORMS:
                    api.export(captured, Path(folder) / form, shift_form=form)
                    files.append(Path(folder) / form / "model.fp32.onnx")
                reports = api.parity(captured, files, data=args.data, samples=args.samples)
            figures = [report.outputs[0] for report in reports]
            print(
                f"| {model} | {layout} | {len(FORMS)} | {max(f.metrics.max_abs for f in figures):.1e} "
                f"| {max(f.metrics.max_rel for f in figures):.1e} | {min(f.metrics.cosine for f in figures):.7f} "
                f"| {min(f.ranks.top1_agreement for f in figures if f.ranks):.0%} "
                f"| {'holds' if all(report.passed for report in reports) else 'FAILS'} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
