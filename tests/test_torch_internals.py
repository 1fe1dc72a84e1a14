"""What is expected of each name of torch that torch does not promise to keep.

A failure here says which part of torch changed, and :mod:`s2mlp_deploy.torch_internals` is the place to mend.
"""

from __future__ import annotations

import functools
import logging
import operator
import re
import threading
import traceback
import warnings
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, _trace
from torch.fx.proxy import TracerBase

import s2mlp_deploy
from s2mlp_deploy import torch_internals as internals


class Linear(nn.Module):
    """A module whose operator stands in a helper, not in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def helper(self, x: Tensor) -> Tensor:
        return x * self.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.helper(x)


class Deciding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x


def exported(module: nn.Module) -> torch.export.ExportedProgram:
    with torch.no_grad():
        return torch.export.export(module, (torch.ones(3, 4),), dynamic_shapes=({0: Dim("batch", min=1)},))


def test_no_other_file_uses_private_names_of_torch() -> None:
    private = re.compile(
        r"(from|import) torch[\w.]*\._|from torch[\w.]* import _|torch\.fx\.experimental|\.shape_env\b"
    )
    package = Path(s2mlp_deploy.__file__).parent
    own = package / "torch_internals.py"
    found = [
        f"{path.relative_to(package)}: {line.strip()}"
        for path in sorted(package.rglob("*.py"))
        if path != own
        for line in path.read_text().splitlines()
        if private.search(line)
    ]
    assert found == []


def test_every_name_is_expected_something_of() -> None:
    tests = Path(__file__).read_text()
    assert [name for name in internals.__all__ if not re.search(rf"\binternals\.{name}\b", tests)] == []


class TestSizes:
    def test_a_free_size_has_a_formula_and_a_value_in_the_example(self) -> None:
        program = exported(Linear())
        (x,) = (node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs)
        size = x.meta["val"].shape[0]
        assert isinstance(size, torch.SymInt)
        (symbol,) = internals.expression_of(size * 2).free_symbols
        assert internals.expression_of(size) == symbol
        assert internals.hint_of(size, symbol) == 3
        assert symbol in program.range_constraints

    def test_a_size_that_depends_on_values_is_told(self) -> None:
        class Selecting(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x[x > 0]

        values = [node.meta.get("val") for node in exported(Selecting()).graph.nodes]
        tensors = [value for value in values if isinstance(value, Tensor)]
        assert [bool(internals.free_unbacked_symbols(value)) for value in tensors] == [False, False, True]

    def test_what_a_size_is_divided_by(self) -> None:
        class Halves(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x[: x.shape[0] // 2]

        # Half of 6 is more than 1: torch 2.14 takes a size of 1 in the example for fixed, and refuses a named Dim then.
        with torch.no_grad():
            program = torch.export.export(Halves(), (torch.ones(6, 4),), dynamic_shapes=({0: Dim.AUTO},))
        sizes = [node.meta["val"].shape[0] for node in program.graph.nodes if isinstance(node.meta.get("val"), Tensor)]
        (symbol,) = internals.expression_of(sizes[0]).free_symbols
        assert not internals.expression_of(sizes[0]).atoms(*internals.SIZE_FUNCTIONS)
        assert internals.expression_of(sizes[-1]).atoms(*internals.SIZE_FUNCTIONS)

    def test_a_rule_that_no_range_can_say_is_a_guard_that_answers_for_tensors_without_memory(self) -> None:
        class ByThree(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x * 2 if x.shape[0] % 3 == 0 else x

        def answers(module: nn.Module) -> list[str | None]:
            with torch.no_grad():
                program = torch.export.export(module, (torch.ones(6, 4),), dynamic_shapes=({0: Dim.AUTO},))
            captured = program.module()
            assert isinstance(captured, torch.fx.GraphModule)
            return [internals.failed_guard(captured, [torch.empty(size, 4, device="meta")]) for size in (6, 9, 7)]

        *allowed, refused = answers(ByThree())
        assert allowed == [None, None]
        assert refused is not None
        assert "% 3 == 0" in refused
        assert "\n" not in refused
        assert answers(Linear()) == [None] * 3

    def test_a_guard_that_divides_by_nothing_at_a_size_is_an_answer(self) -> None:
        class Halves(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.cat(x.split(x.shape[0] // 2), 1)

        with torch.no_grad():
            program = torch.export.export(Halves(), (torch.ones(6, 4),), dynamic_shapes=({0: Dim.AUTO},))
        captured = program.module()
        assert isinstance(captured, torch.fx.GraphModule)
        assert "is 0" in (internals.failed_guard(captured, [torch.empty(1, 4, device="meta")]) or "")

    def test_a_branch_on_values_has_an_error_of_its_own(self) -> None:
        with pytest.raises(internals.GuardOnDataDependentSymNode), internals.quiet_exporter():
            exported(Deciding())


class TestMemory:
    def test_views_share_a_number_and_copies_do_not(self) -> None:
        x = torch.zeros(4)
        assert internals.storage_of(x) == internals.storage_of(x[1:]) == internals.weak_storage(x).cdata
        assert internals.storage_of(x) != internals.storage_of(x.clone())

    def test_a_weak_reference_frees_the_memory_and_keeps_the_number(self) -> None:
        x = torch.zeros(1000)
        gone = weakref.ref(x)
        number, kept = internals.storage_of(x), internals.weak_storage(x)
        assert isinstance(kept, internals.StorageWeakRef)
        assert not kept.expired()
        del x
        assert gone() is None
        assert kept.expired()
        others = [torch.zeros(1000) for _ in range(100)]
        assert number not in {internals.storage_of(other) for other in others}


class TestOperators:
    def test_have_a_schema_with_names_and_what_they_write(self) -> None:
        schema = internals.schema_of(torch.ops.aten.copy_.default)
        assert [argument.name for argument in schema.arguments] == ["self", "src", "non_blocking"]
        assert schema.is_mutable
        assert [bool(a.alias_info and a.alias_info.is_write) for a in schema.arguments] == [True, False, False]
        assert internals.schema_of(len) is None

    def test_are_seen_with_their_arguments(self) -> None:
        seen: list[Any] = []

        class Watch(internals.TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                seen.append((func, len(args)))
                return func(*args, **(kwargs or {}))

        x = torch.zeros(2, 2)
        with Watch():
            x[1:] = x[:-1].clone()
        assert torch.ops.aten.clone.default in [func for func, _ in seen]
        assert seen[-1] == (torch.ops.aten.copy_.default, 2)

    def test_are_taken_apart_as_the_exporter_does_where_it_has_no_translation(self) -> None:
        class Pooling(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return nn.functional.adaptive_avg_pool1d(x, 2)

        def targets(program: torch.export.ExportedProgram) -> set[Any]:
            return {node.target for node in program.graph.nodes if node.op == "call_function"}

        pooling = torch.ops.aten.adaptive_avg_pool1d.default
        program = torch.export.export(Pooling(), (torch.ones(3, 4, 6),))
        assert pooling in targets(program)
        assert pooling not in targets(internals.decomposed_by_exporter(program))
        plain = exported(Linear())
        assert internals.decomposed_by_exporter(plain) is plain

    def test_that_take_functions_have_a_type_of_their_own_and_are_seen_with_them(self) -> None:
        seen: list[Any] = []

        class Watch(internals.TorchDispatchMode):
            supports_higher_order_operators = True

            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                if not isinstance(func, internals.HigherOrderOperator):
                    return func(*args, **(kwargs or {}))
                seen.append(func)
                predicate, if_true, if_false, operands = args
                return (if_true if predicate else if_false)(*operands)

        class Branching(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,))

        program = exported(Branching())
        with Watch():
            (result,) = program.module()(torch.ones(3, 4)).unique()
        assert seen == [torch.ops.higher_order.cond]
        assert result == 2
        assert not isinstance(torch.ops.aten.add.Tensor, internals.HigherOrderOperator)


def test_structures_come_apart_and_together_in_one_order() -> None:
    structure = {"a": [1, 2], "b": (3, None)}
    leaves, spec = internals.tree_flatten(structure)
    assert leaves == internals.tree_leaves(structure) == [1, 2, 3, None]
    assert internals.tree_unflatten(leaves, spec) == structure
    assert internals.tree_map(lambda x: x and x * 2, structure) == {"a": [2, 4], "b": (6, None)}
    paths = [path for path, _ in internals.tree_flatten_with_path(structure)[0]]
    assert [[getattr(key, "key", getattr(key, "idx", None)) for key in path] for path in paths][:3] == [
        ["a", 0],
        ["a", 1],
        ["b", 0],
    ]


class TestStacks:
    def test_hold_the_frames_that_are_kept(self) -> None:
        with internals.whole_stacks(lambda frames: [frame for frame in frames if frame.name == "helper"]):
            program = exported(Linear())
        (node,) = (node for node in program.graph.nodes if node.op == "call_function")
        assert "return x * self.weight" in node.meta["stack_trace"]
        assert re.search(rf'File "{re.escape(__file__)}", line \d+, in helper', node.meta["stack_trace"])
        assert "self.helper(x)" not in node.meta["stack_trace"]

    def test_filter_is_put_back(self) -> None:
        before = TracerBase._filter_traceback_frames
        with pytest.raises(KeyError), internals.whole_stacks(list):
            raise KeyError
        assert TracerBase._filter_traceback_frames is before
        summary = traceback.extract_stack()
        assert isinstance(before(TracerBase(), summary), traceback.StackSummary)


class TestQuiet:
    def test_a_failed_trace_prints_its_graph_by_a_print_of_its_module(self, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(internals.GuardOnDataDependentSymNode):
            exported(Deciding())
        assert "def forward" in capfd.readouterr().err, (
            "torch.export prints nothing any more: quiet_exporter may leave print alone"
        )
        with pytest.raises(internals.GuardOnDataDependentSymNode), internals.quiet_exporter():
            exported(Deciding())
        assert tuple(capfd.readouterr()) == ("", "")

    def test_everything_is_as_it_was_afterwards(self) -> None:
        loggers = [logging.getLogger(name) for name in internals._LOGGERS]
        for logger in loggers:
            logger.setLevel(logging.INFO)
        filters, threads = list(warnings.filters), torch.get_num_threads()
        inside: list[Any] = []

        def fail() -> None:
            with internals.quiet_exporter(), internals.threads(threads + 1):
                inside.extend([torch.get_num_threads(), *(logger.level for logger in loggers)])
                raise KeyError

        with pytest.raises(KeyError):
            fail()
        assert inside == [threads + 1, *[logging.ERROR] * len(loggers)]
        assert [logger.level for logger in loggers] == [logging.INFO] * len(loggers)
        assert (list(warnings.filters), torch.get_num_threads()) == (filters, threads)
        assert "print" not in vars(_trace)
        for logger in loggers:
            logger.setLevel(logging.NOTSET)

    def test_one_thread_at_a_time(self) -> None:
        order: list[str] = []
        entered = threading.Event()

        def second() -> None:
            entered.wait()
            with internals.exclusive():
                order.append("second")

        other = threading.Thread(target=second)
        other.start()
        with internals.exclusive(), internals.exclusive():
            entered.set()
            other.join(0.2)
            order.append("first")
        other.join()
        assert order == ["first", "second"]


class TestKeptRegistry:
    def test_exports_share_what_was_built_and_none_sees_what_another_adds(self, monkeypatch: Any) -> None:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        def built(*arguments: Any, **options: Any) -> Any:
            with internals.kept_registry():
                return ONNXRegistry.from_torchlib(*arguments, **options)

        def items(registry: Any) -> set[int]:
            return {id(item) for translations in registry.functions.values() for item in translations}

        plain, first = ONNXRegistry.from_torchlib(opset_version=20), built(opset_version=20)
        add = torch.ops.aten.add.Tensor
        kept = items(first)
        assert (first.opset_version, first.functions.keys()) == (plain.opset_version, plain.functions.keys())
        assert [item.onnx_function for item in first.get_decomps(add)] == [
            item.onnx_function for item in plain.get_decomps(add)
        ]
        first.register_op(add, lambda x, y: x)
        first.register_op(operator.matmul, lambda x: x)
        # The same objects, and nothing else: they were not built a second time.
        assert items(built(opset_version=20)) == kept
        assert built(opset_version=23).opset_version == 23
        monkeypatch.setattr(torch._C, "_dispatch_get_all_op_names", lambda: [])
        assert items(built(opset_version=20)) != kept
        assert items(ONNXRegistry.from_torchlib(opset_version=20)) != kept

    def test_the_exporter_asks_for_it(self, monkeypatch: Any) -> None:
        program = exported(Linear())
        times: list[int] = []
        build = internals._registry.__wrapped__
        internals._registry.cache_clear()
        monkeypatch.setattr(internals, "_registry", functools.lru_cache(lambda *key: times.append(1) or build(*key)))
        with internals.quiet_exporter(), internals.kept_registry():
            models = [torch.onnx.export(program, dynamo=True, verbose=False) for _ in range(2)]
        assert times == [1]
        first, second = (str(made.model.graph) for made in models if made is not None)
        assert first == second


class TestOneLookup:
    def test_operators_are_looked_up_once_and_what_is_found_is_the_same(self, monkeypatch: Any) -> None:
        from torch._export import utils

        program = exported(Linear())
        times: list[int] = []
        original = utils._materialize_cpp_cia_ops
        monkeypatch.setattr(utils, "_materialize_cpp_cia_ops", lambda: times.append(1) or original())
        plain = program.run_decompositions({})
        before = len(times)
        with internals.one_lookup():
            once = program.run_decompositions({})
        # Where torch looks them up once by itself, this is to be removed.
        assert before > len(times) - before == 1
        assert str(once.graph) == str(plain.graph)
        program.run_decompositions({})
        assert len(times) == 2 * before + 1


class TestRequestedSizes:
    def test_sizes_of_a_view_are_those_that_were_asked_for(self) -> None:
        """Clips folded into the batch: torch's own formula grows threefold with each of them."""

        class Clips(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                for _ in range(2):
                    x = x.view(x.shape[0] // 4, 4, 3).clone().view(x.shape[0], 3)
                return x

        def size() -> Any:
            program = torch.export.export(Clips(), (torch.zeros(8, 3),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
            return next(iter(reversed(program.graph.nodes))).args[0][0].meta["val"].shape[0].node.expr

        # Where torch keeps the sizes by itself, this is to be removed.
        assert len(str(size())) > 100
        with internals.tracing():
            assert size().is_Symbol

    def test_what_is_no_view_is_refused_and_what_is_not_contiguous_goes_torchs_way(self) -> None:
        class Turned(nn.Module):
            def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
                return x.transpose(0, 1).view(3, x.shape[0], 1), x.view(-1, 3)

        class Uneven(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x.view(x.shape[0], 2)

        free = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}
        with internals.tracing():
            program = torch.export.export(Turned(), (torch.zeros(8, 3),), **free)
            with pytest.raises(Exception, match="invalid for input of size"):
                torch.export.export(Uneven(), (torch.zeros(8, 3),), **free)
        turned, same = program.module()(torch.arange(15.0).view(5, 3))
        assert (turned.shape, same.shape) == ((3, 5, 1), (5, 3))


class TestExporterErrors:
    def translate(self, module: nn.Module, table: dict[Any, Any]) -> BaseException:
        with pytest.raises(Exception, match=r"translat|ONNX|export") as raised, internals.quiet_exporter():
            torch.onnx.export(exported(module), dynamo=True, custom_translation_table=table, verbose=False)
        return raised.value

    def test_an_operator_without_translation(self) -> None:
        with torch.library._scoped_library("s2mlp_internals", "FRAGMENT") as library:
            library.define("mystery(Tensor x) -> Tensor")
            library.impl("mystery", lambda x: x + 1, "CompositeExplicitAutograd")

            class Mysterious(nn.Module):
                def forward(self, x: Tensor) -> Tensor:
                    return torch.ops.s2mlp_internals.mystery(x)

            error = self.translate(Mysterious(), {})
        assert internals.has_no_translation(error)
        assert internals.untranslated_nodes(error) == {"mystery"}
        assert "mystery" in str(internals.root_cause(error))

    def test_a_translation_that_fails(self) -> None:
        def failing(*_: Any) -> Any:
            raise ZeroDivisionError("no such size")

        error = self.translate(Linear(), {torch.ops.aten.mul.Tensor: failing})
        assert not internals.has_no_translation(error)
        assert internals.untranslated_nodes(error) == {"mul"}
        assert str(internals.root_cause(error)) == "no such size"
