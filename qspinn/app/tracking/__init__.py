"""Weights & Biases: runs that are logged there, and read from there."""
