"""Whole sequences of a quantised neuron in one pass over memory, forward and backward."""
