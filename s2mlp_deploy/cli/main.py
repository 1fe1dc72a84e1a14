"""The command line. Commands parse, call :mod:`s2mlp_deploy.api` and render; each has a file of its own."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from inspect import getdoc
from typing import Annotated

import typer

from s2mlp_deploy import __version__
from s2mlp_deploy.cli import (
    batch,
    bench,
    build,
    demo,
    diff,
    doctor,
    export,
    help_pages,
    inspect,
    models,
    package,
    parity,
    predict,
    quantize,
    report,
    serve,
    tune,
)
from s2mlp_deploy.cli.console import BROKEN_PIPE, ERR, OUT, set_up_logging, write_document
from s2mlp_deploy.errors import INTERNAL_ERROR, InputError, S2MLPDeployError, SourceError
from s2mlp_deploy.text import first_line_of

_NAME = "s2mlp-deploy"
_COMPLETING = "_S2MLP_DEPLOY_COMPLETE"
"""Of the environment: typer's name for it, made of the program's."""

_INTERRUPTED = 130

app = typer.Typer(
    name=_NAME,
    cls=help_pages.Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Deploy spatial-shift MLP vision models: PyTorch to ONNX and TensorRT, with the evidence written beside.",
    epilog="Exit status: 0 done, 1 a check failed, 2 wrong input, 70 internal error.",
)

_MAY_BE_EMPTY = ("--dynamic",)
"""Options of which nothing is an answer."""

_PANELS = 80
"""Columns that typer's panels need for the names of options."""

_MARKUP = app.rich_markup_mode


def _version(value: bool) -> None:
    if value:
        typer.echo(f"s2mlp-deploy {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del version
    set_up_logging()


for module in (
    *(models, doctor, demo, export, quantize, build, inspect, diff, parity, bench, tune, report),
    *(predict, batch, serve, package),
):
    module.register(app)
help_pages.use(app)


def main() -> None:
    """Runs a command; turns errors into a message and an exit status, and into a document where JSON was asked for."""
    OUT.document_written = False
    _fit_help(OUT.width)
    if os.environ.get(_COMPLETING):  # A shell asks: what it cannot be told, it is not told in an error message either.
        with contextlib.suppress(Exception):
            app(prog_name=_NAME, standalone_mode=False)
        return
    try:
        _refuse_empty(sys.argv[1:])
        # Not in typer's standalone mode, which prints errors on a console of its own and in a way of its own.
        status = app(prog_name=_NAME, standalone_mode=False)
    except BrokenPipeError:
        OUT.on_broken_pipe()
    except SystemExit:
        # A pipe that nobody reads typer turns into 1, which here means that a check failed.
        if type(sys.stdout).__name__ == "PacifyFlushWrapper":
            sys.exit(BROKEN_PIPE)
        raise
    except (Exception, KeyboardInterrupt) as raised:
        sys.exit(_end_with(raised))
    if status == _INTERRUPTED:  # typer turns Ctrl-C into this status without a word.
        sys.exit(_end_with(KeyboardInterrupt()))
    if status:
        sys.exit(status)


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Refuses an empty argument: what a script's unset variable leaves, and as a path it is the current folder.

    Raises:
        InputError: There is one.
    """
    before = ""
    for argument in arguments:
        option, equals, value = argument.partition("=")
        glued = bool(equals) and option.startswith("--")
        name = option if glued else before
        if not (value if glued else argument).strip() and name not in _MAY_BE_EMPTY:
            told = name if name.startswith("-") else "an argument"
            raise InputError(
                f"{told} is empty",
                where=shlex.join([_NAME, *arguments]),
                fix=f"give {'it a value' if told == name else 'a value'}, or leave it out; the current folder is '.'",
            )
        before = argument


def _fit_help(width: int) -> None:
    """Lets help pages be plain where the terminal is too narrow for panels, which cut off the names of options."""
    plain = width < _PANELS
    app.rich_markup_mode = None if plain else _MARKUP
    for info in app.registered_commands:
        # A plain page would cut off the sentence that it makes of the whole text.
        info.short_help = " ".join((getdoc(info.callback) or "").partition("\n\n")[0].split()) if plain else None


def _end_with(raised: BaseException) -> int:
    """Says how a command ended, and returns its exit status."""
    if _is_interruption(raised):
        ERR.print("interrupted")
        _write_error("interrupted", None, _INTERRUPTED)
        return _INTERRUPTED
    error = _in_words(raised)
    if error is None:
        bug = f"internal error: this is a bug of s2mlp-deploy {__version__}; please report it with the lines above"
        lines = traceback.format_exception(raised)
        ERR.print("".join(lines), markup=False, highlight=False, soft_wrap=True, end="")
        ERR.print(bug, style="bold red", soft_wrap=True)
        _write_error(f"internal error: {first_line_of(raised)}", None, INTERNAL_ERROR)
        return INTERNAL_ERROR
    _show_user_code(error)
    ERR.print("[bold red]error:[/] ", end="")
    ERR.print(str(error), markup=False, highlight=False, soft_wrap=True)
    _write_error(error.problem, error, error.exit_code)
    return error.exit_code


def _write_error(message: str, error: S2MLPDeployError | None, status: int) -> None:
    """Writes the error as the command's one document, unless its result was written before a check of it failed."""
    arguments = sys.argv[1:]
    if "--json" in arguments[: arguments.index("--") if "--" in arguments else None] and not OUT.document_written:
        where, fix = (error.where, error.fix) if error is not None else (None, None)
        write_document({"error": {"message": message, "where": where, "fix": fix, "exit_code": status}})


def _in_words(raised: BaseException) -> S2MLPDeployError | None:
    """An error that the user can do something about; None for a bug of ours."""
    if isinstance(raised, S2MLPDeployError):
        return raised
    if isinstance(raised, MemoryError):
        return InputError(
            "there is not enough memory",
            fix="use smaller data, fewer samples or a smaller batch, or a machine with more memory",
        )
    if isinstance(raised, OSError):
        # A full disk or a bad path in a place that had nothing better to say.
        return InputError(
            str(raised.strerror or raised),
            where=None if raised.filename is None else str(raised.filename),
            fix="check that the path exists, is yours to use and has room",
        )
    # A wrong command line. By its methods: the type is click's or typer's own copy of it, by typer's version.
    if callable(told := getattr(raised, "format_message", None)) and hasattr(raised, "exit_code"):
        command = getattr(getattr(raised, "ctx", None), "command_path", _NAME)
        # The help has been printed where no argument was given.
        return InputError(str(told()).strip() or "no command was given", where=command, fix=f"{command} --help")
    return None


def _is_interruption(raised: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: libraries that are interrupted in their imports raise others in its place."""
    seen: set[int] = set()
    while raised is not None and id(raised) not in seen:
        if isinstance(raised, KeyboardInterrupt):
            return True
        seen.add(id(raised))
        raised = raised.__cause__ or raised.__context__
    return False


def _show_user_code(error: S2MLPDeployError) -> None:
    """Prints where the user's own code failed: the frames that are neither ours nor torch's."""
    cause = error.__cause__
    if not isinstance(error, SourceError) or cause is None:
        return
    # It imports torch, which whoever failed in a user's code has imported; the command line itself must not.
    from s2mlp_deploy.capture.frames import is_user_file

    frames = [frame for frame in traceback.extract_tb(cause.__traceback__) if is_user_file(frame.filename)]
    if not frames and not isinstance(cause, SyntaxError):
        return
    lines = [*traceback.format_list(frames), *traceback.format_exception_only(cause)]
    ERR.print("In your code, most recent call last:")
    ERR.print("".join(lines), markup=False, highlight=False, soft_wrap=True, end="")
