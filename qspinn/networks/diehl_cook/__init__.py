"""The network of Diehl and Cook: STDP without labels, in float and in fixed point."""

from qspinn.networks.diehl_cook.network import DiehlCook
from qspinn.stdp.job import Presentation
from qspinn.stdp.settings import STDP, DiehlCookSettings

__all__ = ["STDP", "DiehlCook", "DiehlCookSettings", "Presentation"]
