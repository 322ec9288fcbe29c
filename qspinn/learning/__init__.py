"""LightningModules that train a spiking network."""

from qspinn.learning.supervised import SupervisedLearning, rate_loss
from qspinn.learning.unsupervised import UnsupervisedLearning

__all__ = ["SupervisedLearning", "UnsupervisedLearning", "rate_loss"]
