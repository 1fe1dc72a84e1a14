"""``s2mlp-deploy demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from s2mlp_deploy.cli.console import Json, emit, progress
from s2mlp_deploy.cli.options import examples
from s2mlp_deploy.errors import CheckFailedError
from s2mlp_deploy.report.format import size
from s2mlp_deploy.report.tables import print_table, print_words, visible_text


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command(epilog=examples("demo", "demo --output demo --images digits"))
    def demo(
        output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where to write.")] = Path(
            "build/demo"
        ),
        images: Annotated[
            Path | None,
            typer.Option(metavar="DIR", help="Your own digits instead of the 1,000 held-out ones."),
        ] = None,
        target: Annotated[list[str] | None, typer.Option(help="Compute capability of the engine.")] = None,
        as_json: Json = False,
    ) -> None:
        """Run the main job on a trained digit network: export, precisions, parity, engines, report."""
        # Exports and builds: the only command whose room is not behind the door of the API.
        from s2mlp_deploy.demo.run import precision_table, run_demo, table, written_files

        with progress() as report:
            result = run_demo(output, images=images, targets=target or ["sm89"], progress=report)

        def render(console: Console) -> None:
            columns, rows = table(result)
            count = next(iter(result.parity.values())).images
            print_table(console, f"s2mlpv2_nano on {count:,} images: PyTorch against ONNX Runtime", columns, rows)
            console.print("torch and ONNX: accuracy on the labels. Every form is an artifact of its own.\n")
            print_table(console, "Precisions of the first form", *precision_table(result))
            console.print(
                "accuracy: on the labels, through ONNX Runtime. ms: per image in batches of 8, one thread, for the "
                "files meant for ONNX Runtime.\n"
            )
            if not result.engines:
                print_words(console, visible_text(console, f"No engines: {result.engine_missing}"))
            for precision, built in result.engines.items():
                console.print(
                    f"Engine: TensorRT-RTX {built.version} for {', '.join(built.targets)}, {precision}, "
                    f"{size(built.bytes)} in {built.seconds:.1f} s",
                    highlight=False,
                    markup=False,
                )
            for what, path in written_files(result).items():
                console.print(f"{what:>15}: {path}", highlight=False, markup=False, soft_wrap=True)

        emit(result, as_json=as_json, render=render)
        if not result.passed:
            failing = [name for name, item in [*result.parity.items(), *result.precisions.items()] if not item.passed]
            raise CheckFailedError(f"parity does not hold in {', '.join(failing)}", where=str(result.report))
