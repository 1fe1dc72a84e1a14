"""``s2mlp-deploy diff``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from s2mlp_deploy import api
from s2mlp_deploy.api.opening import is_engine
from s2mlp_deploy.cli.console import Json, emit, progress
from s2mlp_deploy.cli.options import examples, given_options, refuse_options
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.report.difference import print_difference
from s2mlp_deploy.report.engine_difference import print_engine_difference

_WHOLE = 1000
"""Parts of a module's path, of which none has so many."""


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command(
        epilog=examples(
            "diff before out",
            "diff out/model.fp32.onnx out/model.int8.onnx --html diff.html",
            "diff stock.onnx out --precision fp32 --module blocks.0",
            "diff a.layers.json b.layers.json",
        )
    )
    def diff(
        context: typer.Context,
        before: Annotated[
            Path, typer.Argument(metavar="A", help="The older one: an ONNX file, an artifact, an engine's layers.")
        ],
        after: Annotated[Path, typer.Argument(metavar="B", help="The newer one.")],
        precision: Annotated[
            str | None,
            typer.Option(metavar="NAME", help="Which file of an artifact. Default of two artifacts: all, by name."),
        ] = None,
        depth: Annotated[
            int | None,
            typer.Option(min=1, help="Parts of a module's path that are told apart. Default: what a screen shows."),
        ] = None,
        module: Annotated[
            str | None,
            typer.Option(metavar="REGEX", help="List every node and weight that differs in the modules it matches."),
        ] = None,
        profile: Annotated[
            list[Path] | None,
            typer.Option(metavar="FILE", help="Of layers: what trtexec --exportProfile wrote; A's, then B's."),
        ] = None,
        html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write everything as one page.")] = None,
        exit_code: Annotated[
            bool, typer.Option("--exit-code", help="Exit with 1 where anything but names differs, as git diff does.")
        ] = False,
        as_json: Json = False,
    ) -> None:
        """Compare ONNX files, artifacts or engines by module. Exit status 0, different or not; see --exit-code."""
        given = given_options(context)
        if as_json:
            unused = [given[name] for name in ("depth", "module") if name in given]
            refuse_options(unused, "the document of --json holds every module, node and weight")
        if _has_layers(before) and _has_layers(after):
            others = [given[name] for name in ("precision", "module", "html") if name in given]
            refuse_options(others, "two engines are compared by their layers alone")
            engines = api.diff_layers(before, after, profiles=profile or (), depth=_WHOLE if as_json else depth)
            emit(engines, as_json=as_json, render=lambda console: print_engine_difference(console, engines))
            if exit_code and engines.differs:
                raise typer.Exit(1)
            return
        refuse_options(["--profile"] if profile else [], "only the layers of two engines have times")
        pattern = _compiled(module)
        if html is not None:
            _check_page(html)
        with progress() as report:
            found = api.diff(before, after, precision=precision, progress=report)
        if html is not None:
            api.save_difference(found, html)
        emit(
            found,
            as_json=as_json,
            render=lambda console: print_difference(console, found, depth=depth, module=pattern),
        )
        if exit_code and found.differs:
            raise typer.Exit(1)


def _has_layers(path: Path) -> bool:
    """Whether a path names a list of an engine's layers, or an engine that may have one beside it."""
    return path.suffix == ".json" or is_engine(path)


def _compiled(pattern: str | None) -> re.Pattern[str] | None:
    try:
        return None if pattern is None else re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"--module {pattern!r} is no regular expression: {error}", fix="escape what is meant as it is: \\( \\[ \\*"
        ) from error


def _check_page(path: Path) -> None:
    """Refuses a page that could not be written, before anything is compared."""
    # It brings the templates, which --help does not need.
    from s2mlp_deploy.report.html import check_page

    if not path.name or path.is_dir():
        raise InputError("--html names a folder", where=str(path), fix=f"name a file: {path / 'diff.html'}")
    check_page(path)
