"""LightningModules that train a spiking network."""

from qspinn.learning.supervised import SupervisedLearning, rate_loss

__all__ = ["SupervisedLearning", "rate_loss"]
