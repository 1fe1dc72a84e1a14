"""The tree of what differs, and the figures beside it."""

from __future__ import annotations

import io
import re

from rich.console import Console

from s2mlp_deploy.evidence.difference import (
    Change,
    DifferenceReport,
    FileDifference,
    GraphFacts,
    ModuleDifference,
    NodeDifference,
    WeightDifference,
)
from s2mlp_deploy.report.difference import branches, headline, print_difference
from s2mlp_deploy.report.page.difference import view_difference

FACTS = GraphFacts("a.onnx", "0" * 64, 1000, "fp32", 20, 10, "tool 1", (), (), 10, 4, {"fp32": 900})
MODULES = (
    ModuleDifference("stages.0.a", 2, 2, changed=1, ms_before=1.5, ms_after=0.5, error_after=0.01),
    ModuleDifference("stages.0.b", 2, 5, added=3),
    ModuleDifference("stages.1.c.d", 1, 0, removed=1, worst=0.25, weights=1),
    ModuleDifference("head", 5, 5),
)
NODES = (
    NodeDifference("stages.0.a", "changed", "Elu", "stages.0.a/Elu", (Change("alpha", "1", "2"),)),
    *(NodeDifference("stages.0.b", "added", "Cast", f"stages.0.b/Cast_{index}") for index in range(3)),
    NodeDifference("stages.1.c.d", "removed", "Abs", "stages.1.c.d/Abs"),
)
WEIGHTS = (WeightDifference("stages.1.c.d", "differs", "w", "fp32 8", "int8 8", 8, 3, 0.5, 0.1, 2.0, 12.0),)
FILE = FileDifference(FACTS, FACTS, modules=MODULES, nodes=NODES, weights=WEIGHTS, same_nodes=9)


def printed(file: FileDifference, width: int = 100, **options) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_difference(console, DifferenceReport("a", "b", (file,)), **options)
    return console.file.getvalue()


def test_the_largest_stands_first_and_what_holds_one_other_shares_its_row() -> None:
    rows = [(row.label, row.level, row.module.size[0] - row.module.weights) for row in branches(FILE, 9)]
    assert rows == [("stages", 0, 5), ("0", 1, 4), ("b", 2, 3), ("a", 2, 1), ("1.c.d", 1, 1)]
    assert [row.label for row in branches(FILE, 1)] == ["stages"]


def test_a_module_sums_what_is_inside_of_it() -> None:
    (stages, zero, *_) = FILE.by_module(2)
    assert (stages.path, stages.nodes_before, stages.worst, stages.ms_after, stages.error_after) == (
        "stages",
        5,
        0.25,
        0.5,
        0.01,
    )
    assert (zero.added, zero.weights) == (3, 0)
    assert FILE.depth_of(1) == 1


def test_the_terminal_shows_time_and_error_where_they_were_measured() -> None:
    text = printed(FILE)
    assert "1.5 > 0.5" in text
    assert "- > 0.01" in text
    assert "shape" not in text.split("By module")[1].splitlines()[1]
    assert "25.00 %" in text
    assert all(len(line) <= 60 for line in printed(FILE, 60).splitlines())


def test_details_of_modules() -> None:
    text = printed(FILE, module=re.compile("stages.0"))
    assert "~ Elu stages.0.a/Elu: alpha 1 > 2" in text
    assert "+ Cast stages.0.b/Cast_2" in text
    assert "Abs" not in text
    assert "nothing differs" in printed(FILE, module=re.compile("head"))


def test_the_answer_in_words() -> None:
    assert headline(FILE) == "3 nodes added, 1 removed, 1 changed, 1 weight differs"
    assert headline(FileDifference(FACTS, FACTS, identical=True)) == "identical"
    assert headline(FileDifference(FACTS, FACTS)) == "the same but for names"
    said = FileDifference(FACTS, FACTS, metadata=(Change("tools.torch", "1", "2"),))
    assert "what they say of themselves" in headline(said)
    assert "another interface" in headline(FileDifference(FACTS, FACTS, interface=(Change("opset", "1", "2"),)))


def test_the_page_lists_nodes_under_their_modules() -> None:
    view = view_difference(FILE)
    (stages,) = view.tree
    zero, one = stages.inside
    assert [item.label for item in zero.inside] == ["b", "a"]
    assert [node.name for node in zero.inside[0].nodes] == [f"stages.0.b/Cast_{index}" for index in range(3)]
    assert one.nodes[0].sign == "-"
    assert dict(stages.bar)["added"] == 50.0
