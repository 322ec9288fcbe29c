"""SpikingJelly's model zoo, every builder of it, narrow enough for a processor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
from spikingjelly.activation_based import layer, neuron, surrogate
from spikingjelly.activation_based.model import (
    masnn,
    maxformer,
    ms_resnet,
    parametric_lif_net,
    qkformer,
    sew_resnet,
    snas_net,
    spike_dhs,
    spike_driven_transformer,
    spikformer,
    spiking_resnet,
    spiking_vgg,
    spiking_vggws_ottt,
)
from torch import nn

from tests.quantizers.zoo_variant import STEPS, OnlyScores, OverTime, Variant

CLASSES = 10

LIF: dict[str, Any] = {
    "spiking_neuron": neuron.LIFNode,
    "detach_reset": True,
    "surrogate_function": surrogate.ATan(),
}
IF: dict[str, Any] = {**LIF, "spiking_neuron": neuron.IFNode, "v_reset": None}
PLIF: dict[str, Any] = {**LIF, "spiking_neuron": neuron.ParametricLIFNode}
LOW: dict[str, Any] = {"tau": 1.25, "decay_input": False, "v_threshold": 0.25}
"""For networks without norms, whose currents become small."""


def _resnets(module: Any, prefix: str, settings: list[dict[str, Any]]) -> Iterator[Variant]:
    names = [f"{prefix}resnet{depth}" for depth in (18, 34, 50, 101, 152)]
    names += [f"{prefix}resnext50_32x4d", f"{prefix}resnext101_32x8d"]
    names += [f"{prefix}wide_resnet50_2", f"{prefix}wide_resnet101_2"]
    for index, name in enumerate(names):
        builder, given = getattr(module, name), settings[index % len(settings)]
        deep = "101" in name or "152" in name
        yield Variant(name, _call(builder, num_classes=CLASSES, **given), batch=1 if deep else 2)


def _call(builder: Callable[..., nn.Module], **settings: Any) -> Callable[[], nn.Module]:
    return lambda: builder(**settings)


def _vggs() -> Iterator[Variant]:
    for depth, given in ((11, IF), (13, LIF), (16, PLIF), (19, LIF)):
        plain = getattr(spiking_vgg, f"spiking_vgg{depth}")
        small = {**LOW} if given is not IF else {"v_threshold": 0.25}
        yield Variant(plain.__name__, _call(plain, num_classes=CLASSES, **_tau(given, small)))
        normed = getattr(spiking_vgg, f"spiking_vgg{depth}_bn")
        yield Variant(normed.__name__, _call(normed, num_classes=CLASSES, **given))


def _tau(given: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = {**given, **changes}
    if given["spiking_neuron"] is neuron.ParametricLIFNode:
        merged["init_tau"] = merged.pop("tau")
    return merged


def _online() -> Iterator[Variant]:
    names = [f"ottt_spiking_vgg{depth}{ws}" for depth in (11, 13, 16, 19) for ws in ("", "_ws")]
    for name in (*names, "ottt_spiking_vggws"):
        builder = getattr(spiking_vggws_ottt, name)
        yield Variant(
            name,
            lambda builder=builder: OverTime(builder(num_classes=CLASSES, v_threshold=0.25)),
        )


def _parametric() -> Iterator[Variant]:
    shapes = {
        "MNISTNet": (1, 28, 28),
        "FashionMNISTNet": (1, 28, 28),
        "NMNISTNet": (2, 34, 34),
        "CIFAR10Net": (3, 32, 32),
        "CIFAR10DVSNet": (2, 128, 128),
        "DVSGestureNet": (2, 128, 128),
    }
    for name, shape in shapes.items():
        channels = 16 if shape[-1] == 128 else 32
        build = _call(getattr(parametric_lif_net, name), channels=channels, **PLIF)
        large = shape[-1] == 128
        spikes = shape[0] == 2
        yield Variant(
            name, build, shape, binary=spikes, batch=1 if large else 2, divisor=8 if large else 16
        )


def _snas(cell: str) -> nn.Module:
    args = SimpleNamespace(
        timestep=STEPS,
        second_avgpooling=8,
        dataset="cifar10",
        celltype=cell,
        threshold=1.0,
        tau=4 / 3,
    )
    connections = np.array([[0, 3, 4, 2], [3, 0, 1, 3], [2, 4, 0, 2], [4, 3, 2, 0]])
    return snas_net.SNASNet(args, connections)


def _dhs() -> nn.Module:
    args = SimpleNamespace(
        fea_step=3, fea_num_layers=8, fea_block_multiplier=3, fea_filter_multiplier=48
    )
    net = spike_dhs.SpikeDHS(3, args)
    net._time_step = STEPS
    return OnlyScores(net)


def _transformers() -> Iterator[Variant]:
    settings: dict[str, Any] = {"T": STEPS, "num_classes": CLASSES}
    for name in ("spikformer_ti", "spikformer_s"):
        build = _call(getattr(spikformer, name), img_size_h=32, img_size_w=32, **settings)
        yield Variant(name, build, static=True)
    yield Variant("spikformer_cifar10", _call(spikformer.spikformer_cifar10, **settings))
    yield Variant("qkformer_10_384", _call(qkformer.qkformer_10_384, **settings), static=True)
    yield Variant("maxformer_10_384", _call(maxformer.maxformer_10_384, **settings), static=True)
    yield Variant("maxformer_cifar", _call(maxformer.maxformer_cifar, **settings))
    yield Variant("sdt_8_384", lambda: _spike_driven(settings), static=True)


def _spike_driven(settings: dict[str, Any]) -> nn.Module:
    net = spike_driven_transformer.sdt_8_384(**settings)
    for child in net.modules():
        if isinstance(child, layer.SpikeDrivenSelfAttention):
            child.head_dim = child.q_conv.out_channels // child.num_heads
    return net


def _others() -> Iterator[Variant]:
    settings: dict[str, Any] = {"T": STEPS, "num_classes": CLASSES}
    for name in ("ms_resnet18", "ms_resnet34", "max_resnet18"):
        yield Variant(name, _call(getattr(ms_resnet, name), **settings), static=True)
    # Its head is made from the width of another, and would become narrower twice.
    attentive = _call(masnn.att_ms_resnet18, **settings)
    yield Variant("att_ms_resnet18", attentive, static=True, divisor=32)
    gesture = _call(masnn.masnn_dvs128_gesture, T=5, num_classes=11, input_size=(16, 16))
    yield Variant("masnn_dvs128_gesture", gesture, (2, 16, 16), static=True, binary=True)
    for cell in ("forward", "backward"):
        yield Variant(f"SNASNet_{cell}", lambda cell=cell: _snas(cell), static=True)
    yield Variant("SpikeDHS", _dhs, static=True)


# A chain of ANDs falls silent, so only the shallowest has it.
SEW = [{**LIF, "cnf": "AND"}, {**IF, "cnf": "ADD"}, {**PLIF, "cnf": "IAND"}]
SEW += [{**LIF, "cnf": "ADD"}, {**IF, "cnf": "IAND"}, {**PLIF, "cnf": "ADD"}]
SEW += [{**LIF, "cnf": "IAND"}, {**PLIF, "cnf": "IAND"}, {**IF, "cnf": "ADD"}]
ZOO: tuple[Variant, ...] = (
    *_resnets(spiking_resnet, "spiking_", [LIF, IF, PLIF]),
    *_resnets(sew_resnet, "sew_", SEW),
    *_vggs(),
    *_online(),
    *_parametric(),
    *_transformers(),
    *_others(),
)
BY_NAME = {variant.name: variant for variant in ZOO}
