"""The event camera against exact rational numbers, and what any such camera obeys."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qspinn.data.event_camera import (
    CameraSettings,
    draw_noise,
    film,
    film_pixels,
    repeat_on_events,
)
from tests.reference.event_camera import pixel_events

IDEAL = CameraSettings(mismatch=0.0, refractory=0, noise_rate=0.0, leak_rate=0.0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def one_pixel(values: list[float]) -> np.ndarray:
    return np.array(values, np.float64).reshape(-1, 1, 1)


@st.composite
def films(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Times ``[K]`` and levels ``[K, P]`` in multiples of 1/64, exact in every number type."""
    frames, pixels = draw(st.integers(2, 5)), draw(st.integers(1, 2))
    gaps = draw(st.lists(st.integers(1, 5000), min_size=frames - 1, max_size=frames - 1))
    start = draw(st.integers(0, 10**6))
    levels = draw(
        st.lists(st.integers(-64, 64), min_size=frames * pixels, max_size=frames * pixels)
    )
    times = start + np.concatenate([[0], np.cumsum(gaps)]).astype(np.int64)
    return times, np.array(levels, np.float64).reshape(frames, pixels) / 64


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(
    films(),
    st.integers(8, 60),
    st.integers(8, 60),
    st.sampled_from([0, 1, 137, 2000]),
    st.dictionaries(st.integers(1, 63), st.integers(0, 1), max_size=3),
)
def test_every_pixel_against_exact_rationals(scene, on, off, refractory, noise):
    times, levels = scene
    pixels = levels.shape[1]
    # No whole number of thresholds up to 1,008 is a level in 1/64: rounding decides no event.
    on, off = (Fraction(1009 * count + 1, 1009 * 64) for count in (on, off))
    span = int(times[-1] - times[0])
    noise = [(float(times[0] + part * span / 64), noise[part]) for part in sorted(noise)]
    first = np.arange(pixels + 1) * len(noise)
    noise_t = np.array([t for t, _ in noise] * pixels)
    noise_p = np.array([p for _, p in noise] * pixels, np.uint8)
    circuits = np.repeat([[float(on)], [float(off)], [0.0]], pixels, axis=1)

    t, pixel, p = film_pixels(levels, times, circuits, float(refractory), (first, noise_t, noise_p))

    for column in range(pixels):
        expected = pixel_events(
            times.tolist(),
            [Fraction(value) for value in levels[:, column].tolist()],
            on,
            off,
            refractory,
            [(Fraction(moment), polarity) for moment, polarity in noise],
        )
        mine = pixel == column
        assert p[mine].tolist() == [polarity for _, polarity in expected]
        exact = np.array([float(moment) for moment, _ in expected])
        assert np.all(t[mine] <= exact + 1e-3)
        assert np.all(t[mine] > exact - 1 - 1e-3)


@pytest.mark.parametrize("swing", [0.0, 0.24, 0.26, 3.9, -0.24, -0.26, -3.9])
def test_a_ramp_makes_as_many_events_as_thresholds_fit_into_it(swing):
    events = film(one_pixel([0.1, 0.1 + swing]), np.array([0, 10_000]), IDEAL, rng())

    assert len(events) == int(abs(swing) / 0.25)
    assert (events.p == (swing > 0)).all()
    steps = 10_000 * 0.25 / max(abs(swing), 1e-9) * np.arange(1, len(events) + 1)
    assert events.t.tolist() == np.floor(steps + 1e-6).astype(int).tolist()


def test_the_film_may_be_cut_into_finer_frames_without_a_difference():
    times = np.arange(0, 50_001, 5000)
    levels = rng(1).normal(0, 1, (len(times), 6, 5))
    finer = np.arange(0, 50_001, 250)
    between = np.stack([np.interp(finer, times, one) for one in levels.reshape(len(times), -1).T])
    camera = CameraSettings(noise_rate=200.0, leak_rate=20.0, refractory=700)

    coarse = film(levels, times, camera, rng(2))
    fine = film(between.T.reshape(len(finer), 6, 5), finer, camera, rng(2))

    assert len(coarse) > 500
    # Rounding may move an event across a whole microsecond.
    np.testing.assert_allclose(coarse.t, fine.t, atol=1)
    np.testing.assert_array_equal(np.sort(coarse.x), np.sort(fine.x))
    np.testing.assert_array_equal(np.bincount(coarse.p), np.bincount(fine.p))


@pytest.mark.parametrize("refractory", [0, 1, 300, 5000])
def test_a_pixel_never_answers_during_its_reset(refractory):
    times = np.arange(0, 200_001, 4000)
    levels = rng(3).normal(0, 2, (len(times), 8, 8))
    camera = CameraSettings(noise_rate=100.0, refractory=refractory, hot_share=0.2)

    events = film(levels, times, camera, rng(4))

    order = np.lexsort((events.t, events.y.astype(int) * 8 + events.x))
    pixel = (events.y.astype(int) * 8 + events.x)[order]
    gaps = np.diff(events.t[order])[np.diff(pixel) == 0]
    assert len(gaps) > 500
    assert gaps.min() >= refractory
    if refractory:
        assert gaps.min() < refractory + 100
    assert (np.diff(events.t) >= 0).all()
    assert times[0] <= events.t[0]
    assert events.t[-1] <= times[-1]


def test_a_still_scene_makes_noise_alone_and_as_much_as_asked():
    levels = np.zeros((2, 64, 64))
    times = np.array([0, 10_000_000])
    quiet = film(levels, times, IDEAL, rng())
    noisy = film(levels, times, CameraSettings(noise_rate=2.0, leak_rate=0.0, refractory=0), rng())

    expected = 2.0 * 10 * 64 * 64
    assert len(quiet) == 0
    assert abs(len(noisy) - expected) < 5 * expected**0.5
    assert abs(noisy.p.mean() - 0.5) < 0.02
    assert abs(noisy.t.mean() / 5e6 - 1) < 0.02


def test_leakage_makes_on_events_at_its_rate():
    camera = CameraSettings(noise_rate=0.0, leak_rate=3.0, refractory=0, mismatch=0.05)

    events = film(np.zeros((2, 4, 4)), np.array([0, 2_050_000]), camera, rng())

    assert len(events) == 6 * 16
    assert events.p.all()


def test_hot_pixels_have_more_noise():
    camera = CameraSettings(noise_rate=0.0, hot_share=0.25, hot_rate=40.0)

    first, _, _ = draw_noise(4000, 0, 1_000_000, camera, rng())

    counts = np.diff(first)
    assert abs((counts > 0).mean() - 0.25) < 0.03
    assert abs(counts[counts > 0].mean() - 40) < 1


def test_repeated_readouts():
    t = np.arange(0, 4_000_000, 100)
    pixel = np.arange(len(t)) % 7
    p = (np.arange(len(t)) % 2).astype(np.uint8)

    repeated_t, repeated_pixel, repeated_p = repeat_on_events(t, pixel, p, 0.25, 4_000_000, rng())

    assert (repeated_p == 0).sum() == (p == 0).sum()
    # A geometric number of readouts: 1 / (1 - 0.25) on average.
    assert abs((repeated_p == 1).sum() / (p == 1).sum() - 4 / 3) < 0.01
    index = repeated_t // 100  # the event that is read out
    np.testing.assert_array_equal(repeated_pixel, pixel[index])
    np.testing.assert_array_equal(repeated_p, p[index])
    number = repeated_t % 100
    starts = np.flatnonzero(number == 0)
    assert len(starts) == len(t)
    assert (np.diff(number)[np.diff(number) > 0] == 1).all()


def test_nothing_is_read_out_after_the_end():
    t, _, _ = repeat_on_events(
        np.array([9]), np.array([0]), np.array([1], np.uint8), 0.99, 10, rng()
    )

    assert t.tolist() in ([9], [9, 10])


def test_the_same_seed_makes_the_same_events():
    levels, times = rng(5).normal(0, 1, (5, 6, 6)), np.arange(5) * 3000
    camera = CameraSettings(repeats=0.3)

    one, same, other = (film(levels, times, camera, rng(seed)) for seed in (6, 6, 7))

    assert one.t.tolist() == same.t.tolist()
    assert one.x.tolist() == same.x.tolist()
    assert one.t.tolist() != other.t.tolist()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"on_threshold": 0.0}, "on_threshold=0.0; write 0.02 or more"),
        ({"off_threshold": float("nan")}, "off_threshold=nan; write"),
        ({"refractory": -1}, "refractory=-1; write 0 or more"),
        ({"hot_share": 1.5}, "hot_share=1.5; write a share"),
        ({"repeats": 1.0}, "repeats=1.0; write a probability below 1"),
    ],
)
def test_impossible_cameras(values, message):
    with pytest.raises(ValueError, match=message):
        CameraSettings(**values)


@pytest.mark.parametrize(
    ("levels", "times", "message"),
    [
        (np.zeros((2, 3)), np.array([0, 1]), r"log_intensity \[2, 3\]"),
        (np.zeros((2, 3, 3)), np.array([0, 1, 2]), r"times \[3\]; write"),
        (np.zeros((2, 3, 3)), np.array([1, 1]), "each later than the one before"),
        (np.full((2, 3, 3), -np.inf), np.array([0, 1]), "not finite; add a dark level"),
    ],
)
def test_impossible_films(levels, times, message):
    with pytest.raises(ValueError, match=message):
        film(levels, times, IDEAL, rng())
