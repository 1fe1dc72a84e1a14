"""Builds TensorRT-RTX engines of a model in every form and prints seconds, sizes and layers.

    python benchmarks/engines.py s2mlpv2_nano s2mlpv2_small_7

No GPU is used: the engines hold no tuned kernels yet, so this says what building costs and nothing about speed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from s2mlp_deploy import api
from s2mlp_deploy.export.forms import FORMS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--targets", nargs="+", default=["sm89"])
    parser.add_argument("--layouts", nargs="+", default=["channels-last"])
    args = parser.parse_args()
    print("| model | layout | form | ONNX nodes | ONNX MB | engine MB | parsed layers | build s |")
    print("|---|---|---|---|---|---|---|---|")
    for model in args.models:
        for layout in args.layouts:
            captured = api.capture(api.load(model, overrides={"layout": layout}))
            for form in FORMS:
                with tempfile.TemporaryDirectory() as folder:
                    manifest = api.export(captured, folder, shift_form=form)
                    record = api.build(Path(folder) / "model.fp32.onnx", targets=args.targets)
                file = manifest.files[0]
                print(
                    f"| {model} | {layout} | {form} | {file.nodes} | {file.bytes / 2**20:.1f} "
                    f"| {record.bytes / 2**20:.1f} | {record.layers} | {record.seconds:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
