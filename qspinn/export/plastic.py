"""Kinds of operations of networks that learn without gradients through time.

Neurons with adaptive thresholds that inhibit each other, inputs as random spikes, traces, and
readouts of labelled neurons. What neurons without a memory of their own compute (a current less
a refractory trace, rounded, compared with a threshold) is said by an `Arithmetic`, a `Round` and a
`Compare`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qspinn.fixed_point import FixedPointFormat

__all__ = ["AdaptiveNeuron", "Compare", "LabelSums", "RandomSpikes", "Total", "Trace"]


@dataclass(frozen=True)
class Trace:
    """A trace of each number of the operand: ``x (1 - leak) + operand gain``, rounded once.

    Attributes:
        state: Format of the trace, which begins at 0 and is the output.
        leak: Name of its leak.
        gain: Name of what a 1 of the operand adds; None: the leak, so that it follows the operand.
        rounding: Of the trace.
        overflow: Of the trace.
    """

    state: FixedPointFormat
    leak: str
    gain: str | None = None
    rounding: str = "nearest"
    overflow: str = "saturate"

    @property
    def state_word_length(self) -> int:
        """Bits of state of each output."""
        return self.state.word_length


@dataclass(frozen=True)
class Compare:
    """1 where the operand is at least a threshold, else 0.

    Attributes:
        threshold: Name of the threshold, one for all.
    """

    threshold: str
    state_word_length: ClassVar[int] = 0


@dataclass(frozen=True)
class AdaptiveNeuron:
    """Neurons, each with a threshold of its own, of which a spike inhibits all others.

    ``v <- v (1 - leak) + current - inhibition spikes of the others``, rounded once; without what is
    added while the neuron is refractory. It fires at ``threshold + theta``, and is reset. The
    second operand, if any, is the random spikes from whose key of the presentation it draws; it
    needs one where it rounds stochastically, and where only one neuron spikes.

    Attributes:
        state: Format of the potential above rest, which begins at 0.
        theta: Name of the thetas ``[neurons]``.
        threshold: Name of the threshold above rest.
        reset: Name of the potential after a spike, above rest.
        leak: Name of the leak.
        inhibition: Name of what a spike lowers the potential of every other neuron by.
        rounding: Of the potential.
        overflow: Of the potential.
        refractory: Steps after a spike in which a neuron takes no input.
        delay: Steps until a spike inhibits, 1 or more.
        one_winner: Whether only one neuron spikes in a step, drawn from those at their threshold;
            the others are reset all the same.
        draws: Numbers of the streams of a presentation that roundings and winners draw from.
    """

    state: FixedPointFormat
    theta: str
    threshold: str
    reset: str
    leak: str
    inhibition: str
    rounding: str = "nearest"
    overflow: str = "saturate"
    refractory: int = 0
    delay: int = 1
    one_winner: bool = False
    draws: tuple[int, int] = (0, 0)

    @property
    def state_word_length(self) -> int:
        """Bits of state of each neuron: potential, refractory counter, spikes on their way."""
        return self.state.word_length + self.refractory.bit_length() + self.delay


@dataclass(frozen=True)
class RandomSpikes:
    """Spikes of each number of the operand, with a probability in proportion to it.

    The probability is the product of a code and the multiplier, shifted down to units of 2^-16 and
    rounded to nearest. What is drawn depends on the probabilities of the presentation and on the
    number of steps, see :mod:`qspinn.steps.random_spikes`.

    Attributes:
        multiplier: See above.
        down: See above.
        key: Of all presentations, 64 bits as an int64.
        draws: Number of the stream of a presentation that spikes are drawn from.
    """

    multiplier: int
    down: int
    key: int
    draws: int = 0
    state_word_length: ClassVar[int] = 0


@dataclass(frozen=True)
class Total:
    """The sum of the operand over the time steps so far.

    Attributes:
        state_word_length: Bits of state of each output that the footprint counts.
        first: The first step that counts.
    """

    state_word_length: int
    first: int = 0


@dataclass(frozen=True)
class LabelSums:
    """Sums of the operand by the label of each number: an output for each class.

    Attributes:
        labels: Name of the labels, the number of classes for none.
    """

    labels: str
    state_word_length: ClassVar[int] = 0
