"""Pictures: opened again, and their pixels compared with what they show."""

import subprocess
import sys
from pathlib import Path

import matplotlib
import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from qspinn.report.pictures import (
    BAR_SPACE,
    MARGIN,
    draw_confusion,
    draw_weights,
    save_png,
    tile_weights,
)


def opened(figure: Figure, folder: Path) -> np.ndarray:
    """The pixels of a figure's PNG file, ``[height, width, 3]`` in [0, 1]."""
    return matplotlib.image.imread(save_png(figure, folder / "some.png"))[..., :3]


def test_tiles_lie_in_reading_order() -> None:
    # 5 neurons on 2x3 pixels: neuron n has weights 10 n + pixel.
    weights = 10.0 * np.arange(5) + np.arange(6)[:, None]

    grid = tile_weights(weights, (2, 3))

    nan = np.nan
    expected = [
        [nan] * 13,
        [nan, 0, 1, 2, nan, 10, 11, 12, nan, 20, 21, 22, nan],
        [nan, 3, 4, 5, nan, 13, 14, 15, nan, 23, 24, 25, nan],
        [nan] * 13,
        [nan, 30, 31, 32, nan, 40, 41, 42, nan, nan, nan, nan, nan],
        [nan, 33, 34, 35, nan, 43, 44, 45, nan, nan, nan, nan, nan],
        [nan] * 13,
    ]
    np.testing.assert_array_equal(grid, expected)


def test_channels_of_a_neuron_stand_side_by_side() -> None:
    weights = np.arange(8.0)[:, None]  # 2 channels of 2x2
    grid = tile_weights(weights, (2, 2, 2))
    np.testing.assert_array_equal(grid[1:-1, 1:-1], [[0, 1, 4, 5], [2, 3, 6, 7]])


@pytest.mark.parametrize(
    ("neurons", "rows", "columns"), [(1, 1, 1), (4, 2, 2), (7, 3, 3), (6, 2, 3)]
)
def test_tiles_make_about_a_square(neurons: int, rows: int, columns: int) -> None:
    grid = tile_weights(np.ones((6, neurons)), (1, 2, 3))
    assert grid.shape == (rows * 3 + 1, columns * 4 + 1)
    assert np.nansum(grid) == 6 * neurons


@pytest.mark.parametrize("shape", [(6,), (2, 2), (1, 1, 2, 3)])
def test_shapes_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"weights \[6, 2\] and input shape .*: expected"):
        tile_weights(np.ones((6, 2)), shape)


@pytest.mark.parametrize("neurons", [1, 9, 100])
def test_every_weight_has_its_colour_in_the_file(tmp_path: Path, neurons: int) -> None:
    rng = np.random.default_rng(neurons)
    weights = rng.random((784, neurons))
    grid = tile_weights(weights, (1, 28, 28))
    zoom = 1200 // len(grid)

    pixels = opened(draw_weights(weights, (1, 28, 28), "Weights"), tmp_path)

    side = zoom * len(grid)
    assert pixels.shape == (side + 2 * MARGIN, side + 2 * MARGIN + BAR_SPACE, 3)
    drawn = pixels[MARGIN : MARGIN + side, MARGIN : MARGIN + side]
    colours = matplotlib.colormaps["inferno"](grid / weights.max())[..., :3]
    colours[np.isnan(grid)] = 1.0  # white lines
    expected = colours.repeat(zoom, 0).repeat(zoom, 1)
    assert np.abs(drawn - expected).max() < 1.5 / 255


def test_weights_that_are_all_zero_are_black(tmp_path: Path) -> None:
    pixels = opened(draw_weights(np.zeros((784, 1)), (28, 28), "Nothing"), tmp_path)
    middle = pixels[MARGIN + 200, MARGIN + 200]
    assert middle.max() < 0.02


def test_a_confusion_matrix_shows_counts_and_shares() -> None:
    matrix = np.array([[90, 10, 0], [0, 0, 0], [25, 25, 50]])

    figure = draw_confusion(matrix, "Test images")

    axes = figure.axes[0]
    texts = {text.get_position(): text for text in axes.texts}
    assert {at: text.get_text() for at, text in texts.items()} == {
        (column, row): str(matrix[row, column]) for row in range(3) for column in range(3)
    }
    np.testing.assert_allclose(
        axes.images[0].get_array(), [[0.9, 0.1, 0], [0, 0, 0], [0.25, 0.25, 0.5]]
    )
    assert axes.get_title() == "Test images: 70.00% of 200 right"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("class given", "label")
    assert texts[0, 0].get_color() == "white"  # on dark blue
    assert texts[1, 1].get_color() == "black"


def test_dark_cells_are_those_of_large_shares(tmp_path: Path) -> None:
    figure = draw_confusion(np.diag([5, 5]) + np.array([[0, 0], [5, 0]]), "Test images")
    pixels = opened(figure, tmp_path)
    axes = figure.axes[0]
    shades = {}
    for row in range(2):
        for column in range(2):
            # Beside the number, in the corner of the cell.
            across, up = axes.transData.transform((column - 0.4, row - 0.4))
            shades[row, column] = pixels[len(pixels) - 1 - int(up), int(across)].sum()
    assert shades[0, 0] < shades[1, 0] == shades[1, 1] < shades[0, 1]


def test_many_classes_have_no_numbers(tmp_path: Path) -> None:
    figure = draw_confusion(np.eye(31, dtype=int), "Test images")
    assert len(figure.axes[0].texts) == 0
    assert opened(figure, tmp_path).std() > 0


def test_no_images_and_no_square() -> None:
    figure = draw_confusion(np.zeros((2, 2), dtype=int), "Test images")
    assert figure.axes[0].get_title() == "Test images: no images"
    with pytest.raises(
        ValueError, match=r"confusion matrix \[2, 3\]: expected \[classes, classes\]"
    ):
        draw_confusion(np.zeros((2, 3), dtype=int), "Test images")


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "some.png"
    save_png(draw_confusion(np.eye(2, dtype=int), "First"), path)
    before = path.read_bytes()

    def broken(self: Figure, file: object, **_: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", broken)
    with pytest.raises(OSError, match="disk full"):
        save_png(Figure(), path)
    assert path.read_bytes() == before
    monkeypatch.undo()
    save_png(draw_confusion(np.eye(3, dtype=int), "Second"), path)
    assert path.read_bytes() != before
    assert [file.name for file in path.parent.iterdir()] == ["some.png"]


def test_tables_and_selecting_do_without_matplotlib(repository: Path) -> None:
    code = "import sys, qspinn.report, qspinn.app.choose.select; print('matplotlib' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
