"""The repair of a neuron layer: its threshold."""

from __future__ import annotations

import torch

from qspinn.plan import LayerInfo
from qspinn.plan.neuron_constants import has_threshold
from qspinn.quantizers.class_swap import attached_quantizer
from qspinn.quantizers.repair.candidates import threshold_values
from qspinn.quantizers.repair.responses import difference, responses
from qspinn.quantizers.repair.state import Repairing


def repair_threshold(work: Repairing, neuron: LayerInfo) -> None:
    """Moves the thresholds of a layer to those with which it answers as in the float network.

    Args:
        work: The network.
        neuron: A neuron layer.
    """
    node, tensors = work.layer(neuron.path), work.tensors(neuron.path)
    threshold, membrane = tensors.get("v_threshold"), tensors.get("v")
    if threshold is None or not has_threshold(node):
        return
    with work.quantised():
        quantizer = attached_quantizer(node)
        held = torch.as_tensor(quantizer.threshold_of(node)).detach().double()
        rest = quantizer.reset_of(node) or 0.0
    fmt = None if membrane is None else membrane.format
    values, finer = threshold_values(held, rest, threshold, fmt)
    errors = torch.zeros_like(values)
    for answer in work.answers(neuron.path):
        if answer is None:
            work.leave(neuron.path, "is not called step by step: its threshold is left as it is")
            return
        wanted, run = answer
        with work.quantised():
            currents = work.currents(neuron.path, run)
            quantizer = attached_quantizer(node).threshold
            for place, value in enumerate(values):
                quantizer.repaired = value
                sent = responses(node, currents)
                errors[place] += difference(sent, wanted, held.shape)
    best = errors.argmin(0, keepdim=True)
    work.plan = work.plan.with_formats({threshold.path: finer})
    work.values[threshold.path] = values.gather(0, best)[0]
