"""A graph is cut where what passes is known, and its pieces compute together what it computes."""

from __future__ import annotations

import numpy as np
import pytest
from small_nets import graph, images

from s2mlp_deploy.engines.of_graph import open_graph
from s2mlp_deploy.parity.exits import tapped
from s2mlp_deploy.parity.graph_taps import TappedGraph
from s2mlp_deploy.parity.pieces import cut, piece_model


@pytest.mark.parametrize("family", ["v1", "v2"])
def test_pieces_one_after_another_compute_the_whole(family: str) -> None:
    model = graph(family)
    known = {tap.node for tap in TappedGraph(model, threads=1).taps}
    pieces = cut(model.graph, known, 4)
    assert len(pieces) > 2
    assert pieces[0].inputs == ("input",)
    assert pieces[-1].outputs == ("logits",)
    values = dict(images(2))
    for piece in pieces:
        assert set(piece.inputs) <= set(values)
        assert piece.modules
        engine = open_graph(piece_model(model, piece), threads=1)
        assert {info.name for info in engine.inputs} == set(piece.inputs)
        values |= engine.run({name: values[name] for name in piece.inputs})
    whole = open_graph(model, threads=1).run(images(2))
    np.testing.assert_allclose(values["logits"], whole["logits"], rtol=1e-4, atol=1e-5)


def test_a_graph_whose_values_are_not_known_stays_whole() -> None:
    model = graph("v2")
    (piece,) = cut(model.graph, (), 4)
    assert (piece.inputs, piece.outputs) == (("input",), ("logits",))


def test_an_output_that_is_made_early_leaves_its_own_piece() -> None:
    model = graph("v1")
    taps = TappedGraph(model, threads=1).taps
    early = taps[1]
    more, _ = tapped(model, {})
    value = next(v for node in more.graph for v in node.outputs if v.name == early.node)
    more.graph.outputs.append(value)
    pieces = cut(more.graph, {tap.node for tap in taps}, 3)
    assert [early.node in piece.outputs for piece in pieces].index(True) == 0
    assert all(early.node not in piece.outputs for piece in pieces[1:])
