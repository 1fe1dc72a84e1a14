"""Lines of trtexec: read as a build, and written for one."""

from __future__ import annotations

from pathlib import Path

from s2mlp_deploy.api.engines import ShapesOption, graph_of, profiles_given
from s2mlp_deploy.engines.tensorrt.flavours import flavour
from s2mlp_deploy.engines.tensorrt.graph import read_onnx
from s2mlp_deploy.engines.tensorrt.options import BuildOptions, check_options
from s2mlp_deploy.engines.tensorrt.plan import engine_path
from s2mlp_deploy.engines.tensorrt.preflight import profiles_of
from s2mlp_deploy.engines.tensorrt.trtexec import TrtexecBuild, line_of, parse_line

_ENGINE = "tensorrt"


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
        precision: Which file of an artifact is meant.
        options: As for ``build``.

    Raises:
        TargetError: TensorRT does not have an option.
        ArtifactError: The file is not ONNX.
        InputError: Shapes are missing or do not fit.
    """
    path, chosen = graph_of(onnx_file, _ENGINE, precision), options or BuildOptions()
    check_options(chosen, flavour(_ENGINE), gpu=True)
    profiles = profiles_of(read_onnx(path), *map(profiles_given, (min_shapes, opt_shapes, max_shapes)))
    return line_of(path, Path(output) if output is not None else engine_path(path, _ENGINE, ["gpu"]), profiles, chosen)
