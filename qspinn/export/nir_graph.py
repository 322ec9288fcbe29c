"""The nodes of a NIR graph in the order in which they are computed, without nesting."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

import nir

from qspinn.export.nir_file import MAX_DEPTH, NirError, refusal

SYNAPSES = (nir.Affine, nir.Linear, nir.Conv1d, nir.Conv2d)
SPIKING = (nir.IF, nir.LIF, nir.CubaLIF, nir.Threshold)

Nodes = dict[str, nir.NIRNode]
Edges = list[tuple[str, str]]


@dataclass(frozen=True)
class Step:
    """One node, and what it reads.

    Attributes:
        name: The node's name; names of nodes in a subgraph begin with the subgraph's and a dot.
        node: The node.
        sources: The nodes whose outputs are summed into its input; empty for the graph's input.
        feedback: The synapse node through which a neuron feeds back to itself, and its name.
    """

    name: str
    node: nir.NIRNode
    sources: tuple[str, ...]
    feedback: tuple[str, nir.NIRNode] | None = None


def ordered_steps(graph: nir.NIRGraph) -> list[Step]:
    """The nodes of a graph, sources before targets.

    Subgraphs are put in their places. A synapse node that reads one neuron and feeds the same
    neuron, and nothing else, is that neuron's feedback.

    Raises:
        NirError: The graph has another cycle, a node without input or output, or more than one
            input or output.
    """
    nodes, edges, entry, leaving = _flattened(graph, "", 0)
    feedback = _feedback(nodes, edges)
    inner = set(feedback.values())
    edges = [(a, b) for a, b in edges if a not in inner and b not in inner]
    sources: dict[str, list[str]] = {name: [] for name in nodes if name not in inner}
    for source, target in edges:
        sources[target].append(source)
    fed, feeding = {b for _, b in edges}, {a for a, _ in edges}
    for name in sources:
        if name not in fed and name != entry:
            raise refusal(name, nodes[name], "no edge leads to it")
        if name not in feeding and name != leaving:
            raise refusal(name, nodes[name], "no edge leads from it")
    if entry in fed or leaving in feeding:
        raise NirError("the graph: an edge leads to its Input, or from its Output")
    try:
        order = list(TopologicalSorter(sources).static_order())
    except CycleError as error:
        cycle = " -> ".join(error.args[1])
        raise NirError(
            f"the edges {cycle} form a cycle; a cycle is supported only from an IF or LIF node "
            "through one Affine, Linear or convolution node back to the same neurons"
        ) from None
    return [
        Step(
            name,
            nodes[name],
            tuple(sources[name]),
            (feedback[name], nodes[feedback[name]]) if name in feedback else None,
        )
        for name in order
    ]


def _feedback(nodes: Nodes, edges: Edges) -> dict[str, str]:
    """Neuron -> the synapse node through which it feeds back to itself."""
    before: dict[str, list[str]] = {name: [] for name in nodes}
    after: dict[str, list[str]] = {name: [] for name in nodes}
    for source, target in edges:
        before[target].append(source)
        after[source].append(target)
    found: dict[str, str] = {}
    for name, node in nodes.items():
        alone = len(before[name]) == 1 and before[name] == after[name]
        if alone and isinstance(node, SYNAPSES):
            neuron = before[name][0]
            if neuron in found:
                raise refusal(neuron, nodes[neuron], "feeds back to itself through several nodes")
            if not isinstance(nodes[neuron], nir.IF | nir.LIF):
                raise refusal(
                    neuron, nodes[neuron], "feeds back to itself, which only IF and LIF nodes can"
                )
            found[neuron] = name
    return found


def _flattened(graph: nir.NIRGraph, prefix: str, depth: int) -> tuple[Nodes, Edges, str, str]:
    """Nodes and edges by full names, and the names of the input and of the output."""
    where = f"subgraph {prefix[:-1]!r}" if prefix else "the graph"
    if depth > MAX_DEPTH:
        raise NirError(f"{where}: graphs are nested more than {MAX_DEPTH} deep")
    _check_edges(graph, where)
    nodes: Nodes = {}
    entries: dict[str, str] = {}
    exits: dict[str, str] = {}
    edges: Edges = []
    for name, node in graph.nodes.items():
        full = f"{prefix}{name}"
        inside, entry, leaving = {full: node}, full, full
        if isinstance(node, nir.NIRGraph):
            inside, links, entry, leaving = _flattened(node, f"{full}.", depth + 1)
            edges += links
        if not nodes.keys().isdisjoint(inside):
            raise refusal(full, node, "two nodes have this name once subgraphs are put in place")
        nodes |= inside
        entries[name], exits[name] = entry, leaving
    edges += [(exits[a], entries[b]) for a, b in graph.edges]
    ends = [
        [entries[name] for name, node in graph.nodes.items() if isinstance(node, kind)]
        for kind in (nir.Input, nir.Output)
    ]
    if [len(end) for end in ends] != [1, 1]:
        raise NirError(
            f"{where}: has {len(ends[0])} Input and {len(ends[1])} Output nodes; one of each is "
            "supported"
        )
    return nodes, edges, ends[0][0], ends[1][0]


def _check_edges(graph: nir.NIRGraph, where: str) -> None:
    if not isinstance(graph.nodes, dict) or not all(isinstance(one, str) for one in graph.nodes):
        raise NirError(f"{where}: its nodes are not named")
    for edge, count in Counter((a, b) for a, b in graph.edges).items():
        for end in edge:
            if end not in graph.nodes:
                raise NirError(f"{where}: the edge {edge} names {end!r}, which is no node")
        if count > 1:
            raise NirError(f"{where}: the edge {edge} is there {count} times")
