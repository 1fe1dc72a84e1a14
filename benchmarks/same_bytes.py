"""Whether two checkouts export the same ONNX bytes from the same inputs.

    python benchmarks/same_bytes.py record build/before.jsonl --checkout ../before
    python benchmarks/same_bytes.py record build/after.jsonl
    python benchmarks/same_bytes.py compare build/before.jsonl build/after.jsonl

Every zoo model in both layouts and every form; every module of the gallery of this checkout in every form, with a free
batch and, where the gallery has other sizes for it, free height and width too; and of the digit network other opsets,
preprocessing in the graph and other precisions. `record` goes on where it was stopped. The metadata in a file, a
manifest of its own, is compared by its keys and apart from the rest.
"""

from __future__ import annotations

import argparse
import collections
import functools
import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

HOME = Path(__file__).resolve().parents[1]
Export = Callable[..., Any]
Jobs = Iterator[tuple[str, Callable[[], Any], Mapping[str, Mapping[str, Any]]]]
"""A name, what makes the source, and the options of each of its exports by name."""


def describe(path: Path) -> dict[str, Any]:
    """A hash of a file without its metadata, its operators, and a hash of each key of the metadata."""
    model = onnx.load(path)
    told = {entry.key: entry.value for entry in model.metadata_props}
    del model.metadata_props[:]
    return {
        "graph": hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest(),
        "operators": collections.Counter(node.op_type for node in model.graph.node),
        "metadata": {key: digest(value) for text in told.values() for key, value in json.loads(text).items()},
    }


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def jobs() -> Jobs:
    from s2mlp_deploy import api  # Of the checkout that is recorded.
    from s2mlp_deploy.demo.digits import weights_path
    from s2mlp_deploy.export.forms import FORMS

    forms = {form: {"shift_form": form} for form in FORMS}
    nano = functools.partial(api.load, "s2mlpv2_nano", checkpoint=weights_path())
    yield "options/opset 18", nano, {"auto": {"opset": 18}}
    yield "options/opset 25", nano, {"auto": {"opset": 25}}
    yield "options/preprocessing in the graph", nano, {"auto": {"with_preprocessing": True}}
    data = np.random.default_rng(0).normal(size=(64, 3, 32, 32)).astype(np.float32)
    for name in ("fp16", "int8", "fp8"):
        precision = api.PrecisionOptions(precisions=(name,), data=data, threads=1)
        yield f"precisions/{name}", nano, {"auto": {"precision": precision}}
    for case in gallery():
        load = functools.partial(of_case, api.from_module, case)
        yield f"gallery/{case.name}", load, forms
        if case.sizes:
            axes = ("batch", "height", "width")
            yield f"gallery/{case.name}, free sizes", load, {k: {**v, "dynamic": axes} for k, v in forms.items()}
    for entry in reversed(api.models()):
        for layout in ("channels-last", "channels-first"):
            load = functools.partial(api.load, entry.name, overrides={"layout": layout})
            yield f"zoo/{entry.name} {layout}", load, forms


def gallery() -> list[Any]:
    """The cases of this checkout's gallery."""
    folder = HOME / "tests" / "support"
    sys.path.append(str(folder))
    from gallery_case import Collection

    modules = [__import__(path.stem) for path in sorted(folder.glob("gallery_*.py")) if path.stem != "gallery_flow"]
    return [
        case
        for module in modules
        for found in vars(module).values()
        if isinstance(found, Collection)
        for case in found.cases
    ]


def of_case(from_module: Export, case: Any) -> Any:
    torch.manual_seed(0)
    return from_module(case.module().eval(), case.inputs(), name=case.name)


def export_all(output: Path) -> None:
    """Runs in a process whose package is that of the recorded checkout."""
    from s2mlp_deploy import api

    logging.disable()
    torch.set_num_threads(1)
    done = {json.loads(line)["job"] for line in output.read_text().splitlines()} if output.exists() else set()
    for job, load, exports in jobs():
        if job in done:
            continue
        files: dict[str, Any] = {}
        source: Any = None
        for name, options in exports.items():
            options = dict(options)
            late = {key: options.pop(key) for key in ("opset", "dynamic") if key in options}
            with tempfile.TemporaryDirectory() as folder:
                try:
                    # The options of capturing are the same for all exports of a job.
                    source = source or api.capture(load(), **late)
                    api.export(source, Path(folder) / "out", **options)
                except Exception as error:
                    files[name] = {"refused": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}
                for path in sorted(Path(folder).glob("out/*.onnx")):
                    files[f"{name} {path.name}"] = describe(path)
        with output.open("a") as stream:
            stream.write(json.dumps({"job": job, "files": files}) + "\n")


def record(output: Path, checkout: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve()), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, __file__, "export", str(output.resolve())], env=environment, check=True)


def compare(before: Path, after: Path) -> None:
    left, right = (
        {
            f"{job['job']}: {name}": file
            for job in map(json.loads, path.read_text().splitlines())
            for name, file in job["files"].items()
        }
        for path in (before, after)
    )
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    told: collections.Counter[str] = collections.Counter()
    details = []
    for name in [*left, *(name for name in right if name not in left)]:
        old, new = left.get(name, {}), right.get(name, {})
        if "graph" in old and "graph" in new:
            keys = {**old["metadata"], **new["metadata"]}
            told.update(key for key in keys if old["metadata"].get(key) != new["metadata"].get(key))
            verdict = "equal" if old["graph"] == new["graph"] else "different"
            changed = {
                op: (old["operators"].get(op, 0), new["operators"].get(op, 0))
                for op in {**old["operators"], **new["operators"]}
            }
            why = (
                ", ".join(f"{op} {a} → {b}" for op, (a, b) in sorted(changed.items()) if a != b) or "the same operators"
            )
        else:
            verdict = "only after" if "graph" in new else "only before" if "graph" in old else "in neither"
            why = " → ".join(side.get("refused", "exported" if side else "not tried") for side in (old, new))
        counts[name.partition("/")[0]][verdict] += 1
        if verdict != "equal":
            details.append(f"| {name} | {verdict} | {why} |")
    verdicts = ("equal", "different", "only before", "only after", "in neither")
    print(f"| files | {' | '.join(verdicts)} |\n|---|{'---|' * len(verdicts)}")
    for group, found in counts.items():
        print(f"| {group} | {' | '.join(str(found[verdict]) for verdict in verdicts)} |")
    keys_told = ", ".join(f"`{key}` in {count}" for key, count in told.most_common())
    print(f"\nKeys of the metadata that differ: {keys_told or 'none'}.")
    print("\n| file | verdict | why |\n|---|---|---|", *details, sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="export everything with a checkout's package")
    recording.add_argument("output", type=Path)
    recording.add_argument("--checkout", type=Path, default=HOME)
    comparing = commands.add_parser("compare", help="print what differs, as Markdown")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    exporting = commands.add_parser("export", help="what record runs in a process of its own")
    exporting.add_argument("output", type=Path)
    args = parser.parse_args()
    if args.command == "record":
        record(args.output, args.checkout)
    elif args.command == "export":
        export_all(args.output)
    else:
        compare(args.before, args.after)


if __name__ == "__main__":
    main()
