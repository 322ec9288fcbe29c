"""Lightning callbacks that quantise any spiking network."""

from qspinn.callbacks.in_training import InTrainingQuantization
from qspinn.callbacks.measuring import MeasuresWork
from qspinn.callbacks.post_training import PostTrainingQuantization
from qspinn.callbacks.pruning import Pruning, optuna_judge
from qspinn.callbacks.random_state import RandomState
from qspinn.callbacks.reset_states import ResetStates

__all__ = [
    "InTrainingQuantization",
    "MeasuresWork",
    "PostTrainingQuantization",
    "Pruning",
    "RandomState",
    "ResetStates",
    "optuna_judge",
]
