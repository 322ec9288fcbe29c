"""An event camera: what a dynamic vision sensor makes of a film of log intensities.

The model is the one of simulators in use (H. Rebecq, D. Gehrig, D. Scaramuzza, "ESIM: an Open Event
Camera Simulator", CoRL 2018; Y. Hu, S.-C. Liu, T. Delbruck, "v2e: From Video Frames to Realistic
DVS Events", CVPR workshops 2021): a pixel memorises a log intensity, emits an event as soon as the
present one differs from it by a threshold, and memorises anew; thresholds differ from pixel to
pixel; after an event the pixel is reset for a while; leakage and noise add events of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from qspinn.data.checks import check
from qspinn.data.events import Events

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.int64]
Found = tuple[IntArray, IntArray, npt.NDArray[np.uint8]]
"""Times, pixels and polarities of events."""
Noise = tuple[IntArray, FloatArray, npt.NDArray[np.uint8]]
"""Where each pixel's noise begins, times and polarities; see :func:`draw_noise`."""
SMALLEST_THRESHOLD = 0.02
"""Where mismatch would make a pixel's threshold smaller, it is this."""


@dataclass(frozen=True)
class CameraSettings:
    """What distinguishes one event camera from another.

    Args:
        on_threshold: Rise of the natural logarithm of the intensity that makes an ON event.
        off_threshold: Fall of it that makes an OFF event.
        mismatch: Standard deviation of either threshold from pixel to pixel.
        refractory: Microseconds after an event for which the pixel is reset: it sends nothing, and
            memorises the log intensity at their end. 0: it memorises exactly the threshold crossed.
        noise_rate: Noise events per pixel and second, of either polarity (background activity).
        hot_share: Share of pixels that are hot: they have ``hot_rate`` further noise events.
        hot_rate: Noise events per hot pixel and second.
        leak_rate: ON events per second of a pixel that sees no change.
        repeats: Probability that an ON event is read out once more 1 us later, and then again, as
            the readout of DVS128 Gesture's camera does (see :func:`repeat_on_events`); below 1.

    Raises:
        ValueError: A value that no camera has; the message names it.
    """

    on_threshold: float = 0.25
    off_threshold: float = 0.25
    mismatch: float = 0.03
    refractory: int = 500
    noise_rate: float = 0.5
    hot_share: float = 0.0
    hot_rate: float = 50.0
    leak_rate: float = 0.05
    repeats: float = 0.0

    def __post_init__(self) -> None:
        for name in ("on_threshold", "off_threshold"):
            value, wanted = getattr(self, name), f"{SMALLEST_THRESHOLD} or more, as 0.25"
            check(SMALLEST_THRESHOLD <= value < np.inf, name, value, wanted)
        for name in ("mismatch", "refractory", "noise_rate", "hot_rate", "leak_rate"):
            value = getattr(self, name)
            check(0 <= value < np.inf, name, value, "0 or more")
        hot, repeats = self.hot_share, self.repeats
        check(0 <= hot <= 1, "hot_share", hot, "a share of the pixels, 0 to 1")
        check(0 <= repeats < 1, "repeats", repeats, "a probability below 1, 0 for none")


def film(
    log_intensity: FloatArray,
    times: IntArray,
    settings: CameraSettings,
    rng: np.random.Generator,
) -> Events:
    """Events of a camera that sees a film.

    Between two frames the log intensity is interpolated linearly, and events happen at the moment
    at which it crosses a threshold, not at those of the frames. All pixels begin with the first
    frame memorised. The camera itself is a pure function of the film, its pixels' thresholds and
    its noise; these two are drawn from ``rng``.

    Args:
        log_intensity: ``[K, H, W]``, natural logarithms.
        times: ``int64`` ``[K]``, microseconds, strictly ascending: when the frames were taken.
        settings: The camera.
        rng: Where the thresholds' mismatch and the noise come from.

    Returns:
        Events with ``times[0] <= t <= times[-1]``.

    Raises:
        ValueError: Other shapes, values that are not finite, or times that do not ascend.
    """
    _check_film(log_intensity, times)
    frames, height, width = log_intensity.shape
    pixels = height * width
    on, off = (
        np.maximum(rng.normal(mean, settings.mismatch, pixels), SMALLEST_THRESHOLD)
        for mean in (settings.on_threshold, settings.off_threshold)
    )
    noise = draw_noise(pixels, int(times[0]), int(times[-1]), settings, rng)
    circuits = np.stack([on, off, settings.leak_rate * on * 1e-6])
    flat = np.ascontiguousarray(log_intensity.reshape(frames, pixels))
    t, pixel, p = film_pixels(flat, times, circuits, float(settings.refractory), noise)
    if settings.repeats:
        t, pixel, p = repeat_on_events(t, pixel, p, settings.repeats, int(times[-1]), rng)
    order = np.argsort(t, kind="stable")
    y, x = np.divmod(pixel[order], width)
    return Events(t[order], x.astype(np.uint16), y.astype(np.uint16), p[order], height, width)


def draw_noise(
    pixels: int, start: int, stop: int, settings: CameraSettings, rng: np.random.Generator
) -> Noise:
    """Noise of each pixel: a Poisson process, its events ON or OFF with equal probability.

    Args:
        pixels: Number of pixels P.
        start: When the noise begins, in microseconds.
        stop: When it ends.
        settings: The camera.
        rng: Where the noise comes from.

    Returns:
        ``int64`` ``[P + 1]``, where each pixel's noise begins in the other two: ``float64`` times,
        ascending within a pixel, and ``uint8`` polarities.
    """
    rates = np.full(pixels, settings.noise_rate)
    rates[rng.random(pixels) < settings.hot_share] += settings.hot_rate
    counts = rng.poisson(rates * (stop - start) * 1e-6)
    first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    t = rng.uniform(start, stop, first[-1])
    t = t[np.lexsort((t, np.repeat(np.arange(pixels), counts)))]
    return first, t, rng.integers(0, 2, first[-1], np.uint8)


def repeat_on_events(
    t: IntArray,
    pixel: IntArray,
    p: npt.NDArray[np.uint8],
    probability: float,
    stop: int,
    rng: np.random.Generator,
) -> Found:
    """Reads ON events out more than once, as the camera of DVS128 Gesture does.

    In clips of it, 10 to 21% of all events follow an ON event of the same pixel within 2 us, and
    are ON; OFF events do not do that. So the number of further readouts of an ON event is drawn
    from a geometric distribution, each 1 us after the last.

    Args:
        t: Times ``[E]`` in microseconds.
        pixel: Pixels ``[E]``.
        p: Polarities ``[E]``.
        probability: Probability of one more readout, after each.
        stop: Nothing is read out after this time.
        rng: Where the numbers of readouts come from.

    Returns:
        ``t``, ``pixel`` and ``p`` with the further events; repeated ones follow their first.
    """
    times = np.ones(len(t), np.int64)
    is_on = p == 1
    times[is_on] = rng.geometric(1 - probability, int(is_on.sum()))
    index = np.repeat(np.arange(len(t)), times)
    number = np.arange(len(index)) - np.repeat(np.cumsum(times) - times, times)
    repeated = t[index] + number
    index, repeated = index[repeated <= stop], repeated[repeated <= stop]
    return repeated, pixel[index], p[index]


@numba.njit(cache=True)
def film_pixels(
    log_intensity: FloatArray,
    times: IntArray,
    circuits: FloatArray,
    refractory: float,
    noise: Noise,
) -> Found:
    """The camera as a function of the film, its pixels and their noise; see :func:`film`.

    Args:
        log_intensity: ``[K, P]``.
        times: ``int64`` ``[K]``, microseconds.
        circuits: ``[3, P]``, thresholds of a rise and of a fall, and leakage per microsecond: what
            a pixel sees is its log intensity and that much more since the first frame.
        refractory: Microseconds.
        noise: See :func:`draw_noise`.

    Returns:
        Times in whole microseconds (rounded down), pixels and polarities of the events, ordered by
        the frame before them and the pixel; those of a pixel by time.
    """
    on, off, leak = circuits
    noise_first, noise_t, noise_p = noise
    frames, pixels = log_intensity.shape
    memory = log_intensity[0].astype(np.float64)
    release = np.full(pixels, -1.0e300)  # when the reset after the last event ends
    next_noise = noise_first[:-1].copy()
    events = _buffers(1 << 16)
    count = 0
    for k in range(frames - 1):
        start, stop = float(times[k]), float(times[k + 1])
        for i in range(pixels):
            if release[i] >= stop:
                continue
            before = log_intensity[k, i] + leak[i] * (start - times[0])
            after = log_intensity[k + 1, i] + leak[i] * (stop - times[0])
            noise_end = noise_first[i + 1]
            has_noise = next_noise[i] < noise_end and noise_t[next_noise[i]] <= stop
            is_quiet = memory[i] - off[i] < after < memory[i] + on[i]
            if is_quiet and not has_noise and release[i] < start:
                continue
            slope = (after - before) / (stop - start)
            now = start
            if release[i] >= start:
                now = release[i]
                memory[i] = before + slope * (now - start)
            while True:
                crossing = _next_crossing(memory[i], on[i], off[i], before, slope, start)
                crossing = max(crossing, now)
                while next_noise[i] < noise_end and noise_t[next_noise[i]] < now:
                    next_noise[i] += 1  # during the reset
                is_noise = next_noise[i] < noise_end and noise_t[next_noise[i]] < crossing
                moment = noise_t[next_noise[i]] if is_noise else crossing
                if moment > stop:
                    break
                polarity = noise_p[next_noise[i]] if is_noise else np.uint8(slope > 0)
                if count == len(events[0]):
                    events = _grown(events)
                events[0][count] = np.int64(np.floor(moment))
                events[1][count] = i
                events[2][count] = polarity
                count += 1
                next_noise[i] += is_noise
                now = moment + refractory
                if refractory == 0.0 and not is_noise:
                    memory[i] += on[i] if slope > 0 else -off[i]
                elif now < stop:
                    memory[i] = before + slope * (now - start)
                else:
                    release[i] = now
                    break
    return events[0][:count], events[1][:count], events[2][:count]


@numba.njit(cache=True, inline="always")
def _next_crossing(
    memory: float, on: float, off: float, before: float, slope: float, start: float
) -> float:
    """When the line ``before + slope * (t - start)`` reaches a threshold; infinity: never."""
    if slope > 0:
        return start + (memory + on - before) / slope
    if slope < 0:
        return start + (memory - off - before) / slope
    return np.inf


@numba.njit(cache=True)
def _buffers(size: int) -> Found:
    return np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.uint8)


@numba.njit(cache=True)
def _grown(events: Found) -> Found:
    """Twice the room, with the same beginning."""
    t, pixel, p = events
    u, other, q = _buffers(len(t))
    return np.concatenate((t, u)), np.concatenate((pixel, other)), np.concatenate((p, q))


def _check_film(log_intensity: FloatArray, times: IntArray) -> None:
    if log_intensity.ndim != 3 or times.shape != log_intensity.shape[:1]:
        raise ValueError(
            f"log_intensity {list(log_intensity.shape)}, times {list(times.shape)}; write "
            "[K, H, W] and one time per frame, [K]"
        )
    if len(times) == 0 or not (np.diff(times) > 0).all():
        raise ValueError(
            "times do not ascend; write one or more frames, each later than the one before"
        )
    if not np.isfinite(log_intensity).all():
        raise ValueError("log_intensity: has values that are not finite; add a dark level first")
