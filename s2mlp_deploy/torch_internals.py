"""Every name of torch that is used here and that torch does not promise to keep, in one file.

A leaf at the package's root, because capture, recognition, sources and engines need it. Each entry says why torch's
public names do not do; ``tests/test_torch_internals.py`` holds for each what is expected of it, and fails with its name
when a version of torch answers otherwise. Written against torch 2.13 and 2.14.
"""

from __future__ import annotations

import copy
import functools
import logging
import math
import re
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sympy
import torch
from torch import Tensor, _prims_common, _refs
from torch._export import utils as _export_utils
from torch._ops import HigherOrderOperator  # What torch.cond, scan and while_loop are; the type is not public.
from torch.export import ExportedProgram, _trace
from torch.fx import GraphModule

# How torch.export and the exporter say that a branch depends on values, and which sizes do; errors have no public type.
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode, free_unbacked_symbols
from torch.fx.proxy import TracerBase

# The only weak reference to the memory behind a tensor: an address alone may be given to the next tensor.
from torch.multiprocessing.reductions import StorageWeakRef

# Watching every operator of eager code; documented as an extension point, in a module that is not public.
from torch.utils._python_dispatch import TorchDispatchMode

# The structure of inputs and outputs as torch.export sees it. torch.utils.pytree is announced, not there.
from torch.utils._pytree import tree_flatten, tree_flatten_with_path, tree_leaves, tree_map, tree_unflatten
from torch.utils._sympy.functions import CleanDiv, FloorDiv, Max, Min, Mod, PythonMod  # Arithmetic within sizes.

__all__ = [
    "SIZE_FUNCTIONS",
    "GuardOnDataDependentSymNode",
    "HigherOrderOperator",
    "StorageWeakRef",
    "TorchDispatchMode",
    "decomposed_by_exporter",
    "exclusive",
    "expression_of",
    "failed_guard",
    "free_unbacked_symbols",
    "has_no_translation",
    "hint_of",
    "kept_registry",
    "one_lookup",
    "quiet_exporter",
    "root_cause",
    "schema_of",
    "storage_of",
    "threads",
    "tracing",
    "tree_flatten",
    "tree_flatten_with_path",
    "tree_leaves",
    "tree_map",
    "tree_unflatten",
    "untranslated_nodes",
    "weak_storage",
    "whole_stacks",
]

SIZE_FUNCTIONS: dict[Any, str] = {
    **dict.fromkeys((CleanDiv, FloorDiv), "floordiv"),
    **dict.fromkeys((Mod, PythonMod), "mod"),
    **dict.fromkeys((Min, sympy.Min), "min"),
    **dict.fromkeys((Max, sympy.Max), "max"),
}
"""What ``//``, ``%``, ``min`` and ``max`` of a symbolic size become: functions of torch's own."""

_LOCK = threading.RLock()
_LOGGERS = (
    "torch.onnx",
    "torch._export",
    "torch.export",
    "torch.fx.experimental.symbolic_shapes",
    "onnxscript.version_converter",
)


@contextmanager
def exclusive() -> Iterator[None]:
    """One export at a time in a process; whoever comes second waits.

    The exporter, and what is changed around it here (log levels, warning filters, numbers of threads, torch's filter
    of stack frames), is shared by all threads. May be entered again by the thread that holds it.
    """
    with _LOCK:
        yield


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Keeps torch's notes about itself (torchvision is absent, names that will change) from the user's terminal.

    So does it with the graphs that ``torch.export`` prints when a trace fails, for which there is no switch: the error
    that is raised names the user's line.
    """
    with exclusive():
        loggers = [logging.getLogger(name) for name in _LOGGERS]
        levels = [logger.level for logger in loggers]
        names = vars(_trace)
        missing = object()
        before = names.get("print", missing)
        names["print"] = lambda *_, **__: None  # In that module only, in place of the builtin.
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            if before is missing:
                del names["print"]
            else:
                names["print"] = before
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def requested_sizes() -> Iterator[None]:
    """Has a view of contiguous memory the sizes that were asked for, not what torch derives for the same numbers.

    With a free batch of ``s`` frames, torch gives ``x.view(s // 8, 8, ...)`` a second size of ``s // (s // 8)``, and
    ``.view(s, ...)`` of that a first size of ``(s // 8) * (s // (s // 8))``. So the formula of a network that folds
    clips into its batch grows threefold with each shift, and a trace of six of them did not end within four minutes.
    The kernel is the one that fake tensors have; there is no switch.
    """

    def view(x: Tensor, *shape: Any, allow_copy: bool) -> Tensor:
        sizes = _prims_common.extract_shape_from_varargs(shape, validate=False)
        symbolic = any(isinstance(size, torch.SymInt) for size in x.shape)
        if not (symbolic and len(sizes) and x.dim() and _prims_common.is_contiguous_or_false(x)):
            return original(x, *shape, allow_copy=allow_copy)
        sizes = _prims_common.infer_size(sizes, x.numel())
        fits: Any = x.numel() == math.prod(sizes)
        torch._check(fits, lambda: f"a tensor of {x.shape} cannot be viewed as {sizes}")  # type: ignore[no-untyped-call]
        return torch.as_strided(x, sizes, _prims_common.make_contiguous_strides_for(sizes))

    with exclusive():
        original = _refs._reshape_view_helper
        _refs._reshape_view_helper = view  # type: ignore[assignment]
        try:
            yield
        finally:
            _refs._reshape_view_helper = original


@contextmanager
def tracing() -> Iterator[None]:
    """What holds wherever torch traces a module or takes a program apart."""
    with quiet_exporter(), requested_sizes():
        yield


@contextmanager
def whole_stacks(
    keep: Callable[[Iterable[traceback.FrameSummary]], list[traceback.FrameSummary]],
) -> Iterator[None]:
    """Has torch note the frames of a stack that ``keep`` returns.

    By itself it notes only frames called ``forward``, so that a shift written in a method or a function would be told
    at the line that calls it. The filter is the place that torch's source names for such changes, in a comment.
    """

    def kept(_: TracerBase, frames: traceback.StackSummary) -> traceback.StackSummary:
        return traceback.StackSummary.from_list(keep(frames))

    with exclusive():
        original = TracerBase._filter_traceback_frames
        TracerBase._filter_traceback_frames = kept  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            TracerBase._filter_traceback_frames = original  # type: ignore[method-assign]


@functools.lru_cache(maxsize=2)
def _registry(make: Callable[..., Any], arguments: tuple[Any, ...], options: tuple[Any, ...], _: int) -> Any:
    return make(*arguments, **dict(options))


@contextmanager
def kept_registry() -> Iterator[None]:
    """Has torch's exporter build its registry of translations once a process; it takes half a second at each export.

    ``torch.onnx.export`` cannot be given a registry. Each export works on a copy, because its own translations are
    added to it. It is built again once other operators are registered: those of torchvision are looked up by name.
    """
    # Importing it takes a second, which only an export has to spare.
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with exclusive():
        original = vars(ONNXRegistry)["from_torchlib"]

        def copied(*arguments: Any, **options: Any) -> ONNXRegistry:
            operators = len(torch._C._dispatch_get_all_op_names())
            kept = _registry(original.__get__(None, ONNXRegistry), arguments, tuple(sorted(options.items())), operators)
            registry: ONNXRegistry = copy.copy(kept)
            registry.functions = {name: [*translations] for name, translations in kept.functions.items()}
            return registry

        ONNXRegistry.from_torchlib = staticmethod(copied)  # type: ignore[method-assign]
        try:
            yield
        finally:
            ONNXRegistry.from_torchlib = original  # type: ignore[method-assign]


@contextmanager
def one_lookup() -> Iterator[None]:
    """Has torch look all composite operators up once: each decomposition does so fourteen times, for 25 ms.

    Torch looks them up each time because operators may be registered in between; here they are not.
    """
    done = False

    def once() -> None:
        nonlocal done
        if not done:
            original()
            done = True

    with exclusive():
        original = _export_utils._materialize_cpp_cia_ops
        _export_utils._materialize_cpp_cia_ops = once
        try:
            yield
        finally:
            _export_utils._materialize_cpp_cia_ops = original


@functools.cache
def _exporter_table() -> dict[Any, Callable[..., Any]]:
    # Importing it takes a second, which only an export has to spare.
    from torch.onnx._internal.exporter import _decomp, _registration

    known = set(_decomp.get_onnx_implemented_overloads(_registration.ONNXRegistry.from_torchlib()))
    return _decomp.create_onnx_friendly_decomposition_table(known)


def decomposed_by_exporter(program: ExportedProgram) -> ExportedProgram:
    """A program as torch's exporter takes it apart before it translates; itself where there is nothing to take apart.

    Decompositions may decide by a size (adaptive pooling, by whether pieces have one length), and what they decide
    for the example stands in the graph without a guard. There is no public way to see the program at that stage.
    """
    with tracing(), one_lookup():
        table = _exporter_table()
        nodes = [
            node
            for part in program.graph_module.modules()
            if isinstance(part, GraphModule)
            for node in part.graph.nodes
        ]
        if not any(node.target in table for node in nodes if node.op == "call_function"):
            return program
        taken_apart: ExportedProgram = program.run_decompositions(table)
    return taken_apart


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Another number of threads for torch's operators for a while; the number is the process's, so it is locked."""
    with exclusive():
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def schema_of(target: Any) -> Any:
    """The schema of an operator, with the names of its arguments; None for what is no operator."""
    return getattr(target, "_schema", None)


def expression_of(size: Any) -> sympy.Expr:
    """The formula of a symbolic size; ``torch.SymInt`` has only comparisons in public."""
    return size.node.expr


def hint_of(size: Any, symbol: sympy.Symbol) -> int:
    """The value that a symbol of a size has in the example inputs."""
    return int(size.node.shape_env.backed_var_to_val[symbol])


def failed_guard(module: torch.fx.GraphModule, leaves: Sequence[Any]) -> str | None:
    """What a program's ``module()`` says against inputs of these sizes, None where nothing; runs no operator.

    ``torch.export`` leaves out of the ranges of sizes what it can only say as a guard, and has no public way to ask.
    """
    guards = getattr(module, "_guards_fn", None)
    try:
        if guards is not None:
            guards(*leaves)
    except AssertionError as error:
        return str(error).partition("\n")[0]
    except ZeroDivisionError:
        return "a length that it divides by is 0"
    return None


def storage_of(tensor: Tensor) -> int:
    """A number for the memory behind a tensor; another one's only once nobody refers to that memory, weakly or not."""
    return int(tensor.untyped_storage()._cdata)


def weak_storage(tensor: Tensor) -> StorageWeakRef:
    """A weak reference to the memory behind a tensor, whose ``cdata`` is its number; the memory itself may be freed."""
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]


def has_no_translation(error: BaseException) -> bool:
    """Whether the exporter failed because it knows no ONNX for an operator; its errors have no public types."""
    return any(type(cause).__name__ == "DispatchError" for cause in _causes(error))


def untranslated_nodes(error: BaseException) -> set[str]:
    """The names of the nodes that the exporter was translating when it failed, from its messages."""
    return {name for cause in _causes(error) for name in re.findall(r"translating node %(\w+)", str(cause))}


def root_cause(error: BaseException) -> BaseException:
    """The error at the bottom of the exporter's: what it raises itself repeats how to report a bug."""
    return _causes(error)[-1]


def _causes(error: BaseException) -> list[BaseException]:
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    return causes
