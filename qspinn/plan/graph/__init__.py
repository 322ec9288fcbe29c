"""The graph of a network: its operations in order, found by running it once."""

from qspinn.plan.graph.graph import (
    Graph,
    Operand,
    Operation,
    Readout,
    UnknownGraphError,
    Window,
)
from qspinn.plan.graph.rolling import graph_of

__all__ = ["Graph", "Operand", "Operation", "Readout", "UnknownGraphError", "Window", "graph_of"]
