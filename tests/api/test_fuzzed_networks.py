"""Networks drawn from seeds, exported and compared at sizes that their examples did not have (benchmarks/fuzz.py)."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

pytest.importorskip("torch")
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
FEW = range(31000, 31004)
MANY = range(32000, 32060)


@pytest.fixture
def fuzz(monkeypatch, caplog):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    caplog.set_level(logging.ERROR)
    import fuzz

    return fuzz


@pytest.fixture
def block(fuzz):
    import fuzz_blocks

    return fuzz_blocks.Block


def judged(fuzz, seeds, folder) -> list[str]:
    outcomes = []
    for seed in seeds:
        place = folder / str(seed)
        place.mkdir()
        outcomes.append(fuzz.judge(fuzz.draw(seed), place))
    return [
        f"{outcome.seed}: {outcome.verdict}: {outcome.detail}" for outcome in outcomes if outcome.verdict != "right"
    ]


def test_few_networks_are_right(fuzz, tmp_path):
    assert judged(fuzz, FEW, tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_sixty_more_are_right_or_refused_in_words(fuzz, tmp_path):
    allowed = ("refused", "parity stricter")
    assert [line for line in judged(fuzz, MANY, tmp_path) if line.split(": ")[1] not in allowed] == []


def test_what_computes_something_else_is_called_wrong(fuzz, block, tmp_path):
    # What is said to be meant is not what is written, and parity, which knows the code alone, must not be believed.
    flipped = block("x = x.flip(2)", meaning="x = x.flip(3)")
    network = fuzz.Network(1, (2, 4, 5, 3), ("batch",), (flipped,))
    outcome = fuzz.judge(network, tmp_path)
    assert (outcome.verdict, outcome.traits) == ("parity blind", ("race", "parity"))
    assert "differs by" in outcome.detail


def test_a_failure_is_shortened_to_what_it_needs(fuzz, block):
    blocks = [block(f"x = x + {number}") for number in range(5)]
    network = fuzz.Network(1, (2, 4, 5, 3), ("batch", "height"), tuple(blocks), "x, x")
    found = fuzz.shrunk(network, lambda candidate: blocks[3] in candidate.blocks and "height" in candidate.dynamic)
    assert (found.blocks, found.dynamic, found.results) == ((blocks[3],), ("height",), "x")


def test_a_seed_gives_the_same_network_alone(fuzz):
    first = [fuzz.draw(seed).program() for seed in (5, 6)]
    assert fuzz.draw(6).program() == first[1] != first[0]
    names: dict = {}
    exec(first[0], names)
    module, example = names["make"]()
    module(*example)
