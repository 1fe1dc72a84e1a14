"""The command line. Commands parse, call :mod:`s2mlp_deploy.api` and render; each has a file of its own."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer

from s2mlp_deploy import __version__
from s2mlp_deploy.cli import build, demo, doctor, export, inspect, models, parity, predict, quantize
from s2mlp_deploy.cli.console import BROKEN_PIPE, ERR, OUT, set_up_logging
from s2mlp_deploy.errors import INTERNAL_ERROR, S2MLPDeployError, SourceError

app = typer.Typer(
    name="s2mlp-deploy",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Deploy spatial-shift MLP vision models: PyTorch to ONNX and TensorRT, with the evidence written beside.",
    epilog="Exit status: 0 done, 1 a check failed, 2 wrong input, 70 internal error.",
)


_INTERRUPTED = 130


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


for module in (models, doctor, demo, export, quantize, build, inspect, parity, predict):
    module.register(app)


def main() -> None:
    """Entry point: turns the package's errors into a message and an exit status."""
    try:
        app()
    except S2MLPDeployError as error:
        _show_user_code(error)
        ERR.print("[bold red]error:[/] ", end="")
        ERR.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        OUT.on_broken_pipe()
    except MemoryError:
        ERR.print("error: there is not enough memory", style="bold red")
        ERR.print("  fix:   use smaller data, fewer samples or a smaller batch, or a machine with more memory")
        sys.exit(S2MLPDeployError.exit_code)
    except OSError as error:
        # A full disk or a bad path in a place that had nothing better to say.
        ERR.print(f"error: {error.strerror or error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        if error.filename is not None:
            ERR.print(f"  where: {error.filename}", markup=False, highlight=False, soft_wrap=True)
        ERR.print("  fix:   check that the path exists, is yours to use and has room")
        sys.exit(S2MLPDeployError.exit_code)
    except KeyboardInterrupt:
        sys.exit(_interrupted())
    except SystemExit as exit:
        # typer turns Ctrl-C into this status without a word.
        if exit.code == _INTERRUPTED:
            _interrupted()
        # A pipe that nobody reads it turns into 1, which here means that a check failed.
        if type(sys.stdout).__name__ == "PacifyFlushWrapper":
            sys.exit(BROKEN_PIPE)
        raise
    except Exception:
        ERR.print(traceback.format_exc(), markup=False, highlight=False, soft_wrap=True, end="")
        ERR.print(
            f"internal error: this is a bug of s2mlp-deploy {__version__}; please report it with the lines above",
            style="bold red",
            soft_wrap=True,
        )
        sys.exit(INTERNAL_ERROR)


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


def _interrupted() -> int:
    ERR.print("interrupted")
    return _INTERRUPTED


if __name__ == "__main__":
    main()
