"""``s2mlp-deploy package``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from s2mlp_deploy import api
from s2mlp_deploy.choices import PackageFormat
from s2mlp_deploy.cli.console import Json, emit
from s2mlp_deploy.cli.options import (
    AllowUnproven,
    RunEngine,
    RunPrecision,
    Threads,
    choices,
    examples,
    given_options,
    refuse_options,
)

# What only some forms use.
_USES = {
    "version": ("triton",),
    "max_batch": ("triton", "docker"),
    "max_delay": ("triton", "docker"),
    "image": ("kserve",),
    "storage_uri": ("kserve",),
    "name": ("kserve",),
    "base": ("docker",),
    "wheel": ("docker",),
}


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command(
        epilog=examples(
            "package out --format triton --output repository",
            "package out --format docker --output context",
            "package out --format kserve --output k8s --image example/digits:1",
        )
    )
    def package(
        context: typer.Context,
        directory: Annotated[Path, typer.Argument(metavar="DIR", help="The artifact.")],
        form: Annotated[PackageFormat, typer.Option("--format", **choices(PackageFormat, "What to write."))],
        output: Annotated[
            Path,
            typer.Option("--output", "-o", metavar="OUT", help="Where: a folder, or a repository."),
        ],
        precision: RunPrecision = None,
        engine: RunEngine = None,
        threads: Threads = None,
        allow_unproven: AllowUnproven = False,
        version: Annotated[int, typer.Option(min=1, help="Triton: of the model.")] = 1,
        max_batch: Annotated[int, typer.Option(min=1, help="Samples in one run.")] = 8,
        max_delay: Annotated[float, typer.Option(min=0, help="Milliseconds a request waits for others.")] = 2.0,
        instances: Annotated[int, typer.Option(min=1, help="How often the model is opened.")] = 1,
        image: Annotated[str | None, typer.Option(metavar="IMAGE", help="KServe: the container's.")] = None,
        storage_uri: Annotated[
            str | None, typer.Option(metavar="URI", help="KServe: where a Triton repository lies.")
        ] = None,
        name: Annotated[
            str | None, typer.Option(metavar="NAME", help="KServe: of the service. Default: the model's.")
        ] = None,
        base: Annotated[
            str | None, typer.Option(metavar="IMAGE", help="Docker: to begin with. Default: Python's own.")
        ] = None,
        wheel: Annotated[
            Path | None, typer.Option(metavar="FILE.whl", help="Docker: this package. Default: the released one.")
        ] = None,
        as_json: Json = False,
    ) -> None:
        """Write an artifact as a Triton repository, a Docker build context or a KServe InferenceService."""
        given = given_options(context)
        unused = [given[key] for key, forms in _USES.items() if key in given and form not in forms]
        refuse_options(unused, f"--format {form} does not use it")
        options = api.PackageOptions(
            version, max_batch, max_delay / 1000, instances, image, storage_uri, name, base, wheel
        )
        written = api.package(
            directory,
            output,
            format=form,
            options=options,
            precision=precision,
            engine=engine,
            threads=threads,
            allow_unproven=allow_unproven,
        )

        def render(console: Console) -> None:
            lines = [f"{written.model} in {written.output}: {written.file} on {written.engine}", written.why]
            lines += [f"note: {note}" for note in written.notes]
            lines += ["Next:", *(f"  {command}" for command in written.commands)]
            for line in lines:
                console.print(line, highlight=False, markup=False, soft_wrap=True)

        emit(written, as_json=as_json, render=render)
