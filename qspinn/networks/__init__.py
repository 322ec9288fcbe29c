"""Float spiking networks on SpikingJelly."""

from qspinn.networks.conv_snn import ConvBlock, ConvSNN, LinearBlock
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
    "ConvBlock",
    "ConvSNN",
    "LinearBlock",
    "MaximumResponse",
    "NeuronSettings",
    "Proportion",
    "Readout",
    "Readouts",
    "Ridge",
]
