"""The table of layers."""

from __future__ import annotations

import dataclasses
import io

from report_samples import layer, layers
from rich.console import Console

from s2mlp_deploy.evidence.layers import LayerParity, LayersReport
from s2mlp_deploy.evidence.parity import Tolerances
from s2mlp_deploy.report.layers import folded, print_layers


def printed(report: LayersReport) -> str:
    console = Console(file=io.StringIO(), width=240)
    print_layers(console, report)
    return console.file.getvalue()


def test_the_first_layer_past_its_limit_is_marked() -> None:
    text = printed(layers(layer("a"), layer("b", 0.5), layer("c", 0.7), layer("logits", kind="output")))
    rows = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "<- FIRST past its limit" in rows["b"]
    assert "FIRST" not in rows["c"]
    assert "past its limit" in rows["c"]
    assert "past" not in rows["a"]
    assert "FIRST  b: max abs difference 0.5 > 0.00101" in text
    assert "stages.0.attention" in text
    assert "all hold" in printed(layers())


def test_where_no_layer_is_wrong_of_its_own_the_one_that_adds_most_is_told() -> None:
    def own(path: str, sqnr: float, least: float = 16.0) -> LayerParity:
        metrics = dataclasses.replace(layer(path).metrics, sqnr=sqnr)
        limits = Tolerances(1e-6, 0.5, -1, 0, min_sqnr=least)
        return dataclasses.replace(layer(path), tolerances=None, own=metrics, own_tolerances=limits)

    sound = layers(own("a", 40.0), own("b", 31.0), layer("logits", 0.5, kind="output"))
    text = printed(sound)
    assert "No layer departs of its own: what all of them add is too much. b adds most, 31.0 dB." in text
    assert "FIRST  logits" in text
    wrong = layers(own("a", 40.0), own("b", 15.0), own("c", 40.0), layer("logits", 0.5, kind="output"))
    assert wrong.first is not None
    assert wrong.first.path == "b"
    assert "FIRST  b: of its own: SQNR 15.0 dB < 16.0 dB" in printed(wrong)


def test_layers_that_hold_are_folded_where_there_are_many() -> None:
    deep = [layer(f"stages.0.blocks.{block}.fc{number}", number * 1e-7) for block in range(40) for number in (1, 2)]
    bad = layer("stages.0.blocks.7.fc3", 0.5)
    report = layers(*deep[:16], bad, *deep[16:], layer("logits", kind="output"))
    rows = folded(report)
    assert len(rows) < 60
    assert (bad, 0) in rows
    assert sum(1 + more for _, more in rows) == len(report.layers)
    assert [row for row, _ in rows][-1].path == "logits"
    # The one nearest to its limit stands for the others.
    assert rows[0][0].path.endswith("fc2")


def test_taps_that_change_the_answer_are_told() -> None:
    text = printed(dataclasses.replace(layers(), tapping={"logits": 0.25}))
    assert "change what is computed: logits by up to 0.25" in text
