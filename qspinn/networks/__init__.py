"""Float spiking networks on SpikingJelly."""

from qspinn.networks.conv_snn import ConvBlock, ConvSNN, LinearBlock
from qspinn.networks.neuron_settings import NeuronSettings

__all__ = ["ConvBlock", "ConvSNN", "LinearBlock", "NeuronSettings"]
