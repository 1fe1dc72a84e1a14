"""``s2mlp-deploy build``."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console
from rich.text import Text

from s2mlp_deploy import api
from s2mlp_deploy.choices import EngineName, HardwareCompatibility, ProfilingVerbosity, RequiredPrecision
from s2mlp_deploy.cli.console import Json, emit, progress
from s2mlp_deploy.cli.engine_tables import print_optimized, print_preflight
from s2mlp_deploy.cli.options import choices, examples, given_options, refuse_options
from s2mlp_deploy.engines.profiles import parse_shapes
from s2mlp_deploy.engines.tensorrt.options import BuildOptions, parse_size
from s2mlp_deploy.errors import CheckFailedError, InputError
from s2mlp_deploy.evidence.store import document_of
from s2mlp_deploy.report.engines import print_build

if TYPE_CHECKING:
    from s2mlp_deploy.engines.tensorrt.preflight import Preflight

_LOG = logging.getLogger(__name__)

_SHAPES = "SHAPES"
_PROFILES = "repeat for more profiles, join inputs by commas"
# Parameters that are used; all others are of a build.
_OF_OPTIMIZE = frozenset({"file", "engine", "optimize_for", "output", "as_json"})
_SHAPE_OPTIONS = frozenset({"min_shapes", "opt_shapes", "max_shapes"})
_OF_DRY_RUN = _SHAPE_OPTIONS | {
    *("file", "engine", "target", "precision", "dry_run", "engine_version", "from_trtexec", "as_json")
}
_OF_TRTEXEC = frozenset(
    {"from_trtexec", "engine", "target", "output", "dry_run", "engine_version", "force", "verbose", "as_json"}
)
_OF_OPENVINO = frozenset({"file", "engine", "target", "precision", "output", "force", "as_json"})
_NOT_IN_A_LINE = frozenset({"target", "force"})
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
            "build --from-trtexec 'trtexec --onnx=m.onnx --saveEngine=m.plan'",
        )
    )
    def build(
        context: typer.Context,
        file: Annotated[
            Path | None,
            typer.Argument(
                metavar="DIR|FILE.onnx", help="The graph to build; of an artifact the file meant for the engine."
            ),
        ] = None,
        engine: Annotated[EngineName, typer.Option(**choices(EngineName, _ENGINES))] = "tensorrt-rtx",
        target: Annotated[
            list[str] | None,
            typer.Option(metavar="SM", help="Compute capability, for example sm89; repeat. Of openvino a device."),
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
        builder_optimization_level: Annotated[int | None, typer.Option(help="0 to 5; higher searches longer.")] = None,
        tf32: Annotated[
            bool, typer.Option("--tf32", help="Let fp32 GEMMs round their inputs to TF32: faster, 3 digits.")
        ] = False,
        # Not the other half of the option above: help pages give that a column, which breaks the longest names.
        no_tf32: Annotated[bool, typer.Option("--no-tf32", help="The default: fp32 stays fp32.")] = False,
        sparsity: Annotated[
            bool, typer.Option("--sparsity", help="Try kernels for weights of which 2 in 4 are zero.")
        ] = False,
        max_aux_streams: Annotated[
            int | None, typer.Option(help="Streams beside the main one. Default: the builder's choice.")
        ] = None,
        tactic_sources: Annotated[
            str | None, typer.Option(metavar="NAMES", help="Sources of kernels: +NAME adds one, -NAME takes it away.")
        ] = None,
        build_route: Annotated[
            str | None,
            typer.Option(metavar="ROUTE", help="Internal options, '-knob=value ...' (tensorrt from 11.1)."),
        ] = None,
        timing_cache: Annotated[
            Path | None, typer.Option(metavar="FILE", help="Measured kernels, read and added to (tensorrt).")
        ] = None,
        profiling_verbosity: Annotated[
            ProfilingVerbosity,
            typer.Option(**choices(ProfilingVerbosity, "What the engine keeps of its layers.")),
        ] = "detailed",
        version_compatible: Annotated[
            bool, typer.Option("--version-compatible", help="Loads in later versions too (tensorrt).")
        ] = False,
        hardware_compatible: Annotated[
            HardwareCompatibility,
            typer.Option(**choices(HardwareCompatibility, "Which other GPUs the engine runs on (tensorrt).")),
        ] = "none",
        refit: Annotated[bool, typer.Option("--refit", help="Weights can be replaced when it is loaded.")] = False,
        strip_plan: Annotated[
            bool, typer.Option("--strip-plan", help="Leave the weights out; loading takes them from the graph.")
        ] = False,
        device: Annotated[
            int,
            typer.Option(help="CUDA's number of the GPU to build on; of tensorrt-rtx only to look into the engine."),
        ] = 0,
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
        from_trtexec: Annotated[
            str | None, typer.Option(metavar="LINE", help="Build what a command line of trtexec builds.")
        ] = None,
        print_trtexec: Annotated[
            bool, typer.Option("--print-trtexec", help="Only print the equal line of trtexec (tensorrt).")
        ] = False,
        force: Annotated[bool, typer.Option("--force", help="Build even where an equal engine is there.")] = False,
        output: Annotated[
            Path | None,
            typer.Option(
                "--output",
                "-o",
                metavar="FILE",
                help="Default: beside the graph, named by graph, engine and targets.",
            ),
        ] = None,
        as_json: Json = False,
    ) -> None:
        """Build an engine file from an ONNX file. tensorrt-rtx and openvino need no GPU for that.

        Of a line of trtexec, --fp16 and --int8 are `export FILE.onnx --precision` and a build of the file that it
        writes; the rest --from-trtexec reads: docs/how-to/trtexec.md.
        """
        if tf32 and no_tf32:
            raise InputError("--tf32 and --no-tf32 contradict each other", fix="leave one of them out")
        line = None
        if from_trtexec is not None:
            if file is not None:
                raise InputError("the line of trtexec names the graph", fix=f"leave {file} out")
            refuse_options(_given_beside(context, _OF_TRTEXEC), "the line of trtexec says all of that")
            line = api.read_trtexec(from_trtexec)
            for note in line.notes:
                _LOG.warning("%s", note)
            file, precision = line.onnx, cast(RequiredPrecision | None, line.precision)
            output, target = output or line.output, target or list(line.targets)
            if "engine" not in given_options(context):
                engine = cast(EngineName, line.engine)
        if file is None:
            raise InputError("nothing is named that could be built", fix="name an ONNX file or an artifact's directory")
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
        if line is not None:
            shapes = {name: list(getattr(line, name)) for name in _SHAPE_OPTIONS}
        if dry_run:
            refuse_options(_given_beside(context, _OF_DRY_RUN), "a dry run builds nothing that it could change")
            report = api.preflight(
                file,
                engine=engine,
                version=engine_version,
                targets=target or [],
                precision=precision,
                options=None if line is None else line.options,
                **shapes,
            )
            _show_dry_run(report, as_json)
            return
        if engine_version is not None:
            raise InputError(
                "--engine-version is for --dry-run: a build uses the version installed", fix="leave it out"
            )
        options = None
        if line is not None:
            options = replace(line.options, verbose=verbose or line.options.verbose)
        elif engine != "openvino":
            options = BuildOptions(
                workspace=None if workspace is None else parse_size(workspace),
                builder_optimization_level=builder_optimization_level,
                tf32=tf32,
                sparsity=sparsity,
                max_aux_streams=max_aux_streams,
                tactic_sources=tactic_sources,
                build_route=build_route,
                profiling_verbosity=profiling_verbosity,
                version_compatible=version_compatible,
                hardware_compatible=hardware_compatible,
                refit=refit,
                strip_plan=strip_plan,
                timing_cache=timing_cache,
                device=device,
                verbose=verbose,
            )
        if print_trtexec:
            if engine != "tensorrt":
                raise InputError(f"trtexec builds no engines of {engine}", fix="add --engine tensorrt")
            unused = [option for name, option in given_options(context).items() if name in _NOT_IN_A_LINE]
            refuse_options(unused, "trtexec always builds, for the GPU where it runs, and has no word for that")
            text = api.write_trtexec(file, output=output, precision=precision, options=options, **shapes)
            emit({"trtexec": text}, as_json=as_json, render=lambda console: console.print(Text(text), soft_wrap=True))
            return
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
