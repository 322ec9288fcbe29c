"""Synaptic operations counted one by one: every output, every tap of its kernel, every channel."""

import itertools

import numpy as np


def _real(place, size, mode):
    """The input that a padded place repeats; None for a zero."""
    if 0 <= place < size:
        return place
    if mode == "zeros":
        return None
    if mode == "replicate":
        return 0 if place < 0 else size - 1
    if mode == "circular":
        return place + size if place < 0 else place - size
    return -place if place < 0 else 2 * (size - 1) - place  # reflect


def convolution(spikes, kernel, stride, before, dilation, out, outputs, groups, mode="zeros"):
    """Operations of spikes ``[C, *spatial]``; `before`: padding in front of each axis."""
    channels, *sizes = spikes.shape
    total = 0
    for place in itertools.product(*map(range, out)):
        for tap in itertools.product(*map(range, kernel)):
            met = [
                _real(p * s + t * d - b, size, mode)
                for p, s, t, d, b, size in zip(
                    place, stride, tap, dilation, before, sizes, strict=True
                )
            ]
            if None in met:
                continue
            for channel in range(channels):
                if spikes[(channel, *met)]:
                    total += outputs // groups
    return total


def transposed(spikes, kernel, stride, padding, dilation, out, outputs, groups):
    """The same where each input is added to outputs, instead of outputs taking inputs."""
    channels, *sizes = spikes.shape
    total = 0
    for channel in range(channels):
        for place in itertools.product(*map(range, sizes)):
            if not spikes[(channel, *place)]:
                continue
            for tap in itertools.product(*map(range, kernel)):
                met = [
                    p * s + t * d - b
                    for p, s, t, d, b in zip(place, stride, tap, dilation, padding, strict=True)
                ]
                if all(0 <= m < o for m, o in zip(met, out, strict=True)):
                    total += outputs // groups
    return total


def linear(spikes, outputs):
    """Operations of spikes ``[*, inputs]``."""
    return sum(outputs for spike in np.ravel(spikes) if spike)
