"""Rasters and histograms show the numbers that they are given."""

import numpy as np
import pytest
from matplotlib.patches import StepPatch

from qspinn.report.activity import (
    FLOAT_BINS,
    LayerActivity,
    draw_potentials,
    draw_rasters,
    grid_bins,
    shown_neurons,
)


def layer(neurons: int = 6, step: float = 0.0, seed: int = 0) -> LayerActivity:
    rng = np.random.default_rng(seed)
    spikes = (rng.random((5, 3, neurons)) < 0.3).astype(np.float32)
    potentials = rng.normal(0.0, 0.4, (5, 3, neurons)).astype(np.float32)
    if step:
        potentials = np.floor(potentials / step + 0.5) * step
    return LayerActivity(spikes, potentials, 1.0)


def runs(layers: int = 2, neurons: int = 6) -> dict[str, dict[str, LayerActivity]]:
    names = [f"blocks.{index}.neuron" for index in range(layers)]
    return {
        "32-bit": {name: layer(neurons, seed=i) for i, name in enumerate(names)},
        "quantised": {name: layer(neurons, 0.125, i + 50) for i, name in enumerate(names)},
    }


def test_a_raster_is_the_spikes_of_the_first_sample() -> None:
    given = runs()
    figure = draw_rasters(given, "Spikes")
    assert len(figure.axes) == 4
    shown = [axes.images[0].get_array() for axes in figure.axes]
    wanted = [given[run][name] for name in given["32-bit"] for run in given]
    for picture, one, axes in zip(shown, wanted, figure.axes, strict=True):
        np.testing.assert_array_equal(picture, one.spikes[:, 0].T)
        assert f"{100 * one.spikes.mean():.1f}% fire per step" in axes.get_title()
    assert figure.axes[0].get_ylabel() == "blocks.0.neuron\n6 neurons"


def test_of_many_neurons_some_are_shown_evenly() -> None:
    assert shown_neurons(7).tolist() == list(range(7))
    some = shown_neurons(10_000)
    assert len(some) == 120
    assert (some[0], some[-1]) == (0, 9999)
    assert np.ptp(np.diff(some)) <= 1
    picture = draw_rasters(runs(1, 1000), "Spikes").axes[0].images[0].get_array()
    assert picture.shape == (120, 5)


@pytest.mark.parametrize("layers", [1, 10, 23])
def test_of_many_layers_the_first_and_the_last_are_shown(layers: int) -> None:
    given = runs(layers)
    shown = [axes.get_title() for axes in draw_potentials(given, "Potentials").axes]
    names = list(given["32-bit"])
    assert shown == (names if layers <= 10 else names[:5] + names[-5:])


def test_a_grid_value_has_a_bin_of_its_own() -> None:
    rough, fine = np.array([-0.3, 0.9]), np.array([-0.25, 0.0, 0.125, 0.5])
    edges = grid_bins([rough, fine])
    np.testing.assert_array_equal(np.diff(edges), 0.125)
    assert edges[0] <= -0.3
    assert edges[-1] >= 0.9
    middles = (edges[:-1] + edges[1:]) / 2
    assert set(fine) <= set(middles.tolist())


def test_values_on_no_grid_get_even_bins() -> None:
    for values in ([np.array([0.0, 0.3, 1.0])], [np.array([0.0, 2.0**-20, 1.0])]):
        edges = grid_bins(values)
        assert len(edges) == FLOAT_BINS + 1
        assert (edges[0], edges[-1]) == (0.0, 1.0)
    assert np.all(np.diff(grid_bins([np.full(3, 0.3)])) > 0)


def test_a_histogram_holds_the_share_of_every_value() -> None:
    given = runs(1)
    axes = draw_potentials(given, "Potentials").axes[0]
    outlines = [
        one for one in axes.patches if isinstance(one, StepPatch) and one.get_label() in given
    ]
    assert [one.get_label() for one in outlines] == ["32-bit", "quantised"]
    shares, edges, _ = outlines[1].get_data()
    potentials = given["quantised"]["blocks.0.neuron"].potentials
    for share, low, high in zip(shares, edges[:-1], edges[1:], strict=True):
        exact = np.mean(potentials == (low + high) / 2)
        assert share == pytest.approx(exact)
    assert shares.sum() == pytest.approx(1.0)
    assert axes.lines[0].get_xdata()[0] == 1.0


def test_a_network_that_diverged_is_drawn_and_said() -> None:
    given = runs(2)
    for name in ("32-bit", "quantised"):
        given[name]["blocks.1.neuron"].potentials[:] = np.nan
    given["32-bit"]["blocks.0.neuron"].potentials[0, 0, 0] = np.inf
    first, second = draw_potentials(given, "Potentials").axes
    assert first.get_title() == "blocks.0.neuron: 1 values are not finite"
    assert second.get_title() == "blocks.1.neuron: 180 values are not finite"


def test_bins_of_steps_that_are_no_powers_of_two():
    steps = np.arange(-3, 5)
    values = np.float32(0.3) + steps * np.float32(0.7)
    edges = grid_bins([np.linspace(-5.0, 5.0, 999), values])
    assert np.allclose(np.diff(edges), 0.7, atol=1e-5)
    middles = (edges[:-1] + edges[1:]) / 2
    assert all(np.isclose(middles, value, atol=1e-4).sum() == 1 for value in values)
    assert edges[0] <= -5.0
    assert edges[-1] >= 5.0
