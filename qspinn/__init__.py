"""qspinn: fixed-point quantisation of spiking neural networks.

Every parameter of a spiking network (weights, biases, membrane potentials, thresholds, decays)
gets a fixed-point format of its own; the network is quantised after training or learns while it
computes with quantised values; the memory and the accuracy of each variant are measured, and the
best trade-off is selected.

In a Lightning project of your own, start with :mod:`qspinn.callbacks`.
"""

__version__ = "0.1.0"
