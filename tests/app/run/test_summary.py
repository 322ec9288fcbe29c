"""What train.py says of what is quantised, counted here by hand."""

import csv

import pytest
import torch
from torch import nn

from qspinn.app.compose.completing import to_plain
from qspinn.app.run.quantization import build_scheme, plan_from_config
from qspinn.app.run.train import train
from qspinn.learning import SupervisedLearning
from qspinn.records import read_record
from tests.app.run.test_train import BIASES, NEURONS, WEIGHTS

QUICK = ("trainer.max_epochs=1", "trainer.limit_train_batches=2")
# A threshold and a leak per layer of neurons.
CONSTANTS = 4 + 4


@pytest.mark.few(0.5)
@pytest.mark.parametrize("scheme", ["ptq", "itq"])
def test_all_of_the_network_here_is_quantised(composed, tmp_path, capsys, scheme):
    record = train(composed(*QUICK, f"quantization.scheme={scheme}"), tmp_path)
    parameters = WEIGHTS + BIASES + CONSTANTS
    assert record.summary["parameters"] == {"quantized": parameters, "total": parameters}
    assert record.summary["states"] == {"quantized": NEURONS, "total": NEURONS}
    assert read_record(tmp_path / "record.json").summary == record.summary
    printed = capsys.readouterr().out
    assert "  quantised: 100% of the parameters, 100% of the states\n" in printed
    with open(tmp_path / "metrics.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["quantized_parameters_share"]) == 1.0


def test_what_the_plan_leaves_in_32_bit_is_named(composed, tmp_path, capsys):
    rules = "quantization.rules=[{layers:*,role:bias,format:float32}]"
    record = train(composed(*QUICK, rules), tmp_path)
    total = WEIGHTS + BIASES + CONSTANTS
    assert record.summary["parameters"] == {"quantized": total - BIASES, "total": total}
    assert record.parameters_share == 1 - BIASES / total
    assert record.footprint_bits_by_role["bias"] == 32 * BIASES
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if line.startswith("  32-bit: ")]
    assert f"{BIASES} values" in line
    assert "network.output.linear" in line
    # A run that is done says the same.
    train(composed(*QUICK, rules), tmp_path)
    assert line in capsys.readouterr().out


def test_a_32_bit_run_knows_its_values_too(composed, tmp_path, capsys):
    record = train(composed(*QUICK, "quantization.scheme=none"), tmp_path)
    assert record.parameters_share == record.states_share == 0.0
    assert record.summary["states"]["total"] == NEURONS
    assert "quantised" not in capsys.readouterr().out


def test_a_network_that_does_not_spike_is_refused_unless_asked_for(composed):
    module = SupervisedLearning(
        nn.Sequential(nn.Flatten(), nn.Linear(9, 3)), torch.optim.Adam, num_classes=3
    )
    example = torch.zeros(1, 1, 3, 3)
    for scheme in ("ptq", "itq"):
        chosen = f"quantization.scheme={scheme}"
        values = to_plain(composed(chosen))
        with pytest.raises(ValueError, match=r"no spiking neuron.*allow_no_neurons"):
            build_scheme(values, plan_from_config(values["quantization"])).check(module, example)
        values = to_plain(composed(chosen, "quantization.allow_no_neurons=true"))
        build_scheme(values, plan_from_config(values["quantization"])).check(module, example)
