"""``s2mlp-deploy build``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from s2mlp_deploy import api
from s2mlp_deploy.choices import EngineName, HardwareCompatibility, RequiredPrecision
from s2mlp_deploy.cli.console import Json, emit, progress
from s2mlp_deploy.cli.engine_tables import print_optimized, print_preflight
from s2mlp_deploy.cli.options import choices, examples, given_options, output_path, refuse_options
from s2mlp_deploy.engines.profiles import parse_shapes
from s2mlp_deploy.engines.tensorrt.options import BuildOptions, parse_size
from s2mlp_deploy.errors import CheckFailedError, InputError
from s2mlp_deploy.evidence.store import document_of
from s2mlp_deploy.report.engines import print_build

if TYPE_CHECKING:
    from s2mlp_deploy.engines.tensorrt.preflight import Preflight

_SHAPES = "NAME:1x3x224x224"
_PROFILES = "repeat for more profiles, join inputs by commas"
# Parameters that are used; all others are of a build.
_OF_OPTIMIZE = frozenset({"file", "engine", "optimize_for", "output", "as_json"})
_SHAPE_OPTIONS = {"min_shapes", "opt_shapes", "max_shapes"}
_OF_DRY_RUN = (
    frozenset({"file", "engine", "target", "precision", "dry_run", "engine_version", "as_json"}) | _SHAPE_OPTIONS
)
_OF_OPENVINO = frozenset({"file", "engine", "target", "precision", "output", "force", "as_json"})
_ENGINES = "What to build for; onnxruntime with --optimize-for."


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command(
        epilog=examples(
            "build out --target sm89",
            "build out --dry-run --engine tensorrt --engine-version 10.16",
            "build model.onnx --target sm89 --max-shapes image:8x3x224x224",
            "build out --engine openvino",
            "build out --engine onnxruntime --optimize-for cpu",
        )
    )
    def build(
        context: typer.Context,
        file: Annotated[
            Path,
            typer.Argument(
                metavar="DIR|FILE.onnx", help="The graph to build; of an artifact the file meant for the engine."
            ),
        ],
        engine: Annotated[EngineName, typer.Option(**choices(EngineName, _ENGINES))] = "tensorrt-rtx",
        target: Annotated[
            list[str] | None,
            typer.Option(help="Compute capability, for example sm89; repeat. Of openvino a device."),
        ] = None,
        min_shapes: Annotated[
            list[str] | None,
            typer.Option(metavar=_SHAPES, help=f"Smallest shapes; artifacts default to batch 1; {_PROFILES}."),
        ] = None,
        opt_shapes: Annotated[
            list[str] | None,
            typer.Option(metavar=_SHAPES, help=f"Shapes to tune for; artifacts default to batch 8; {_PROFILES}."),
        ] = None,
        max_shapes: Annotated[
            list[str] | None,
            typer.Option(metavar=_SHAPES, help=f"Largest shapes; artifacts default to batch 32; {_PROFILES}."),
        ] = None,
        precision: Annotated[
            RequiredPrecision | None,
            typer.Option(
                **choices(RequiredPrecision, "What GEMMs and convolutions must compute in. Default: the file's."),
            ),
        ] = None,
        workspace: Annotated[
            str | None, typer.Option(metavar="SIZE", help="GPU memory that a layer may use: 512M, 2G.")
        ] = None,
        optimization_level: Annotated[int | None, typer.Option(help="0 to 5; higher searches longer.")] = None,
        timing_cache: Annotated[
            Path | None, typer.Option(metavar="FILE", help="Measured kernels, read and written (tensorrt).")
        ] = None,
        version_compatible: Annotated[
            bool, typer.Option("--version-compatible", help="Loads in later versions of the same major.")
        ] = False,
        hardware_compatible: Annotated[
            HardwareCompatibility,
            typer.Option(**choices(HardwareCompatibility, "Which other GPUs the engine runs on (tensorrt).")),
        ] = "none",
        refit: Annotated[bool, typer.Option("--refit", help="The weights can be replaced later.")] = False,
        strip_plan: Annotated[
            bool, typer.Option("--strip-plan", help="Leave the weights out; refitting puts them back.")
        ] = False,
        device: Annotated[int, typer.Option(help="Number of the GPU to build on (tensorrt).")] = 0,
        verbose: Annotated[bool, typer.Option("--verbose", help="Show what the builder logs.")] = False,
        dry_run: Annotated[
            bool,
            typer.Option("--dry-run", help="Only say what would fail; exit status 1 then. Nothing need be installed."),
        ] = False,
        engine_version: Annotated[
            str | None, typer.Option(metavar="VERSION", help="With --dry-run: the builder's version, such as 10.16.")
        ] = None,
        optimize_for: Annotated[
            str | None, typer.Option(help="With --engine onnxruntime: cpu, to optimize for this machine's processor.")
        ] = None,
        force: Annotated[bool, typer.Option("--force", help="Build even where an equal engine is there.")] = False,
        output: Annotated[
            Path | None,
            typer.Option(
                "--output",
                "-o",
                metavar="FILE",
                parser=output_path,
                help="Default: beside the graph, named by graph, engine and targets.",
            ),
        ] = None,
        as_json: Json = False,
    ) -> None:
        """Build an engine file from an ONNX file. tensorrt-rtx and openvino need no GPU for that.

        Of a line of trtexec, --fp16 and --int8 are `export FILE.onnx --precision` and a build of the file that it
        writes, --saveEngine is --output, and --minShapes is --min-shapes: docs/trtexec.md.
        """
        if (engine == "onnxruntime") != (optimize_for is not None):
            raise InputError(
                "--optimize-for and --engine onnxruntime belong together: other engines always optimize, and "
                "ONNX Runtime runs the ONNX file itself",
                fix="--engine onnxruntime --optimize-for cpu, or neither",
            )
        if optimize_for is not None:
            refuse_options(_given_beside(context, _OF_OPTIMIZE), "of TensorRT's engines, and ONNX Runtime has none")
            _optimize(file, optimize_for, output, as_json)
            return
        if engine == "openvino":
            refuse_options(_given_beside(context, _OF_OPENVINO), "of TensorRT's engines, and OpenVINO has none")
        shapes = {
            name: [parse_shapes(text) for text in texts or []]
            for name, texts in (("min_shapes", min_shapes), ("opt_shapes", opt_shapes), ("max_shapes", max_shapes))
        }
        if dry_run:
            refuse_options(_given_beside(context, _OF_DRY_RUN), "a dry run builds nothing that it could change")
            report = api.preflight(
                file, engine=engine, version=engine_version, targets=target or [], precision=precision, **shapes
            )
            _show_dry_run(report, as_json)
            return
        if engine_version is not None:
            raise InputError(
                "--engine-version is for --dry-run: a build uses the version installed", fix="leave it out"
            )
        options = (
            None
            if engine == "openvino"
            else BuildOptions(
                workspace=None if workspace is None else parse_size(workspace),
                optimization_level=optimization_level,
                version_compatible=version_compatible,
                hardware_compatible=hardware_compatible,
                refit=refit,
                strip_plan=strip_plan,
                timing_cache=timing_cache,
                device=device,
                verbose=verbose,
            )
        )
        with progress() as callback:
            record = api.build(
                file,
                engine=engine,
                targets=target or [],
                output=output,
                precision=precision,
                options=options,
                force=force,
                progress=callback,
                **shapes,
            )

        def render(console: Console) -> None:
            print_build(console, record)

        emit(document_of(record), as_json=as_json, render=render)


def _show_dry_run(report: Preflight, as_json: bool) -> None:
    def render(console: Console) -> None:
        print_preflight(console, report)

    emit(report, as_json=as_json, render=render)
    if not report.passed:
        count = len(report.findings)
        raise CheckFailedError(
            f"{report.onnx} would not build: {count} finding{'' if count == 1 else 's'}",
            fix="\n         ".join(dict.fromkeys(finding.fix for finding in report.findings)),
        )


def _given_beside(context: typer.Context, used: frozenset[str]) -> list[str]:
    return [option for name, option in given_options(context).items() if name not in used]


def _optimize(file: Path, optimize_for: str, output: Path | None, as_json: bool) -> None:
    if optimize_for != "cpu":
        raise InputError(f"cannot optimize for {optimize_for!r}", fix="choose cpu")
    record = api.optimize(file, output=output)

    def render(console: Console) -> None:
        print_optimized(console, record)

    emit(record, as_json=as_json, render=render)
