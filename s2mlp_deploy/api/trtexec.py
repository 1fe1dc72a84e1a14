"""Lines of trtexec: read as a build, and written for one."""

from __future__ import annotations

from pathlib import Path

from s2mlp_deploy.api.engines import ShapesOption, graph_of, profiles_given
from s2mlp_deploy.engines.tensorrt.flavours import flavour
from s2mlp_deploy.engines.tensorrt.graph import read_onnx
from s2mlp_deploy.engines.tensorrt.options import BuildOptions, check_options, check_version
from s2mlp_deploy.engines.tensorrt.plan import engine_path
from s2mlp_deploy.engines.tensorrt.precision_check import required_precision
from s2mlp_deploy.engines.tensorrt.preflight import find, profiles_of, refuse
from s2mlp_deploy.engines.tensorrt.trtexec import TrtexecBuild, line_of, parse_line
from s2mlp_deploy.errors import TargetError

_ENGINE = "tensorrt"
_BEFORE_11 = "10.16"
"""Which has what 11 dropped."""


def read_trtexec(line: str) -> TrtexecBuild:
    """What a command line of trtexec builds, as :func:`~s2mlp_deploy.api.build` takes it.

    Args:
        line: ``trtexec --onnx=model.onnx --saveEngine=model.plan ...``.

    Raises:
        InputError: An option is unknown or has no place here; says which, and what to do instead.
    """
    return parse_line(line)


def write_trtexec(
    onnx_file: str | Path,
    *,
    output: str | Path | None = None,
    min_shapes: ShapesOption = None,
    opt_shapes: ShapesOption = None,
    max_shapes: ShapesOption = None,
    precision: str | None = None,
    options: BuildOptions | None = None,
) -> str:
    """The line of trtexec that builds what :func:`~s2mlp_deploy.api.build` would with ``tensorrt``; nothing is built.

    Args:
        onnx_file: The graph, or an artifact.
        output: Where the engine goes.
        min_shapes: As for ``build``.
        opt_shapes: As for ``build``.
        max_shapes: As for ``build``.
        precision: As for ``build``: the graph must have it, for trtexec builds strongly typed what the graph says.
        options: As for ``build``.

    Raises:
        TargetError: No release of TensorRT has the options.
        ArtifactError: The file is not ONNX.
        InputError: Shapes are missing or do not fit, or the file cannot have the precision.
        BuildError: TensorRT cannot build the graph.
    """
    path, chosen, wanted = graph_of(onnx_file, _ENGINE, precision), options or BuildOptions(), flavour(_ENGINE)
    check_options(chosen, wanted, gpu=True)
    _check_releases(chosen)
    file = read_onnx(path)
    required_precision(file, precision)
    refuse(file, find(file, wanted, ()), wanted)
    profiles = profiles_of(file, *map(profiles_given, (min_shapes, opt_shapes, max_shapes)))
    return line_of(path, Path(output) if output is not None else engine_path(path, _ENGINE, ["gpu"]), profiles, chosen)


def _check_releases(options: BuildOptions) -> None:
    """Refuses what neither 10 nor 11 has: of which the trtexec is that reads the line, nobody has said."""
    try:
        check_version(options, flavour(_ENGINE))
    except TargetError:
        check_version(options, flavour(_ENGINE, _BEFORE_11))
