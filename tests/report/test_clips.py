"""Clips: opened again, and their pixels compared with the frames."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qspinn.report.clips import LEVELS, clip_codes, palette, save_clip


def opened(path: Path) -> np.ndarray:
    """Every frame of a GIF file, ``[T, height, width, 3]``."""
    frames = []
    with Image.open(path) as image:
        for index in range(image.n_frames):
            image.seek(index)
            frames.append(np.asarray(image.convert("RGB")))
    return np.stack(frames)


def counts(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(0.7, shape).astype(np.float32)


def test_every_pixel_of_every_frame_has_its_colour_in_the_file(tmp_path: Path) -> None:
    clip = counts((5, 2, 6, 9))

    shown = opened(save_clip([clip], tmp_path / "clip.gif"))

    zoom = -(-256 // 6)
    assert shown.shape == (5, 6 * zoom, 9 * zoom, 3)
    expected = palette()[clip_codes(clip)].repeat(zoom, 1).repeat(zoom, 2)
    np.testing.assert_array_equal(shown, expected)


def test_polarities_have_colours_of_their_own() -> None:
    frames = np.zeros((1, 2, 1, 4))
    frames[0, 1, 0, 1] = frames[0, 0, 0, 2] = 5  # ON at 1, OFF at 2
    frames[0, :, 0, 3] = 5

    nothing, on, off, both = palette()[clip_codes(frames)][0, 0].astype(int)

    assert nothing.tolist() == [255, 255, 255]
    assert on[0] > on[2] + 100  # red
    assert off[2] > off[0] + 100  # blue
    assert both.sum() < min(on.sum(), off.sum())


def test_shades_are_in_proportion_and_a_single_event_is_seen() -> None:
    frames = np.zeros((1, 2, 1, 1000))
    frames[0, 1, 0] = np.arange(1000)
    levels = clip_codes(frames)[0, 0] // LEVELS
    assert levels[0] == 0
    assert levels[1] == 1
    assert levels[-1] == LEVELS - 1
    assert (np.diff(levels.astype(int)) >= 0).all()
    assert levels[500] == np.ceil(500 / np.percentile(np.arange(1, 1000), 99) * (LEVELS - 1))
    assert not clip_codes(np.zeros((2, 2, 3, 3))).any()


def test_clips_stand_side_by_side_and_run_for_ever(tmp_path: Path) -> None:
    clips = [counts((3, 2, 300, 280), seed) for seed in (0, 1)]
    path = save_clip(clips, tmp_path / "clips.gif", milliseconds=70)
    shown = opened(path)
    assert shown.shape == (3, 300, 561, 3)
    for clip, part in zip(clips, (shown[:, :, :280], shown[:, :, 281:]), strict=True):
        np.testing.assert_array_equal(part, palette()[clip_codes(clip)])
    with Image.open(path) as image:
        assert image.info["loop"] == 0
        assert image.info["duration"] == 70
    assert [file.name for file in tmp_path.iterdir()] == ["clips.gif"]


def test_a_broken_write_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "clip.gif"
    path.write_text("old")

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_clip([counts((2, 2, 4, 4))], path)
    assert path.read_text() == "old"


@pytest.mark.parametrize("shape", [(2, 4, 4), (2, 3, 4, 4), (1, 2, 2, 4, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"event frames .*: expected \[T, 2, H, W\]"):
        clip_codes(np.zeros(shape))


def test_clips_of_different_shapes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="write one or more of the same shape"):
        save_clip([], tmp_path / "a.gif")
    with pytest.raises(ValueError, match="of the same shape"):
        save_clip([np.zeros((2, 2, 4, 4)), np.zeros((3, 2, 4, 4))], tmp_path / "a.gif")
