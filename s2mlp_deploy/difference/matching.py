"""Nodes of two graphs that stand in the same place, module by module."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from s2mlp_deploy.difference.align import Pairs, align, gaps
from s2mlp_deploy.difference.reading import Graph, Node, root_of
from s2mlp_deploy.graph.operators import DATA_MOVEMENT_OPS, MATRIX_OPS

_FAMILIES = {
    **dict.fromkeys(
        (*MATRIX_OPS, "QLinearMatMul", "QLinearConv", "MatMulInteger", "ConvInteger", "FusedMatMul"), "GEMM"
    ),
    **dict.fromkeys(("LayerNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization"), "norm"),
}
"""Operators that take one another's place when a graph is written again."""

_STORING = frozenset({"Cast", "QuantizeLinear", "DequantizeLinear"})

Matches = list[tuple[Node, Node]]


def _named(node: Node) -> Hashable:
    return (node.op, node.node.name or node)


def _family(node: Node) -> Hashable:
    return _FAMILIES.get(node.op, node.op)


def _sort(node: Node) -> Hashable:
    """Storing, moving or computing, and with which weights."""
    return (node.op in _STORING, node.op in DATA_MOVEMENT_OPS, node.weights)


# The strictest first: names are numbered in the order of a graph, so that one node more gives those behind it the names
# of others. What a node computes is a better key than what it is called.
_KEYS: tuple[Callable[[Node], Hashable], ...] = (lambda node: node.what, _named, lambda node: node.op, _family)


def match_nodes(a: Sequence[Node], b: Sequence[Node]) -> Matches:
    """Aligns the nodes of a module in two graphs.

    First nodes that compute the same, then between these such of the same name, of the same operator, of the same
    family of operators, and one that stands alone where another does. Branches that stand in another order are found by
    what they compute.

    Args:
        a: In the order of the older graph.
        b: In the order of the newer one.
    """
    pairs: Pairs = []
    for key in _KEYS:
        keys_a, keys_b = [key(node) for node in a], [key(node) for node in b]
        for a0, a1, b0, b1 in list(gaps(pairs, len(a), len(b))):
            pairs += [(a0 + i, b0 + j) for i, j in align(keys_a[a0:a1], keys_b[b0:b1])]
        pairs.sort()
    # One node where another stood is that one changed, Elu for Relu, where both do a thing of the same sort.
    pairs += [
        (a0, b0)
        for a0, a1, b0, b1 in gaps(pairs, len(a), len(b))
        if a1 - a0 == b1 - b0 == 1 and _sort(a[a0]) == _sort(b[b0])
    ]
    left_a = sorted(set(range(len(a))) - {i for i, _ in pairs})
    waiting: dict[Hashable, list[int]] = {}
    for j in sorted(set(range(len(b))) - {j for _, j in pairs}, reverse=True):
        waiting.setdefault(b[j].what, []).append(j)
    for i in left_a:
        if same := waiting.get(a[i].what):
            pairs.append((i, same.pop()))
    return [(a[i], b[j]) for i, j in sorted(pairs)]


def lay_out_alike(a: Graph, b: Graph) -> tuple[str, ...]:
    """Makes the modules of two graphs comparable: the paths of the older one are changed in place.

    Where one lies a level deeper, in a wrapper, that is taken away. Where only one graph tells modules apart, the nodes
    of the other get the module of the node that they align with.

    Returns:
        What was taken for granted, in words.
    """
    if a.names_modules != b.names_modules:
        known, plain, side = (a, b, "newer") if a.names_modules else (b, a, "older")
        _borrow(known, plain)
        return (f"the {side} file names no modules: its nodes are laid out by the nodes they align with in the other",)
    if not a.names_modules:
        for graph in (a, b):
            graph.join(_in_order(graph))
        return ()
    notes = []
    root_a, root_b = root_of(list(a.nodes)), root_of(list(b.nodes))
    if root_a != root_b:
        bare = {path: _below(path, root_a) for path in {*a.nodes, *a.bytes}}
        there = {_below(path, root_b): path for path in {*b.nodes, *b.bytes}}
        names = {path: there.get(short, path) for path, short in bare.items()}
        gained = sum(path in b.nodes for path in names.values()) - sum(path in b.nodes for path in a.nodes)
        if gained > 0 and len(set(names.values())) == len(names):
            a.rename(names)
            notes.append(
                f"the older file's modules lie in {root_a or 'the network'}, the newer's in {root_b or 'the network'}: "
                "they are compared without"
            )
    return tuple(notes)


def _below(path: str, root: str) -> str:
    return path.removeprefix(f"{root}.") if root and path != root else path


def _borrow(known: Graph, plain: Graph) -> None:
    """Gives the nodes of a graph without modules those of the graph with modules."""
    order = _in_order(plain)
    partners = {id(mine): other for other, mine in match_nodes(_in_order(known), order)}
    # What has no partner belongs to the module of what stands before it.
    module = next((partners[id(node)].module for node in order if id(node) in partners), "")
    nodes: dict[str, list[Node]] = {}
    of: dict[object, str] = {}
    for node in order:
        if id(node) in partners:
            module = partners[id(node)].module
        node.module = of[node.node] = module
        nodes.setdefault(module, []).append(node)
    plain.nodes = nodes
    sizes: dict[str, dict[str, int]] = {}
    for weight in plain.weights:
        weight.module = of.get(weight.readers[0][0], weight.module)
        tensor, kinds = weight.constant.stored, sizes.setdefault(weight.module, {})
        kinds[tensor.dtype.name.lower()] = kinds.get(tensor.dtype.name.lower(), 0) + tensor.nbytes
    plain.bytes = sizes


def _in_order(graph: Graph) -> list[Node]:
    """All nodes as they stand in the file."""
    place = {node: index for index, node in enumerate(graph.model.graph.all_nodes())}
    nodes = [node for inside in graph.nodes.values() for node in inside]
    return sorted(nodes, key=lambda node: place.get(node.node, len(place)))
