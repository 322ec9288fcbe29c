"""Float spiking networks on SpikingJelly."""

from qspinn.networks.any_spiking_jelly import AnySpikingJelly
from qspinn.networks.blocks import ConvBlock, LinearBlock
from qspinn.networks.conv_snn import ConvSNN
from qspinn.networks.decolle import Decolle, DecolleLayer, DecolleSettings, LayerShape, LayerStep
from qspinn.networks.diehl_cook import STDP, DiehlCook, DiehlCookSettings, Presentation
from qspinn.networks.neuron_settings import NeuronSettings
from qspinn.networks.readouts import (
    READOUTS,
    MaximumResponse,
    Proportion,
    Readout,
    Readouts,
    Ridge,
)

__all__ = [
    "READOUTS",
    "STDP",
    "AnySpikingJelly",
    "ConvBlock",
    "ConvSNN",
    "Decolle",
    "DecolleLayer",
    "DecolleSettings",
    "DiehlCook",
    "DiehlCookSettings",
    "LayerShape",
    "LayerStep",
    "LinearBlock",
    "MaximumResponse",
    "NeuronSettings",
    "Presentation",
    "Proportion",
    "Readout",
    "Readouts",
    "Ridge",
]
