"""LightningModules that train a spiking network."""

from qspinn.learning.local import LocalLearning, local_loss
from qspinn.learning.supervised import SupervisedLearning, rate_loss
from qspinn.learning.unsupervised import UnsupervisedLearning

__all__ = [
    "LocalLearning",
    "SupervisedLearning",
    "UnsupervisedLearning",
    "local_loss",
    "rate_loss",
]
