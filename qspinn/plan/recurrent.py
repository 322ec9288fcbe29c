"""The states of torch's own recurrent layers, which its kernels keep to themselves."""

from __future__ import annotations

from torch import nn

from qspinn.plan.inventory import Shapes


def recurrent_states(module: nn.Module) -> Shapes:
    """Names and shapes, without a batch dimension, of what a recurrent layer of torch keeps.

    Args:
        module: Any module; empty for all but ``nn.RNN``, ``nn.GRU`` and ``nn.LSTM``.
    """
    if not isinstance(module, nn.RNNBase):
        return {}
    layers = module.num_layers * (2 if module.bidirectional else 1)
    hidden = module.proj_size or module.hidden_size
    shapes: Shapes = {"h": (layers, hidden)}
    if isinstance(module, nn.LSTM):
        shapes["c"] = (layers, module.hidden_size)
    return shapes
