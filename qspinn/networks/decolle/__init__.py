"""Deep continuous local learning (DECOLLE)."""

from qspinn.networks.decolle.layer import DecolleLayer, LayerStep
from qspinn.networks.decolle.network import Decolle
from qspinn.networks.decolle.settings import DecolleSettings, LayerShape

__all__ = ["Decolle", "DecolleLayer", "DecolleSettings", "LayerShape", "LayerStep"]
