"""Effective operations of layers, against a loop over outputs, taps and spikes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import layer as spiking_layer
from spikingjelly.activation_based.op_counter import DispatchCounterMode, SynOpCounter
from torch import nn

from qspinn.plan.fan_out import effective_operations
from tests.reference import synaptic_operations as reference

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def spikes_of(shape, seed):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.4


@st.composite
def axes(draw):
    """Kernel, stride, padding and dilation of each axis, and sizes that give an output."""
    found = []
    for _ in range(draw(st.integers(1, 3))):
        kernel, stride = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        padding, dilation = draw(st.integers(0, 2)), draw(st.integers(1, 2))
        least = max(1, dilation * (kernel - 1) + 1 - 2 * padding, padding + 1)
        size = draw(st.integers(least, least + 3))
        found.append((kernel, stride, padding, dilation, size))
    return list(zip(*found, strict=True))


@settings(max_examples=60)
@given(
    axes(),
    st.integers(1, 2),
    st.sampled_from(["zeros", "replicate", "circular", "reflect"]),
    st.integers(0, 99),
)
def test_convolutions(sizes, groups, mode, seed):
    kernel, stride, padding, dilation, size = sizes
    inputs, outputs = 2 * groups, 3 * groups
    made = CONVOLUTIONS[len(size)](
        *(inputs, outputs, kernel, stride, padding, dilation, groups), padding_mode=mode
    )
    spikes = spikes_of((2, inputs, *size), seed)
    output = made(spikes.float())
    expected = sum(
        reference.convolution(
            *(one.numpy(), kernel, stride, padding, dilation, output.shape[2:]),
            *(outputs, groups, mode),
        )
        for one in spikes
    )
    full = reference.convolution(
        *(torch.ones(inputs, *size).numpy(), kernel, stride, padding, dilation),
        *(output.shape[2:], outputs, groups, mode),
    )
    assert effective_operations(made, spikes, output) == (expected, 2 * full)


@settings(max_examples=40)
@given(axes(), st.integers(1, 2), st.booleans(), st.integers(0, 99))
def test_transposed_convolutions(sizes, groups, longer, seed):
    kernel, stride, padding, dilation, size = sizes
    inputs, outputs = 2 * groups, 3 * groups
    more = tuple(max(s, d) - 1 if longer else 0 for s, d in zip(stride, dilation, strict=True))
    made = TRANSPOSED[len(size)](
        *(inputs, outputs, kernel, stride, padding, more, groups), dilation=dilation
    )
    spikes = spikes_of((1, inputs, *size), seed)
    try:
        output = made(spikes.float())
    except RuntimeError:  # nothing is left after the padding
        return
    expected = reference.transposed(
        *(spikes[0].numpy(), kernel, stride, padding, dilation, output.shape[2:]),
        *(outputs, groups),
    )
    assert effective_operations(made, spikes, output)[0] == expected


@pytest.mark.parametrize(("kernel", "before"), [(3, 1), (4, 1), (2, 0)])
def test_padding_that_keeps_the_size(kernel, before):
    made, spikes = nn.Conv1d(1, 2, kernel, padding="same"), spikes_of((1, 1, 7), 3)
    expected = reference.convolution(
        spikes[0].numpy(), (kernel,), (1,), (before,), (1,), (7,), 2, 1
    )
    assert effective_operations(made, spikes, made(spikes.float()))[0] == expected


def test_time_and_tokens_are_as_many_samples():
    made = spiking_layer.Conv2d(1, 2, 3, padding=1, step_mode="m")
    spikes = spikes_of((4, 3, 1, 5, 5), 1)
    one = sum(effective_operations(made, step, step.new_empty(3, 2, 5, 5))[0] for step in spikes)
    assert effective_operations(made, spikes, spikes.new_empty(4, 3, 2, 5, 5))[0] == one
    tokens = spikes_of((4, 3, 6, 5), 2)
    assert effective_operations(nn.Linear(5, 7), tokens, tokens) == (
        reference.linear(tokens.numpy(), 7),
        4 * 3 * 6 * 5 * 7,
    )


@pytest.mark.parametrize(
    "made",
    [
        nn.Linear(6, 5),
        nn.Conv2d(6, 4, 3, stride=2, padding=1, groups=2),
        nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1),
    ],
)
def test_spikingjelly_counts_the_same(made):
    spikes = spikes_of((3, 6) if isinstance(made, nn.Linear) else (3, 6, 7, 7), 5)
    counter = SynOpCounter()
    with DispatchCounterMode([counter]):
        output = made(spikes.float())
    assert effective_operations(made, spikes, output)[0] == counter.get_total()
