"""Networks of other people as NIR files, where their data lies beside the repository."""

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import functional, neuron

from qspinn.data.atis import read_atis
from qspinn.data.events import integrate
from qspinn.export.nir_reading import network_from_nir
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import plan_of, quantize_module

STEPS = 310
FIRST = slice(0, 450)
"""Before the first spike."""
LEAK_TO_GAIN = 0.04 / -np.expm1(-0.04)
"""The unit of a potential that leaks by one factor and is charged by another."""


def folder(shared_data, *names):
    for name in names:
        if not (shared_data / name).is_dir():
            pytest.skip(f"no folder {name} in {shared_data}")
    return shared_data


class TestOneNeuron:
    """The NIR paper's neuron: tau 2.5 ms, threshold 0.1, dt 0.1 ms, in ten simulators."""

    @pytest.fixture
    def traces(self, shared_data):
        return folder(shared_data, "strangers/lif_traces") / "strangers" / "lif_traces"

    @pytest.fixture
    def potentials(self, traces):
        given = np.loadtxt(traces / "lif_exact.csv", delimiter=",")[:, 0]

        def run(method, **simulation):
            graph = traces / "lif_norse.nir"
            network = network_from_nir(graph, dt=1e-4, method=method, **simulation)
            node = next(one for one in network.modules() if isinstance(one, neuron.LIFNode))
            node.store_v_seq = True
            with torch.no_grad():
                spikes = network(torch.from_numpy(given).float()[:, None, None])
            return np.flatnonzero(spikes), node.v_seq.flatten().numpy()

        return run

    @pytest.mark.parametrize(
        ("simulator", "method", "reset", "unit", "tolerance"),
        [
            ("norse", "euler", "zero", 1, 1e-7),
            ("snntorch", "euler", "zero", 25, 1e-7),
            ("spinnaker2", "euler", "zero", 24.9951, 1e-6),
            ("nengo", "exact", "zero", 10, 1e-7),
            ("sinabs", "exponential_leak", "subtract", LEAK_TO_GAIN, 1e-7),
            ("rockpool", "exponential_leak", "subtract", LEAK_TO_GAIN, 1e-7),
        ],
    )
    @pytest.mark.parametrize("comparison", [">=", ">"])
    def test_spikes_and_potentials(
        self, traces, potentials, simulator, method, reset, unit, tolerance, comparison
    ):
        _, v, spikes = np.loadtxt(traces / f"lif_{simulator}.csv", delimiter=",").T
        found, potential = potentials(method, reset=reset, comparison=comparison)
        assert np.array_equal(found, np.flatnonzero(spikes))
        np.testing.assert_allclose(potential, v / unit, atol=tolerance)

    def test_the_exact_solution(self, traces, potentials):
        """It resets within a step, and so later potentials differ."""
        _, v, spikes = np.loadtxt(traces / "lif_exact.csv", delimiter=",").T
        found, potential = potentials("exact")
        assert np.array_equal(found, np.flatnonzero(spikes))
        np.testing.assert_allclose(potential[FIRST], v[FIRST], atol=1e-7)

    @pytest.mark.parametrize(("simulator", "later"), [("lava_cpu_float", 1), ("spyx", 0)])
    def test_those_that_spike_a_step_later(self, traces, potentials, simulator, later):
        _, v, spikes = np.loadtxt(traces / f"lif_{simulator}.csv", delimiter=",").T
        found, potential = potentials("euler")
        assert np.array_equal(found + 1, np.flatnonzero(spikes))
        np.testing.assert_allclose(potential[FIRST], v[later:][FIRST], atol=1e-7)


@pytest.fixture(scope="module")
def root(shared_data):
    return folder(shared_data, "strangers/nmnist_cnn_nir", "N-MNIST-small")


@pytest.fixture(scope="module")
def recordings(root):
    """Frames of 1 ms ``[T, N, 2, 34, 34]``, and labels, of every so many recordings."""

    def read(part, every):
        files = sorted((root / "N-MNIST-small" / part).glob("[0-9]/*.bin"))[::every]
        frames = [integrate(read_atis(file), STEPS, "time", 0, 1000 * STEPS) for file in files]
        labels = torch.tensor([int(file.parent.name) for file in files])
        return torch.from_numpy(np.stack(frames, 1)).float(), labels

    return read


@pytest.fixture(scope="module")
def digits(recordings):
    return recordings("Test", 1)


def accuracy(network, part):
    frames, labels = part
    right = 0
    for some, answers in zip(frames.split(20, 1), labels.split(20), strict=True):
        functional.reset_net(network)
        with torch.no_grad():
            right += int((network(some).sum(0).argmax(-1) == answers).sum())
    return 100 * right / len(labels)


@pytest.mark.slow
class TestDigits:
    """The NIR paper's convolutional network, 98.5% in its authors' simulator."""

    @pytest.mark.parametrize(("reset", "expected"), [("zero", 100.0), ("subtract", 98.0)])
    def test_its_accuracy(self, root, digits, reset, expected):
        graph = root / "strangers" / "nmnist_cnn_nir" / "cnn_sinabs.nir"
        assert accuracy(network_from_nir(graph, reset=reset), digits) == expected

    @pytest.mark.parametrize(("bits", "at_least"), [(8, 98.0), (4, 92.0)])
    def test_quantised_after_training(self, root, recordings, digits, bits, at_least):
        graph = root / "strangers" / "nmnist_cnn_nir" / "cnn_sinabs.nir"
        plan = QuantizationPlan.uniform(bits, roles={"membrane": {"calibration": "spikes"}})
        calibration, _ = recordings("Train", 31)
        quantized = quantize_module(network_from_nir(graph), plan, calibration)
        assert "100% of the parameters, 100% of the states" in str(plan_of(quantized).summary())
        assert accuracy(quantized, digits) >= at_least
