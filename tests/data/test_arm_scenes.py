"""Arms of the right lengths, in the right gestures, drawn where they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qspinn.data.arm_film import LONGEST_FRAME, adaptive_frames, draw, render
from qspinn.data.arm_motions import GESTURES, LEFT, RIGHT, draw_style, hand_paths
from qspinn.data.arm_scenes import SIZE, Person, Scene, body_capsules, elbow

PERSON = Person(0.29, 0.26, 0.18, 0.19, girth=1.0, skin=0.65, hair=0.1)
SCENE = Scene(PERSON, 80, 64, 68, 0.2, 1.0, 0.2, 0.3, 0.2, 1.0, 0.0)
SECONDS = np.arange(0, 1.5, 0.01)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


coordinate = st.floats(-1, 1)
point = st.tuples(coordinate, coordinate, coordinate)


@settings(deadline=None, max_examples=100)
@given(point, point, st.floats(0.2, 0.4), st.floats(0.2, 0.4))
def test_arms_keep_their_lengths(shoulder, wrist, upper, fore):
    shoulder, wanted = np.array([shoulder]), np.array([wrist])
    if np.linalg.norm(wanted - shoulder) < 1e-3:
        return  # no direction

    joint, wrist = elbow(shoulder, wanted, upper, fore, np.array([0.3, 0.9, -0.2]))

    assert np.linalg.norm(joint - shoulder) == pytest.approx(upper, abs=1e-6)
    assert np.linalg.norm(wrist - joint) == pytest.approx(fore, abs=1e-6)
    # The wrist stays on the line to where it wants to be, and gets there if it can.
    assert np.linalg.norm(np.cross(wrist - shoulder, wanted - shoulder)) < 1e-6
    distance = np.linalg.norm(wanted - shoulder)
    if 1.1 * abs(upper - fore) + 0.01 < distance < 0.99 * (upper + fore):
        np.testing.assert_allclose(wrist, wanted, atol=1e-6)


def image_path(gesture: int, seed: int = 0) -> np.ndarray:
    """Columns and rows of the wrists, ``[2, K, 2]``, as the camera sees them."""
    paths = hand_paths(gesture, SECONDS, draw_style(gesture, 0.5, rng(seed)))
    return paths[..., :2] * np.array([[[-1.0, 1.0]], [[1.0, 1.0]]])


def turned(path: np.ndarray) -> float:
    """Radians turned around the middle; positive: clockwise for the viewer (rows go down)."""
    x, y = (path - path.mean(0)).T
    return float(np.diff(np.unwrap(np.arctan2(y, x))).sum())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("gesture", "side", "sign"), [(4, RIGHT, -1), (5, RIGHT, 1), (6, LEFT, -1), (7, LEFT, 1)]
)
def test_circles_turn_as_the_person_sees_it(gesture, side, sign, seed):
    # The camera faces the person: clockwise for one is counter-clockwise for the other.
    paths = image_path(gesture, seed)
    rounds = sign * turned(paths[side]) / (2 * np.pi)

    assert 0.6 < rounds < 3
    assert np.ptp(paths[1 - side], axis=0).max() < 0.1


@pytest.mark.parametrize(("right", "left"), [(2, 3), (4, 7), (5, 6)])
def test_what_the_right_arm_does_the_left_arm_mirrors(right, left):
    style = draw_style(right, 0.0, rng())

    one, other = (hand_paths(gesture, SECONDS, style) for gesture in (right, left))

    np.testing.assert_array_equal(one[RIGHT], other[LEFT])
    np.testing.assert_array_equal(one[LEFT], other[RIGHT])


def test_circles_of_both_directions_visit_the_same_places():
    style = draw_style(4, 0.0, rng())
    long = np.arange(0, 20, 0.01)
    one, other = (hand_paths(gesture, long, style)[RIGHT] for gesture in (4, 5))

    nearest = np.linalg.norm(one[::50, None] - other[None], axis=-1).min(1)

    assert nearest.max() < 0.02


def test_no_gestures_but_eleven():
    assert len(GESTURES) == 11
    for gesture in (0, 12):
        with pytest.raises(ValueError, match=f"gesture={gesture}; write 1 to 11"):
            hand_paths(gesture, SECONDS, draw_style(1, 0.5, rng()))


@pytest.mark.parametrize("radius", [1.5, 4.0, 9.0])
@pytest.mark.parametrize("length", [0.0, 13.7, 40.0])
def test_a_capsule_covers_its_area(radius, length):
    capsule = np.array([[[40.3, 50.2, radius, 40.3 + 0.6 * length, 50.2 + 0.8 * length, radius]]])
    capsule = np.concatenate([capsule, [[[1.0, 0.0]]]], axis=-1)

    image = draw(np.zeros((SIZE, SIZE), np.float32), capsule)[0]

    # Brightness 1 - (d / r)^2 / 4 at distance d from the axis, integrated over both halves.
    expected = np.pi * radius**2 * (1 - 1 / 8) + 2 * radius * length * (1 - 1 / 12)
    assert image.sum() == pytest.approx(expected, rel=0.04)
    rows, columns = np.indices(image.shape)
    middle = (image * columns).sum() / image.sum(), (image * rows).sum() / image.sum()
    assert middle == pytest.approx((40.3 + 0.3 * length, 50.2 + 0.4 * length), abs=0.1)


def test_later_capsules_hide_earlier_ones_and_edges_are_smooth():
    far, near = [64, 64, 20, 64, 64, 20, 0.2, 0], [64, 64, 5, 64, 64, 5, 0.9, 0]

    image = draw(np.full((SIZE, SIZE), 0.5, np.float32), np.array([[far, near]], float))[0]

    assert image[64, 64] == pytest.approx(0.9)
    assert image[64, 74] == pytest.approx(0.2 * (1 - 0.25 * 0.25), rel=1e-3)
    assert image[64, 100] == 0.5
    edge = image[64, 82:87]
    assert ((edge > 0.14) & (edge < 0.5)).any()


def test_capsules_may_leave_the_image():
    capsule = np.array([[[-30.0, 300.0, 5.0, -10.0, 400.0, 5.0, 1.0, 0.3]]])

    assert (draw(np.full((SIZE, SIZE), 0.5, np.float32), capsule) == 0.5).all()


def test_frames_follow_the_motion():
    style = draw_style(4, 0.5, rng())
    fine = np.arange(0, 900_000, 1000)
    capsules = body_capsules(SCENE, 4, style, fine * 1e-6, rng())

    chosen = adaptive_frames(capsules, fine, LONGEST_FRAME)

    assert chosen[0] == 0
    assert chosen[-1] == len(fine) - 1
    gaps = np.diff(chosen)
    assert gaps.min() >= 1
    assert np.diff(fine[chosen]).max() <= LONGEST_FRAME
    ends = capsules[chosen][:, :, [0, 1, 3, 4]].reshape(len(chosen), -1, 2)
    moved = np.linalg.norm(np.diff(ends, axis=0), axis=-1).max(1)
    assert moved[gaps > 1].max() <= 1
    assert len(adaptive_frames(capsules[:1], fine[:1], LONGEST_FRAME)) == 1


@pytest.mark.parametrize("gesture", range(1, 12))
def test_hands_are_bright_where_they_are(gesture):
    style = draw_style(gesture, 0.2, rng())

    images, times = render(SCENE, gesture, style, 100_000, rng(1))

    assert images.shape == (len(times), SIZE, SIZE)
    assert times[0] == 0
    assert times[-1] == 100_000
    capsules = body_capsules(SCENE, gesture, style, times * 1e-6, rng(1))
    palm = capsules[:, -5, [1, 0]]  # of the near arm: four fingers come after it
    inside = ((palm > 3) & (palm < SIZE - 3)).all(1)
    assert inside.any()
    row, column = np.rint(palm[inside]).astype(int).T
    levels = np.exp(images[np.flatnonzero(inside), row, column])
    assert (levels > 0.45).mean() > 0.8  # skin: 0.65; the wall: 0.3, the shirt: 0.2
